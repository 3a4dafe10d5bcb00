-- Tars member by member, and image archives as docker and podman write them: the layout of each is what counts, so none
-- of the two has to be there.
local core = require "supermachine.core"
local layout = require "spec.support.oci_layout"
local scratch = require "spec.support.scratch"

local M = {}

local TYPES = { link = "1", symlink = "2", char = "3", dir = "5", fifo = "6" }

-- One header of the ustar kind (POSIX.1-1988, pax(1)); a size that does not fit in octal as GNU's tar writes it.
local function header(name, kind, size, to)
	local octal = size < 1 << 33 and ("%011o\0"):format(size) or "\x80\0\0\0" .. (">I8"):pack(size)
	local function block(checksum)
		return ("c100c8c8c8c12c12c8c1c100c6c2c32c32c8c8c155c12"):pack(name, "0000644\0", "0000000\0", "0000000\0",
			octal, "00000000000\0", checksum, kind, to, "ustar\0", "00", "", "", "0000000\0", "0000000\0", "", "")
	end
	local sum = 0
	for _, byte in ipairs { block("        "):byte(1, 512) } do sum = sum + byte end
	return block(("%06o\0 "):format(sum))
end

-- A tar of members in their order: { name, data }, { name, data, size = a lie }, { name, symlink = to },
-- { name, link = to }, { name, kind = "fifo" }.  Its path.
function M.tar(path, members)
	local parts = {}
	for _, member in ipairs(members) do
		local kind = member.symlink and "symlink" or member.link and "link" or member.kind
		local data = not kind and member[2] or ""
		parts[#parts + 1] = header(member[1], TYPES[kind] or "0", member.size or #data, member.symlink or member.link or "")
		parts[#parts + 1] = data .. ("\0"):rep(-#data % 512)
	end
	scratch.write(path, table.concat(parts) .. ("\0"):rep(1024))
	return path
end

-- An image to be packed: { tags = list, layers = list of bytes, config = bytes, id = hex of it }.
-- spec: tags, layers, architecture, diff_ids (a lie).
function M.image(spec)
	local diff_ids = layout.list()
	for i, data in ipairs(spec.layers) do diff_ids[i] = layout.digest(data) end
	local config = layout.json {
		os = "linux", architecture = spec.architecture or "amd64", config = { Cmd = { "sh" } },
		rootfs = { type = "layers", diff_ids = spec.diff_ids or diff_ids },
	}
	return { tags = spec.tags, layers = spec.layers, config = config, id = core.sha256(config) }
end

-- The manifest that such an image is given, as text.
function M.manifest(image)
	local text = '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","digest":"sha256:%s","size":%d},'
		.. '"layers":[%s]}'
	local layers = {}
	for i, data in ipairs(image.layers) do
		layers[i] = ('{"mediaType":"%s","digest":"%s","size":%d}'):format(layout.LAYER, layout.digest(data), #data)
	end
	return text:format(layout.MANIFEST, layout.CONFIG, image.id, #image.config, table.concat(layers, ","))
end

function M.digest(image) return layout.digest(M.manifest(image)) end

local function manifest_json(images, config_name, layer_name)
	local list = {}
	for i, image in ipairs(images) do
		local layers = {}
		for k in ipairs(image.layers) do layers[k] = '"' .. layer_name(image, k) .. '"' end
		list[i] = ('{"Config":"%s","RepoTags":%s,"Layers":%s}'):format(config_name(image),
			image.tags and layout.json(layout.list(image.tags)) or "null",
			layers[1] and "[" .. table.concat(layers, ",") .. "]" or "null")
	end
	return "[" .. table.concat(list, ",") .. "]\n"
end

-- A layer's folder is named by what it is and stands on, as in images of old.
local function chain_id(image, k)
	local id = ""
	for i = 1, k do id = core.sha256(id .. image.layers[i]) end
	return id
end

-- `docker save` from 1.10 to 24: a folder a layer, and a symbolic link for a layer that another folder has.
function M.old_docker(images)
	local members, seen, where = {}, {}, {}
	for _, image in ipairs(images) do
		members[#members + 1] = { image.id .. ".json", image.config }
		for k, data in ipairs(image.layers) do
			local id = chain_id(image, k)
			if not seen[id] then
				seen[id] = true
				members[#members + 1] = { id .. "/", kind = "dir" }
				members[#members + 1] = { id .. "/VERSION", "1.0" }
				members[#members + 1] = { id .. "/json", ('{"id":"%s"}'):format(id) }
				local other = where[data]
				where[data] = other or id
				members[#members + 1] = { id .. "/layer.tar", data, symlink = other and "../" .. other .. "/layer.tar" }
			end
		end
	end
	members[#members + 1] = { "manifest.json", manifest_json(images, function(image) return image.id .. ".json" end,
		function(image, k) return chain_id(image, k) .. "/layer.tar" end) }
	members[#members + 1] = { "repositories", "{}" }
	return members
end

-- `docker save` from 25 on: an OCI layout, and manifest.json beside it.
function M.new_docker(images)
	local members, seen, entries = { { "blobs/", kind = "dir" }, { "blobs/sha256/", kind = "dir" } }, {}, layout.list()
	local function blob(data)
		local hex = core.sha256(data)
		if not seen[hex] then members[#members + 1] = { "blobs/sha256/" .. hex, data } end
		seen[hex] = true
	end
	for _, image in ipairs(images) do
		local manifest = M.manifest(image)
		for _, data in ipairs(image.layers) do blob(data) end
		blob(image.config)
		blob(manifest)
		for _, tag in ipairs(image.tags or {}) do
			entries[#entries + 1] = {
				mediaType = layout.MANIFEST, digest = layout.digest(manifest), size = #manifest,
				annotations = { ["io.containerd.image.name"] = "docker.io/library/" .. tag,
					["org.opencontainers.image.ref.name"] = tag:match ":(.*)" },
			}
		end
	end
	local function name(hex) return "blobs/sha256/" .. hex end
	members[#members + 1] = { "index.json",
		layout.json { schemaVersion = 2, mediaType = layout.INDEX, manifests = entries } }
	members[#members + 1] = { "manifest.json", manifest_json(images, function(image) return name(image.id) end,
		function(image, k) return name(core.sha256(image.layers[k])) end) }
	members[#members + 1] = { "oci-layout", '{"imageLayoutVersion":"1.0.0"}' }
	return members
end

-- `podman save`: layers by their digest, and links to them where programs of old look.
function M.podman(images)
	local members, seen = {}, {}
	local function once(name, member)
		if not seen[name] then members[#members + 1] = member end
		seen[name] = true
	end
	for _, image in ipairs(images) do
		for k, data in ipairs(image.layers) do
			local hex, id = core.sha256(data), chain_id(image, k)
			once(hex .. ".tar", { hex .. ".tar", data })
			once(id, { id .. "/layer.tar", symlink = "../" .. hex .. ".tar" })
			once(id .. "V", { id .. "/VERSION", "1.0" })
			once(id .. "j", { id .. "/json", ('{"id":"%s"}'):format(id) })
		end
		once(image.id .. ".json", { image.id .. ".json", image.config })
	end
	members[#members + 1] = { "repositories", "{}" }
	members[#members + 1] = { "manifest.json", manifest_json(images, function(image) return image.id .. ".json" end,
		function(image, k) return core.sha256(image.layers[k]) .. ".tar" end) }
	return members
end

return M
