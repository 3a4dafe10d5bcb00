-- A store with images in it, for specs of what is done to stores.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local layer = require "spec.support.layer"
local lfs = require "lfs"
local oci_layout = require "spec.support.oci_layout"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local store = {}

local methods = {}
local metatable = { __index = methods, __close = function(self) self.folder:close() end }

function store.new()
	local folder = folders.new()
	return setmetatable({
		folder = folder, path = folder:join "store", layout = oci_layout.new(folder:join "layout"), tars = {},
	}, metatable)
end

-- The bytes of a tar with one file.
function methods:tar(text)
	if not self.tars[text] then
		local path = layer.tar(self.folder:join "layer.tar", ("add('file', data=%q)"):format(text))
		self.tars[text] = scratch.read(path)
	end
	return self.tars[text]
end

-- An image of layers that hold these texts, under this tag of the layout.  spec: see oci_layout.
function methods:make(tag, texts, spec)
	spec = spec or {}
	spec.layers = {}
	for i, text in ipairs(texts) do spec.layers[i] = self:tar(text) end
	self.layout:tag(self.layout:image(spec), tag)
	return self:name(tag)
end

function methods:name(tag) return ("oci:%s:%s"):format(self.layout.path, tag) end

function methods:pull(tag, options)
	options = options or {}
	options.store, options.platform = self.path, options.platform or "linux/amd64"
	return assert(sm.image.pull(self:name(tag), options))
end

-- sm.store.WORD(...) on this store; the last argument may be options.
function methods:call(word, ...)
	local arguments = { ... }
	local options = type(arguments[#arguments]) == "table" and table.remove(arguments) or {}
	options.store = self.path
	arguments[#arguments + 1] = options
	return sm.store[word](table.unpack(arguments))
end

-- Names of the files below a folder of the store.
function methods:files(folder)
	return scratch.files(self:make_folder(folder))
end

function methods:make_folder(folder)
	local path = self.path .. "/" .. folder
	scratch.run("mkdir -p " .. scratch.quote(path))
	return path
end

function methods:blob(digest) return self.path .. "/blobs/sha256/" .. digest:sub(8) end

function methods:has(digest) return lfs.attributes(self:blob(digest)) ~= nil end

-- A snapshot that says it was made of the image and has these disks; its folder.  path: default in the store.  parent:
-- the folder of one that it leans on.
function methods:snapshot(name, digest, paths, path, parent)
	path = path or self:make_folder "snapshots" .. "/" .. name
	local words = {
		parent and "PARENT=" .. scratch.quote(parent) or "",
		build.dir .. "/spec/oci/fake_snapshot", scratch.quote(path), scratch.quote(digest),
	}
	for _, file in ipairs(paths) do words[#words + 1] = scratch.quote(file) end
	scratch.run(table.concat(words, " ") .. " </dev/null")
	return path
end

-- The paths of an image's EROFS files, made now.
function methods.rootfs(_, image)
	local paths = {}
	for i, made in ipairs(assert(image:rootfs())) do paths[i] = made.path end
	return paths
end

return store
