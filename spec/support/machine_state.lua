-- What differs between the saved states of two machines, apart from clocks and from interrupts on their way.
local records = require "spec.support.records"
local scratch = require "spec.support.scratch"

local machine_state = {}

-- Clocks, and nothing else: the machine's, and where the timer of an x86_64 vCPU's local APIC stands (Intel SDM, "Local
-- APIC Register Address Map").
local clock_records = { CLOK = true }
local lapic_current_count = 4 + 0x390 -- behind the page's length

local function without_count(payload) return records.replace(payload, lapic_current_count + 1, "\0\0\0\0") end

-- What a device raises goes to the controllers of x86_64 by a worker of the kernel, which is sometimes late: a request
-- on a device's line may be there that was not, in the PICs (16 bytes each: last_irr, irr, ..) and in the IOAPIC's irr.
local lines = {
	{ "<I1", 0, 0xf4 }, { "<I1", 1, 0xf4 }, { "<I1", 16, 0xff }, { "<I1", 17, 0xff }, { "<I4", 48, 0xfffff0 },
}

local function without_late(payload, was)
	for _, line in ipairs(lines) do
		local format, at, mask = table.unpack(line)
		local before, now = string.unpack(format, was, at + 1), string.unpack(format, payload, at + 1)
		payload = records.replace(payload, at + 1, string.pack(format, now & ~(mask & ~before)))
	end
	return payload
end

-- Adds the names and the payloads of all records, those of a vCPU and of the interrupt controllers one by one.
local function flatten(bytes, path, into)
	for _, record in ipairs(records.parse(bytes)) do
		local name, payload = path .. record.tag, record.payload
		if record.tag == "VMIC" then
			flatten(payload, name .. " ", into)
		elseif record.tag == "VCPU" then
			flatten(payload:sub(5), ("%s %d "):format(name, string.unpack("<I4", payload)), into)
		elseif not clock_records[record.tag] then
			into[#into + 1] = { name = name, tag = record.tag, payload = payload }
		end
	end
	return into
end

local function parts(folder)
	return flatten(records.parse(scratch.read(folder .. "/state"))[1].payload, "", {})
end

local function hex(bytes) return (bytes:gsub(".", function(char) return ("%02x"):format(char:byte()) end)) end

local function difference(part, other)
	if part.name ~= other.name then return ("%s where %s was"):format(other.name, part.name) end
	local one, two = part.payload, other.payload
	if part.tag == "LAPC" then one, two = without_count(one), without_count(two) end
	if part.tag == "IRQC" then two = without_late(two, one) end
	if one == two then return nil end
	local at = 1
	while one:byte(at) == two:byte(at) do at = at + 1 end
	return ("%s at 0x%x: %s, was %s"):format(part.name, at - 1, hex(two:sub(at, at + 7)), hex(one:sub(at, at + 7)))
end

--- The records of the snapshot in folder `two` that are not as in `one`, and where first, as one string: "" for none.
function machine_state.differences(one, two)
	local first, second, found = parts(one), parts(two), {}
	if #first ~= #second then return ("%d records, were %d"):format(#second, #first) end
	for i, part in ipairs(first) do found[#found + 1] = difference(part, second[i]) end
	return table.concat(found, "; ")
end

return machine_state
