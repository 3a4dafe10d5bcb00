-- A machine's saved state as a tree of records, to be taken apart, damaged, and put together with sound checksums; and
-- a snapshot folder that is none the wiser.
local core = require "supermachine.core"
local records = require "spec.support.records"
local scratch = require "spec.support.scratch"

local tree = {}

-- Records that hold records, and the bytes before those.
local holders = { MACH = 0, VCPU = 4, VMIC = 0, CLOK = 0, PLAT = 0, VDEV = 8 }

--- A list of { tag, version, payload } or { tag, version, prefix, list }.
function tree.parse(bytes, inside)
	local list = {}
	for i, record in ipairs(records.parse(bytes)) do
		local prefix = holders[record.tag]
		local node = { tag = record.tag, version = record.version }
		if prefix and inside ~= record.tag then
			node.prefix, node.list = record.payload:sub(1, prefix), tree.parse(record.payload:sub(prefix + 1), record.tag)
		else
			node.payload = record.payload
		end
		list[i] = node
	end
	return list
end

function tree.bytes(list)
	local out = {}
	for i, node in ipairs(list) do
		out[i] = assert(core.record_write(node.tag, node.version, node.payload or node.prefix .. tree.bytes(node.list)))
	end
	return table.concat(out)
end

--- Every place in the tree, as fn(list, index, parent), from the outside in.
function tree.each(list, fn, parent)
	for i = 1, #list do
		fn(list, i, parent)
		if list[i].list then tree.each(list[i].list, fn, list[i]) end
	end
end

-- How meta hashes a file (src/snapshot/format.c): pages that are not zero, each behind its offset.
local function file_hash(bytes)
	local parts = {}
	for at = 0, #bytes - 1, 4096 do
		local page = bytes:sub(at + 1, at + 4096)
		if page:find "[^\0]" then parts[#parts + 1] = string.pack("<I8", at) .. page end
	end
	return core.sha256(table.concat(parts))
end

--- Put `bytes` in the place of a snapshot's state, and say so in its meta.
function tree.replace_state(path, bytes)
	local old = file_hash(scratch.read(path .. "/state"))
	assert(os.remove(path .. "/state"))
	scratch.write(path .. "/state", bytes)
	scratch.write(path .. "/meta", records.changed(scratch.read(path .. "/meta"), "SNAP", function(payload)
		local at = assert(payload:find(old, 1, true))
		return records.replace(records.replace(payload, at - 12, string.pack("<I8", #bytes)), at, file_hash(bytes))
	end))
end

return tree
