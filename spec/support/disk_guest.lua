-- A driver of one block device, in a microguest: requests one after the other, each waited for.  What it does next is
-- told by the balloon: its wish for pages is a word that the guest can wait for.
local core = require "supermachine.core"
local guest = require "spec.support.microguest"

local disk = {}
disk.__index = disk

local NUM <const>, SECTOR <const> = 32, 512
local MIB <const> = 1 << 20

--- For a machine with that many volumes: the driver of volume `index`.
function disk.new(config, index)
	local self = setmetatable({ count = 0 }, disk)
	local number = -1
	for _, slot in ipairs(core.plan(config).slots) do
		if slot.kind == "balloon" then self.balloon = slot.base end
		if slot.kind == "volume" then
			number = number + 1
			if number == index then self.base = slot.base end
		end
	end
	self.page = guest.scratch + MIB + index * 0x10000
	self.data = self.page + 0x4000 -- 32 KiB for requests
	return self
end

function disk:register(offset, value) return guest.store(self.base + offset, value) end

--- Reset, negotiation (with flushes, or of these features) and one queue.
function disk:start(features)
	features = features or 1 << 9
	local page, code = self.page, {}
	for _, step in ipairs { { 0x70, 0 }, { 0x70, 3 }, { 0x24, 0 }, { 0x20, features }, { 0x24, 1 }, { 0x20, 1 },
		{ 0x70, 11 }, { 0x30, 0 }, { 0x38, NUM }, { 0x80, page }, { 0x90, page + 0x1000 }, { 0xa0, page + 0x2000 },
		{ 0x44, 1 }, { 0x70, 15 } } do
		code[#code + 1] = self:register(step[1], step[2])
	end
	return table.concat(code)
end

local function descriptor(self, index, gpa, len, flags, following)
	local at = self.page + 16 * index
	return guest.store(at, gpa) .. guest.store(at + 4, 0) .. guest.store(at + 8, len)
		.. guest.store(at + 12, flags | following << 16)
end

-- Offer the chain that begins at `head` as the next; two ring entries are one word.
local function offer(self, head)
	local ring = self.page + 0x1004 + 2 * (self.count % NUM & ~1)
	local heads = self.count % 2 == 0 and head or self.other | head << 16
	self.other, self.count = head, self.count + 1
	return guest.store(ring, heads)
end

-- Requests { kind, sector, gpa, len }, all at once, and until all are served.
function disk:requests(list)
	local code = {}
	for i, request in ipairs(list) do
		local kind, sector, gpa, len = table.unpack(request)
		local head, header = 3 * (i - 1), self.page + 0x3000 + 32 * (i - 1)
		code[#code + 1] = guest.store(header, kind) .. guest.store(header + 4, 0)
			.. guest.store(header + 8, sector) .. guest.store(header + 12, 0)
		if len then
			code[#code + 1] = descriptor(self, head, header, 16, 1, head + 1)
				.. descriptor(self, head + 1, gpa, len, kind == 0 and 3 or 1, head + 2)
		else
			code[#code + 1] = descriptor(self, head, header, 16, 1, head + 2)
		end
		code[#code + 1] = descriptor(self, head + 2, header + 16, 1, 2, 0) .. offer(self, head)
	end
	code[#code + 1] = guest.store(self.page + 0x1000, self.count % 0x10000 << 16) .. self:register(0x50, 0)
		.. guest.await(self.page + 0x2000, self.count % 0x10000 << 16)
	return table.concat(code)
end

function disk:write(sector, gpa, len) return self:requests { { 1, sector, gpa, len } } end
function disk:read(sector, gpa, len) return self:requests { { 0, sector, gpa, len } } end
function disk:flush() return self:requests { { 4, 0 } } end

--- Again and again: four sectors, 5 MiB apart, each in a request of its own and all at once, are to hold what was
-- written to them last ("X" where one does not), and get the next number; ".", each time that the device was reset.
function disk:endless()
	local expected, code = self.data, {}
	local first = guest.store(expected, 0)
	code[1] = guest.store(self.page + 0x1000, 0) .. guest.store(self.page + 0x2000, 0) .. self:start()
	self.count = 0
	for _ = 1, NUM // 8 do
		local reads, writes, checks, fills = {}, {}, {}, {}
		for i = 0, 3 do
			local sector = i * 5 * MIB // SECTOR
			local read, write = self.data + 4096 + i * SECTOR, self.data + 8192 + i * SECTOR
			reads[i + 1], writes[i + 1] = { 0, sector, read, SECTOR }, { 1, sector, write, SECTOR }
			checks[i + 1] = guest.load(expected) .. guest.unless(read, guest.print "X")
			fills[i + 1] = guest.store_word(write)
		end
		code[#code + 1] = self:requests(reads) .. table.concat(checks) .. guest.load(expected) .. guest.increment()
			.. guest.store_word(expected) .. table.concat(fills) .. self:requests(writes)
	end
	return first .. guest.loop(table.concat(code) .. guest.print ".")
end

--- Until the host has told it `number`: disk.tell(vm, number).
function disk:await(number) return guest.await(self.balloon + 0x100, number * MIB // 4096) end
function disk.tell(vm, number) assert(vm:set_balloon(number)) end

disk.SECTOR = SECTOR

return disk
