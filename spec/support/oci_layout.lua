-- OCI image layouts written by hand, so that every byte of them can be wrong.
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"

local M = {
	MANIFEST = "application/vnd.oci.image.manifest.v1+json",
	INDEX = "application/vnd.oci.image.index.v1+json",
	CONFIG = "application/vnd.oci.image.config.v1+json",
	LAYER = "application/vnd.oci.image.layer.v1.tar",
	DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json",
	DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json",
	DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json",
}

-- Tables as JSON: a table with [1], or marked by M.list, is an array.  Keys are sorted: equal tables give equal bytes.
local list_mark = {}
function M.list(table) return setmetatable(table or {}, list_mark) end

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n" }
function M.json(value)
	if type(value) == "string" then return '"' .. value:gsub('["\\\n]', escapes) .. '"' end
	if type(value) ~= "table" then return tostring(value) end
	local parts = {}
	if value[1] ~= nil or getmetatable(value) == list_mark then
		for i, item in ipairs(value) do parts[i] = M.json(item) end
		return "[" .. table.concat(parts, ",") .. "]"
	end
	local keys = {}
	for key in pairs(value) do keys[#keys + 1] = key end
	table.sort(keys)
	for i, key in ipairs(keys) do parts[i] = M.json(key) .. ":" .. M.json(value[key]) end
	return "{" .. table.concat(parts, ",") .. "}"
end

function M.digest(bytes) return "sha256:" .. core.sha256(bytes) end

local layout = {}
layout.__index = layout

function M.new(path)
	local self = setmetatable({ path = path, entries = M.list() }, layout)
	scratch.run("mkdir -p " .. scratch.quote(path .. "/blobs/sha256"))
	scratch.write(path .. "/oci-layout", '{"imageLayoutVersion":"1.0.0"}')
	self:write_index()
	return self
end

function layout:blob_path(digest) return self.path .. "/blobs/sha256/" .. digest:match ":(.*)" end

-- Stores bytes; their descriptor.
function layout:blob(bytes, media_type)
	local digest = M.digest(bytes)
	scratch.write(self:blob_path(digest), bytes)
	return { digest = digest, size = #bytes, mediaType = media_type }
end

-- Writes an image; the descriptor of its manifest.  spec (all optional): architecture, os, layers = list of bytes,
-- config = the run configuration, docker = Docker's media types, change_config and change_manifest = functions that may
-- alter the documents before they are written.
function layout:image(spec)
	spec = spec or {}
	local layers, diff_ids = M.list(), M.list()
	for i, bytes in ipairs(spec.layers or { "layer one", "layer two" }) do
		layers[i] = self:blob(bytes, spec.docker and "application/vnd.docker.image.rootfs.diff.tar" or M.LAYER)
		diff_ids[i] = layers[i].digest
	end
	local config = {
		os = spec.os or "linux",
		architecture = spec.architecture or "amd64",
		config = spec.config,
		rootfs = { type = "layers", diff_ids = diff_ids },
	}
	if spec.change_config then config = spec.change_config(config) or config end
	local manifest = {
		schemaVersion = 2,
		mediaType = spec.docker and M.DOCKER_MANIFEST or M.MANIFEST,
		config = self:blob(type(config) == "string" and config or M.json(config),
			spec.docker and M.DOCKER_CONFIG or M.CONFIG),
		layers = layers,
	}
	local media_type = manifest.mediaType
	if spec.change_manifest then manifest = spec.change_manifest(manifest) or manifest end
	return self:blob(type(manifest) == "string" and manifest or M.json(manifest), media_type)
end

-- An index over descriptors; its own descriptor.
function layout:index(descriptors, media_type)
	media_type = media_type or M.INDEX
	return self:blob(M.json { schemaVersion = 2, mediaType = media_type, manifests = M.list(descriptors) }, media_type)
end

-- Names a descriptor in index.json; without a tag it is there without a name.
function layout:tag(descriptor, tag, platform)
	self.entries[#self.entries + 1] = {
		mediaType = descriptor.mediaType,
		digest = descriptor.digest,
		size = descriptor.size,
		platform = platform or descriptor.platform,
		annotations = tag and { ["org.opencontainers.image.ref.name"] = tag },
	}
	self:write_index()
	return descriptor
end

function layout:write_index()
	scratch.write(self.path .. "/index.json", M.json { schemaVersion = 2, manifests = self.entries })
end

return M
