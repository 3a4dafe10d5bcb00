-- Saved state, taken apart: tagged records, one behind the other (src/base/codec.h).
local core = require "supermachine.core"

local records = {}

records.header = 16 -- bytes before the payload

--- {{tag=, version=, at=, payload=}, ..} of a string of records.
function records.parse(bytes)
	local list, at = {}, 1
	while at <= #bytes do
		local tag, version, zero, len = string.unpack("<c4I2I2I4", bytes, at)
		assert(zero == 0)
		local payload = at + records.header
		list[#list + 1] = { tag = tag, version = version, at = at, payload = bytes:sub(payload, payload + len - 1) }
		at = payload + len
	end
	return list
end

--- The records with the payload of the first `tag` replaced by what `change` makes of it.
function records.changed(bytes, tag, change)
	local out, found = {}, false
	for _, record in ipairs(records.parse(bytes)) do
		local payload = record.payload
		if record.tag == tag and not found then payload, found = change(payload), true end
		out[#out + 1] = assert(core.record_write(record.tag, record.version, payload))
	end
	assert(found, tag)
	return table.concat(out)
end

function records.replace(text, at, bytes) return text:sub(1, at - 1) .. bytes .. text:sub(at + #bytes) end

function records.flipped(text, at, mask) return records.replace(text, at, string.char(text:byte(at) ~ mask)) end

--- Two: the records with a byte more in the first `tag`, and with one less.
function records.resized(bytes, tag)
	return {
		records.changed(bytes, tag, function(payload) return payload .. "\0" end),
		records.changed(bytes, tag, function(payload) return payload:sub(1, -2) end),
	}
end

return records
