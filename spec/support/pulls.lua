-- Pulls from files of a throw-away folder, each looked at closely: `local here = pulls.each(before_each, after_each)`.
local assert = require "luassert"
local archive = require "spec.support.docker_archive"
local core = require "supermachine.core"
local layout = require "spec.support.oci_layout"
local scratch = require "spec.support.scratch"

local pulls = {}
pulls.__index = pulls

local PACKERS = { gz = "gzip -nc", bz2 = "bzip2 -c", xz = "xz -c", zst = "zstd -qc" }
pulls.KINDS = { "gz", "bz2", "xz", "zst" }

-- More than is read at once, twice over.
pulls.LARGE = ("0123456789abcdef"):rep(20000)
pulls.LAYERS = { pulls.LARGE, "two", pulls.LARGE }
-- Images to write into archives and folders.
pulls.one = archive.image { tags = { "one:1", "one:latest" }, layers = { "a", pulls.LARGE, "c" } }
pulls.two = archive.image { tags = { "two:1", "q.io/x/two:2" }, layers = { "a", "d" } }

-- One that is fresh in each test of the block: busted's two come from there.
function pulls.each(before_each, after_each)
	local self = setmetatable({}, pulls)
	before_each(function()
		self.folder = scratch.folder()
		self.store = self.folder .. "/store"
	end)
	after_each(function() scratch.remove(self.folder) end)
	return self
end

function pulls:pull(reference, options)
	options = options or {}
	options.store = self.store
	options.platform = options.platform or "linux/amd64"
	local operation <close> = assert(core.image_pull_begin(reference, options))
	return operation:finish()
end

-- The digest of what a reference leads to, pulled afresh; its layers must be these bytes.
function pulls:digest(reference, layers, options)
	scratch.run("rm -rf " .. self.store)
	local image <close> = assert(self:pull(reference, options))
	local found = image:layers()
	assert.equal(#layers, #found)
	for i, bytes in ipairs(layers) do
		local hex = found[i].digest:sub(8)
		assert.equal(layout.digest(bytes), found[i].diff_id)
		assert.equal(hex, core.sha256(scratch.read(self.store .. "/blobs/sha256/" .. hex)))
	end
	return image:digest()
end

-- What a refused pull may not change, and what it may not leave.
local function known(store)
	return scratch.run("find " .. store .. " -path '*/refs/*' -o -name '*tmp*' 2>/dev/null || true")
end

function pulls:refused(code, pattern, reference, options)
	local open, before = scratch.descriptors(), known(self.store)
	local image, message, name = self:pull(reference, options)
	assert.equal(open, scratch.descriptors())
	assert.is_nil(image)
	assert.matches(pattern, message)
	assert.equal(code, name)
	assert.equal(before, known(self.store))
end

-- A file packed: "gz", "bz2", "xz" or "zst"; the new path.
function pulls:pack(path, kind)
	local packed = ("%s/%s.%s"):format(self.folder, path:match "[^/]+$", kind)
	scratch.run(("%s %s >%s"):format(PACKERS[kind], path, packed))
	return packed
end

-- A layout that holds an image of these layers, tagged "t".
function pulls:layout(layers)
	local images = layout.new(self.folder .. "/images")
	images:tag(images:image { layers = layers }, "t")
	return images
end

-- The layout of LAYERS that skopeo is to copy; without skopeo, nil and the test is skipped.
function pulls:for_skopeo(pending)
	if scratch.has "skopeo" then return self:layout(pulls.LAYERS) end
	pending "skopeo is not installed"
end

function pulls.skopeo(from, to) scratch.run(("skopeo --insecure-policy copy -q %s %s"):format(from, to)) end

return pulls
