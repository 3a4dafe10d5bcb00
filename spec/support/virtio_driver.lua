-- A virtio driver in Lua, for devices over plain memory (core.virtio_device): negotiates, sets up split queues, pushes
-- chains, waits for used buffers.
local driver = {}

driver.F_INDIRECT = 1 << 28
driver.F_EVENT_IDX = 1 << 29
driver.F_VERSION_1 = 1 << 32
driver.NEXT, driver.WRITE, driver.INDIRECT = 1, 2, 4
driver.WAIT_MS = 5000 -- a limit, for what never comes; nothing waits this long when all is well

local REG = {
	magic = 0x00, version = 0x04, device_id = 0x08, vendor_id = 0x0c, device_features = 0x10, device_features_sel = 0x14,
	driver_features = 0x20, driver_features_sel = 0x24, queue_sel = 0x30, queue_num_max = 0x34, queue_num = 0x38,
	queue_ready = 0x44, queue_notify = 0x50, interrupt_status = 0x60, interrupt_ack = 0x64, status = 0x70,
	desc_low = 0x80, desc_high = 0x84, avail_low = 0x90, avail_high = 0x94, used_low = 0xa0, used_high = 0xa4,
	generation = 0xfc, config = 0x100,
}
driver.REG = REG

local Queue = {}
Queue.__index = Queue

local Driver = {}
Driver.__index = Driver

function Driver:get(name) return self.device:mmio_read(assert(REG[name], name), 4) end
function Driver:set(name, value) self.device:mmio_write(assert(REG[name], name), 4, value) end

-- Memory for a buffer; never given back.
function Driver:alloc(size, align)
	align = align or 16
	local gpa = (self.next_gpa + align - 1) // align * align
	self.next_gpa = gpa + size
	return gpa
end

function Driver:features()
	self:set("device_features_sel", 0)
	local low = self:get "device_features"
	self:set("device_features_sel", 1)
	return low | self:get "device_features" << 32
end

-- Reset, and up to FEATURES_OK with these features of those offered.
function Driver:negotiate(wanted)
	self:set("status", 0)
	self:set("status", 1)
	self:set("status", 3)
	self.negotiated = self:features() & wanted
	for half = 0, 1 do
		self:set("driver_features_sel", half)
		self:set("driver_features", self.negotiated >> (32 * half) & 0xffffffff)
	end
	self:set("status", 11)
	return self:get "status" & 8 ~= 0
end

function Driver:set_address(name, gpa)
	self:set(name .. "_low", gpa & 0xffffffff)
	self:set(name .. "_high", gpa >> 32)
end

-- A ready queue of `num` descriptors.
function Driver:queue(index, num)
	num = num or 64
	local queue = setmetatable({ driver = self, device = self.device, index = index, num = num, free = {}, chains = {},
		avail_idx = 0, last_used = 0 }, Queue)
	queue.desc, queue.avail, queue.used = self:alloc(16 * num, 16), self:alloc(6 + 2 * num, 2), self:alloc(6 + 8 * num, 4)
	for _, at in ipairs { { queue.desc, 16 * num }, { queue.avail, 6 + 2 * num }, { queue.used, 6 + 8 * num } } do
		self.device:write(at[1], ("\0"):rep(at[2]))
	end
	for i = num - 1, 0, -1 do queue.free[#queue.free + 1] = i end
	self:set("queue_sel", index)
	self:set("queue_num", num)
	self:set_address("desc", queue.desc)
	self:set_address("avail", queue.avail)
	self:set_address("used", queue.used)
	self:set("queue_ready", 1)
	self.queues[index] = queue
	return queue
end

function Driver:ok() self:set("status", 15) end

function Driver:needs_reset() return self:get "status" & 64 ~= 0 end

-- Wait until check() is true; between looks, for an interrupt.
function Driver:wait(check, what)
	for _ = 1, driver.WAIT_MS // 10 do
		local result = check()
		if result then return result end
		self.device:irq(10)
	end
	error("timed out waiting for " .. (what or "the device"), 2)
end

-- Until the device has done what it was given to do, interrupts included.
function Driver:settle() self.device:settle() end

function Driver:wait_needs_reset()
	self:wait(function() return self:needs_reset() end, "DEVICE_NEEDS_RESET")
end

function Queue:write_desc(index, gpa, len, flags, next_index)
	self.device:write(self.desc + 16 * index, ("<I8I4I2I2"):pack(gpa, len, flags, next_index or 0))
end

-- Offer a raw descriptor index.
function Queue:offer(head)
	self.device:store16(self.avail + 4 + 2 * (self.avail_idx % self.num), head)
	self.avail_idx = self.avail_idx + 1 & 0xffff
	self.device:store16(self.avail + 2, self.avail_idx)
end

-- parts: { gpa =, len =, write = bool } each.  Returns the head.
function Queue:add(parts, indirect)
	local head
	if indirect then
		head = table.remove(self.free)
		local words = {}
		for i, part in ipairs(parts) do
			words[i] = ("<I8I4I2I2"):pack(part.gpa, part.len, (part.write and 2 or 0) | (i < #parts and 1 or 0), i)
		end
		local gpa = self.driver:alloc(16 * #parts)
		self.device:write(gpa, table.concat(words))
		self:write_desc(head, gpa, 16 * #parts, driver.INDIRECT)
		parts.indexes = { head }
	else
		parts.indexes = {}
		for i = 1, #parts do parts.indexes[i] = assert(table.remove(self.free), "no free descriptor") end
		for i, part in ipairs(parts) do
			self:write_desc(parts.indexes[i], part.gpa, part.len, (part.write and 2 or 0) | (i < #parts and 1 or 0),
				parts.indexes[i + 1])
		end
		head = parts.indexes[1]
	end
	self.chains[head] = parts
	self:offer(head)
	return head
end

-- { "bytes" or length, ... }: strings are readable parts, numbers writable ones, in new memory.
function Queue:push(list, indirect)
	local parts = {}
	for i, item in ipairs(list) do
		local text = type(item) == "string"
		local part = { len = text and #item or item, write = not text }
		part.gpa = self.driver:alloc(part.len)
		if text then self.device:write(part.gpa, item) end
		parts[i] = part
	end
	return self:add(parts, indirect)
end

-- As a real driver: only when the device asked for it.
function Queue:kick()
	if self.driver.negotiated & driver.F_EVENT_IDX ~= 0 then
		local event = self.device:load16(self.used + 4 + 8 * self.num)
		local old = self.kicked or 0
		self.kicked = self.avail_idx
		if (self.avail_idx - event - 1 & 0xffff) >= (self.avail_idx - old & 0xffff) then return false end
	end
	self.driver:set("queue_notify", self.index)
	return true
end

-- A used chain if there is one: its parts and the bytes written.
function Queue:poll()
	if self.device:load16(self.used + 2) == self.last_used then return nil end
	local head, written = ("<I4I4"):unpack(self.device:read(self.used + 4 + 8 * (self.last_used % self.num), 8))
	self.last_used = self.last_used + 1 & 0xffff
	local parts = assert(self.chains[head], "the device returned a chain that it was not given")
	self.chains[head] = nil
	for i = #parts.indexes, 1, -1 do self.free[#self.free + 1] = parts.indexes[i] end
	return parts, written
end

function Queue:pop()
	if self.driver.negotiated & driver.F_EVENT_IDX ~= 0 then
		self.device:store16(self.avail + 4 + 2 * self.num, self.last_used)
	end
	local parts, written
	self.driver:wait(function()
		parts, written = self:poll()
		return parts
	end, "a used buffer")
	return parts, written
end

-- What the writable parts hold, cut at `written` bytes.
function Queue:data(parts, written)
	local out = {}
	for _, part in ipairs(parts) do
		if part.write and written > 0 then
			local len = math.min(part.len, written)
			out[#out + 1] = self.device:read(part.gpa, len)
			written = written - len
		end
	end
	return table.concat(out)
end

-- One chain there and back: the bytes written.
function Queue:call(list, indirect)
	self:push(list, indirect)
	self:kick()
	local parts, written = self:pop()
	return self:data(parts, written), written
end

local function copy(from)
	local to = {}
	for key, value in pairs(from) do to[key] = value end
	return setmetatable(to, getmetatable(from))
end

-- The same driver in a machine that was restored on another device.
function Driver:move(device)
	local twin = copy(self)
	twin.device, twin.queues = device, {}
	for index, queue in pairs(self.queues) do
		local other = copy(queue)
		other.device, other.driver = device, twin
		other.free, other.chains = copy(queue.free), copy(queue.chains)
		twin.queues[index] = other
	end
	return twin
end

function driver.new(device)
	return setmetatable({ device = device, next_gpa = 0x10000, queues = {}, negotiated = 0 }, Driver)
end

-- A driver that is up, with `count` queues.
function driver.start(device, count, options)
	options = options or {}
	local self = driver.new(device)
	self.next_gpa = options.gpa or self.next_gpa
	local wanted = options.features or (1 << 27) - 1 | driver.F_VERSION_1 | driver.F_EVENT_IDX | driver.F_INDIRECT
	assert(self:negotiate(wanted), "features were refused")
	for index = 0, count - 1 do self:queue(index, options.num) end
	self:ok()
	return self
end

return driver
