-- A driver of the file system device for kernels of a few hundred instructions: FUSE requests as code.
local fuse = require "spec.support.fuse"
local guest = require "spec.support.microguest"

local micro = {}

local function le32(value) return string.pack("<I4", value & 0xffffffff) end

-- Bytes to memory, a word at a time.
function micro.poke(gpa, bytes)
	local out = {}
	bytes = bytes .. ("\0"):rep(-#bytes % 4)
	for i = 1, #bytes, 4 do out[#out + 1] = guest.store(gpa + i - 1, (("<I4"):unpack(bytes, i))) end
	return table.concat(out)
end

-- Again until the word at `gpa` is what is at `wanted`.
function micro.await(gpa, wanted) return "\xa1" .. le32(gpa) .. "\x3b\x05" .. le32(wanted) .. "\x75\xf3" end

local EXPECTED <const>, RINGS <const>, BUFFERS <const> = 0x300000, 0x310000, 0x320000
micro.expected = EXPECTED

-- 64 bits from one place to another.
function micro.move(from, to)
	return guest.load(from) .. guest.store_word(to) .. guest.load(from + 4) .. guest.store_word(to + 4)
end

-- The driver, as code: request(bytes, room) gives the code and where the reply will be.
function micro.driver(plan)
	local self = { slot = nil, sent = 0, at = BUFFERS }
	for _, slot in ipairs(plan.slots) do if slot.kind == "fs" and not self.slot then self.slot = slot end end
	local base = self.slot.base
	local function set(offset, value) return guest.store(base + offset, value) end
	function self.start()
		return set(0x70, 0) .. set(0x70, 1) .. set(0x70, 3) .. set(0x24, 1) .. set(0x20, 1) .. set(0x70, 11)
			.. set(0x30, 1) .. set(0x38, 64) .. set(0x80, RINGS) .. set(0x90, RINGS + 0x1000) .. set(0xa0, RINGS + 0x2000)
			.. set(0x44, 1) .. set(0x70, 15)
	end
	-- data: where its further writable part is, { gpa, bytes }.
	function self.request(bytes, room, data)
		local head, reply = self.at, self.at + 1024
		self.at = self.at + 2048
		local first = self.sent * 3
		local descriptors = { ("<I8I4I2I2"):pack(head, #bytes, 1, first + 1),
			("<I8I4I2I2"):pack(reply, room, data and 3 or 2, first + 2) }
		if data then descriptors[3] = ("<I8I4I2I2"):pack(data[1], data[2], 2, 0) end
		local code = micro.poke(head, bytes) .. micro.poke(RINGS + 16 * first, table.concat(descriptors))
		-- The node of an earlier reply may be put in between.
		local function send()
			self.sent = self.sent + 1
			-- From here on around the ring: whatever comes next is this one again.
			local avail = {}
			for i = 1, 64 do avail[i] = ("<I2"):pack((self.sent - 1) * 3) end
			return micro.poke(RINGS + 0x1004, table.concat(avail)) .. guest.store(RINGS + 0x1000, self.sent << 16)
				.. guest.store(EXPECTED, self.sent << 16) .. set(0x50, 1) .. micro.await(RINGS + 0x2000, EXPECTED)
		end
		return code, send, head, reply
	end
	-- The request sent last once more, as often as this runs.
	function self.again()
		local add = "\x05" .. le32(0x10000) -- add eax, imm
		return guest.load(RINGS + 0x1000) .. add .. guest.store_word(RINGS + 0x1000) .. guest.store_word(EXPECTED)
			.. set(0x50, 1) .. micro.await(RINGS + 0x2000, EXPECTED)
	end
	-- A session, and the file `name` of the root open: code, where the node is, where the handle is.
	function self.open(name, flags)
		local init, send_init = self.request(fuse.request("INIT", 0,
			("<I4I4I4I4I4"):pack(7, 39, 1 << 20, 1 << 26 | 1 << 30, 1 << 1) .. ("\0"):rep(44)), 16 + 64)
		local code = init .. send_init()
		local lookup, send_lookup, _, entry = self.request(fuse.request("LOOKUP", 1, name .. "\0"), 16 + 128)
		code = code .. lookup .. send_lookup()
		local open, send_open, head, opened = self.request(fuse.request("OPEN", 0, ("<I4I4"):pack(flags, 0)), 16 + 16)
		return code .. open .. micro.move(entry + 16, head + 16) .. send_open(), entry + 16, opened + 16
	end
	-- READ of the first bytes: code, where they are; `to` is where they shall be.
	function self.read(node, handle, bytes, to)
		local read, send_read, at, reply = self.request(fuse.request("READ", 0,
			("<I8I8I4I4I8I4I4"):pack(0, 0, bytes, 0, 0, 0, 0)), to and 16 or 16 + bytes,
			to and { to, bytes })
		return read .. micro.move(node, at + 16) .. micro.move(handle, at + 40)
			.. send_read(), to or reply + 16
	end
	-- COPY_FILE_RANGE of the first bytes to where they end: code, where their count is.
	function self.copy(node, handle, bytes)
		local copy, send_copy, at, reply = self.request(fuse.request("COPY_FILE_RANGE", 0,
			("<I8I8I8I8I8I8I8"):pack(0, 0, 0, 0, bytes, bytes, 0)), 16 + 8)
		return copy .. micro.move(node, at + 16) .. micro.move(handle, at + 40) .. micro.move(node, at + 56)
			.. micro.move(handle, at + 64) .. send_copy(), reply + 16
	end
	-- Map [0, bytes) of a file of the root at the window's start.
	function self.map(name, bytes, flags)
		local init, send_init = self.request(fuse.request("INIT", 0,
			("<I4I4I4I4I4"):pack(7, 39, 1 << 20, 1 << 26 | 1 << 30, 1 << 1) .. ("\0"):rep(44)), 16 + 64)
		local code = init .. send_init()
		local lookup, send_lookup, _, entry = self.request(fuse.request("LOOKUP", 1, name .. "\0"), 16 + 128)
		code = code .. lookup .. send_lookup()
		local map, send_map, head, answer = self.request(fuse.request("SETUPMAPPING", 0,
			("<I8I8I8I8I8"):pack(0, 0, bytes, flags, 0)), 16)
		return code .. map .. micro.move(entry + 16, head + 16) .. send_map(), answer
	end
	return self
end

return micro
