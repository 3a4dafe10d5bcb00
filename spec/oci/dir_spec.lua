local archive = require "spec.support.docker_archive"
local core = require "supermachine.core"
local layout = require "spec.support.oci_layout"
local pulls = require "spec.support.pulls"
local scratch = require "spec.support.scratch"

local LAYERS, two = pulls.LAYERS, pulls.two

describe("an image in a folder of the dir transport", function()
	local here = pulls.each(before_each, after_each)

	local function write(text, blobs, version)
		local path = here.folder .. "/dir"
		scratch.run("mkdir -p " .. path)
		scratch.write(path .. "/version", version or "Directory Transport Version: 1.1\n")
		scratch.write(path .. "/manifest.json", text)
		for _, data in ipairs(blobs) do scratch.write(path .. "/" .. core.sha256(data), data) end
		return "dir:" .. path
	end

	it("is read", function()
		local text = archive.manifest(two)
		assert.equal(layout.digest(text), here:digest(write(text, { two.config, "a", "d" }), two.layers))
	end)

	it("is chosen from an index", function()
		local other = archive.image { architecture = "arm64", layers = { "arm" } }
		local entries = layout.list()
		for i, image in ipairs { other, two } do
			local text = archive.manifest(image)
			entries[i] = { mediaType = layout.MANIFEST, digest = layout.digest(text), size = #text,
				platform = { os = "linux", architecture = image == two and "amd64" or "arm64" } }
		end
		local reference = write(layout.json { schemaVersion = 2, mediaType = layout.INDEX, manifests = entries },
			{ two.config, other.config, "a", "d", "arm" })
		for _, image in ipairs { other, two } do
			local text = archive.manifest(image)
			scratch.write(("%s/%s.manifest.json"):format(reference:sub(5), core.sha256(text)), text)
		end
		assert.equal(entries[2].digest, here:digest(reference, two.layers))
		assert.equal(entries[1].digest, here:digest(reference, { "arm" }, { platform = "arm64" }))
	end)

	it("is refused when it is damaged", function()
		local text = archive.manifest(two)
		local reference = write(text, { two.config, "a" })
		here:refused("ENOENT", "open '.*/dir/" .. core.sha256 "d", reference)
		scratch.write(reference:sub(5) .. "/" .. core.sha256 "d", "x")
		here:refused("EBADMSG", layout.digest "d" .. ": its bytes have digest", reference)
		here:refused("EFBIG", "dir/manifest.json': larger than 4194304 bytes", write((" "):rep(5 << 20), {}))
		here:refused("EOPNOTSUPP", "schema 1", write('{"schemaVersion":1,"fsLayers":[]}', {}))
		here:refused("EOPNOTSUPP", "dir/version': 2.0 is not supported",
			write(text, {}, "Directory Transport Version: 2.0\n"))
		here:refused("EBADMSG", "dir/version' does not begin with", write(text, {}, "1.1\n"))
		os.remove(reference:sub(5) .. "/version")
		here:refused("ENOENT", "no folder of the dir transport: open '.*/dir/version'", reference)
	end)

	describe("by skopeo", function()
		local images
		before_each(function() images = here:for_skopeo(pending) end)

		it("is read from its dir, also of several platforms", function()
			pulls.skopeo("oci:" .. images.path .. ":t", "dir:" .. here.folder .. "/dir")
			here:digest("dir:" .. here.folder .. "/dir", LAYERS)
			local amd64 = images:image { layers = { "amd" } }
			local arm64 = images:image { layers = { "arm" }, architecture = "arm64" }
			amd64.platform = { os = "linux", architecture = "amd64" }
			arm64.platform = { os = "linux", architecture = "arm64" }
			images:tag(images:index { amd64, arm64 }, "all")
			pulls.skopeo("--all --preserve-digests oci:" .. images.path .. ":all", "dir:" .. here.folder .. "/all")
			assert.equal(amd64.digest, here:digest("dir:" .. here.folder .. "/all", { "amd" }))
			assert.equal(arm64.digest, here:digest("dir:" .. here.folder .. "/all", { "arm" }, { platform = "arm64" }))
		end)
	end)
end)
