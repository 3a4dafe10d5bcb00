local core = require "supermachine.core"
local virtio = require "spec.support.virtio_driver"

describe("the virtio MMIO transport", function()
	local device

	before_each(function() device = assert(core.virtio_device("rng", {})) end)
	after_each(function() device:close() end)

	it("says what it is", function()
		local driver = virtio.new(device)
		assert.equal(0x74726976, driver:get "magic")
		assert.equal(2, driver:get "version")
		assert.equal(4, driver:get "device_id")
		assert.equal(virtio.F_VERSION_1 | virtio.F_EVENT_IDX | virtio.F_INDIRECT, driver:features())
		driver:set("device_features_sel", 2)
		assert.equal(0, driver:get "device_features")
		assert.equal(256, driver:get "queue_num_max")
		driver:set("queue_sel", 1)
		assert.equal(0, driver:get "queue_num_max")
	end)

	it("reads as zero where an access is odd", function()
		assert.equal(0, device:mmio_read(0, 1))
		assert.equal(0, device:mmio_read(0, 8))
		assert.equal(0, device:mmio_read(2, 4))
		assert.equal(0, device:mmio_read(0, 3))
		assert.equal(0, device:mmio_read(0x1000, 4))
		assert.equal(0, device:mmio_read(-8, 8))
		device:mmio_write(0x1000, 8, -1)
		device:mmio_write(-1, 4, -1)
		assert.equal(0, virtio.new(device):get "status")
	end)

	it("has no shared memory regions", function()
		for _, offset in ipairs { 0xb0, 0xb4, 0xb8, 0xbc } do assert.equal(0xffffffff, device:mmio_read(offset, 4)) end
	end)

	it("refuses features that it did not offer, and a driver of the old kind", function()
		local driver = virtio.new(device)
		assert.is_false(driver:negotiate(virtio.F_EVENT_IDX)) -- no VERSION_1
		driver:set("status", 0)
		driver:set("status", 3)
		driver:set("driver_features_sel", 1)
		driver:set("driver_features", 1)
		driver:set("driver_features_sel", 0)
		driver:set("driver_features", 1)
		driver:set("status", 11)
		assert.equal(3, driver:get "status")
		driver:set("status", 15)
		assert.equal(3, driver:get "status")
	end)

	it("keeps negotiated features until reset", function()
		local driver = virtio.start(device, 1, { features = virtio.F_VERSION_1 })
		driver:set("driver_features_sel", 0)
		driver:set("driver_features", 0xffffffff)
		assert.equal(32, #driver.queues[0]:call { 32 })
		driver:set("status", 0)
		assert.equal(0, driver:get "status")
		driver:set("queue_sel", 0)
		assert.equal(0, driver:get "queue_ready")
		assert.equal(0, driver:get "interrupt_status")
	end)

	it("raises and acknowledges interrupts", function()
		local driver = virtio.start(device, 1)
		driver.queues[0]:call { 8 }
		driver:settle()
		assert.equal(1, driver:get "interrupt_status")
		driver:set("interrupt_ack", 1)
		assert.equal(0, driver:get "interrupt_status")
		local stats = device:stats()
		assert.equal(1, stats.requests)
		assert.equal(8, stats.bytes)
		assert.equal(1, stats.kicks)
		assert.equal(1, stats.interrupts)
	end)

	it("does not interrupt a driver that does not want it", function()
		local driver = virtio.start(device, 1, { features = virtio.F_VERSION_1 })
		local queue = driver.queues[0]
		device:store16(queue.avail, 1)
		queue:call { 8 }
		driver:settle()
		assert.equal(0, device:stats().interrupts)
	end)

	it("waits with an event index until the driver's mark is passed", function()
		local driver = virtio.start(device, 1)
		local queue = driver.queues[0]
		device:store16(queue.avail + 4 + 2 * queue.num, 2) -- after the third
		for expected = 1, 3 do
			queue:push { 8 }
			queue:kick()
			driver:wait(function() return queue:poll() end)
			driver:settle()
			assert.equal(expected == 3 and 1 or 0, device:stats().interrupts)
		end
	end)

	it("serves what was offered before DRIVER_OK", function()
		local driver = virtio.new(device)
		assert(driver:negotiate(virtio.F_VERSION_1))
		local queue = driver:queue(0, 8)
		queue:push { 16 }
		driver:set("queue_notify", 0)
		driver:settle()
		assert.is_nil(queue:poll())
		driver:ok()
		local _, written = queue:pop()
		assert.equal(16, written)
	end)

	it("ignores notifications of queues that are not ready or do not exist", function()
		local driver = virtio.new(device)
		driver:set("queue_notify", 0)
		driver:set("queue_notify", 77)
		assert(driver:negotiate(virtio.F_VERSION_1))
		driver:ok()
		driver:set("queue_notify", 0)
		driver:set("queue_notify", 0xffffffff)
		driver:set("queue_sel", 0xffffffff)
		driver:set("queue_ready", 1)
		assert.equal(0, driver:get "queue_ready")
		driver:settle()
		assert.is_false(driver:needs_reset())
		local queue = driver:queue(0, 8)
		assert.equal(16, select(2, queue:call { 16 }))
	end)

	it("works across the wrap of the ring indexes", function()
		local driver = virtio.start(device, 1, { num = 4 })
		local queue = driver.queues[0]
		local parts = { { gpa = driver:alloc(8), len = 8, write = true } }
		for _ = 1, 70000 // 4 do
			for _ = 1, 4 do queue:add { parts[1] } end
			queue:kick()
			for _ = 1, 4 do queue:pop() end
		end
		assert.equal(70000 // 4 * 4, device:stats().requests)
	end)

	it("uses a single descriptor's queue", function()
		local driver = virtio.start(device, 1, { num = 1 })
		for _ = 1, 3 do assert.equal(8, select(2, driver.queues[0]:call { 8 })) end
	end)

	it("stops a queue that is made not ready", function()
		local driver = virtio.start(device, 1)
		driver:set("queue_sel", 0)
		driver:set("queue_ready", 0)
		driver.queues[0]:push { 8 }
		driver:set("queue_notify", 0)
		driver:settle()
		assert.is_nil(driver.queues[0]:poll())
	end)
end)

describe("a hostile virtio ring", function()
	local device, driver, queue

	before_each(function()
		device = assert(core.virtio_device("rng", { high = true }))
		driver = virtio.start(device, 1, { num = 16 })
		queue = driver.queues[0]
	end)
	after_each(function() device:close() end)

	-- The device says that it needs a reset, and after one works again.
	local function broken()
		driver:wait_needs_reset()
		assert.equal(2, driver:get "interrupt_status" & 2)
		assert.equal(1, device:stats().errors)
		driver:set("queue_notify", 0)
		driver:set("status", 0)
		assert.equal(0, driver:get "status")
		driver = virtio.start(device, 1, { num = 16, gpa = 0x80000 })
		assert.equal(8, select(2, driver.queues[0]:call { 8 }))
	end

	local function offer(head)
		queue:offer(head)
		driver:set("queue_notify", 0)
		broken()
	end

	it("with a descriptor loop", function()
		queue:write_desc(0, 0x1000, 8, virtio.WRITE | virtio.NEXT, 1)
		queue:write_desc(1, 0x1000, 8, virtio.WRITE | virtio.NEXT, 0)
		offer(0)
	end)

	it("with a descriptor that follows itself and is empty", function()
		queue:write_desc(0, 0x1000, 0, virtio.NEXT, 0)
		offer(0)
	end)

	it("with a head out of range", function() offer(16) end)

	it("with a next out of range", function()
		queue:write_desc(0, 0x1000, 8, virtio.WRITE | virtio.NEXT, 16)
		offer(0)
	end)

	it("with an address that is not RAM", function()
		queue:write_desc(0, 0x40000000, 8, virtio.WRITE)
		offer(0)
	end)

	it("with an address that wraps", function()
		queue:write_desc(0, -8, 16, virtio.WRITE)
		offer(0)
	end)

	it("with a buffer that runs over the end of RAM", function()
		queue:write_desc(0, (16 << 20) - 8, 16, virtio.WRITE)
		offer(0)
	end)

	it("with a readable part after a writable one", function()
		queue:write_desc(0, 0x1000, 8, virtio.WRITE | virtio.NEXT, 1)
		queue:write_desc(1, 0x1000, 8, 0)
		offer(0)
	end)

	it("with an available index that jumps", function()
		device:store16(queue.avail + 2, 17)
		driver:set("queue_notify", 0)
		broken()
	end)

	it("with an available index that goes back", function()
		queue:call { 8 }
		device:store16(queue.avail + 2, 0)
		driver:set("queue_notify", 0)
		broken()
	end)

	for name, change in pairs {
		["that is empty"] = { len = 0 },
		["of half a descriptor"] = { len = 24 },
		["that is not in RAM"] = { gpa = 0x7ffffff0 },
		["that has a next"] = { flags = virtio.INDIRECT | virtio.NEXT },
	} do
		it("with an indirect table " .. name, function()
			queue:write_desc(0, change.gpa or 0x1000, change.len or 16, change.flags or virtio.INDIRECT, 1)
			queue:write_desc(1, 0x1000, 8, virtio.WRITE)
			device:write(0x1000, ("<I8I4I2I2"):pack(0x2000, 8, virtio.WRITE, 0))
			offer(0)
		end)
	end

	it("with an indirect table in an indirect table", function()
		queue:write_desc(0, 0x1000, 16, virtio.INDIRECT)
		device:write(0x1000, ("<I8I4I2I2"):pack(0x1000, 16, virtio.INDIRECT, 0))
		offer(0)
	end)

	it("with an indirect chain longer than the queue", function()
		local words = {}
		for i = 1, 17 do words[i] = ("<I8I4I2I2"):pack(0x4000, 8, virtio.WRITE | (i < 17 and virtio.NEXT or 0), i) end
		device:write(0x1000, table.concat(words))
		queue:write_desc(0, 0x1000, 17 * 16, virtio.INDIRECT)
		offer(0)
	end)

	it("with an indirect table that was not negotiated", function()
		driver = virtio.start(device, 1, { num = 16, features = virtio.F_VERSION_1, gpa = 0x40000 })
		queue = driver.queues[0]
		queue:write_desc(0, 0x1000, 16, virtio.INDIRECT)
		device:write(0x1000, ("<I8I4I2I2"):pack(0x2000, 8, virtio.WRITE, 0))
		offer(0)
	end)

	for name, set in pairs {
		["of no descriptors"] = { "queue_num", 0 },
		["of three descriptors"] = { "queue_num", 3 },
		["too large"] = { "queue_num", 512 },
		["far too large"] = { "queue_num", 0x10010 },
		["with descriptors outside RAM"] = { "desc_low", 0x7ffffff0 },
		["with misplaced descriptors"] = { "desc_low", 0x1008 },
		["with an available ring outside RAM"] = { "avail_high", 0xffffffff },
		["with a used ring across the end of RAM"] = { "used_low", (16 << 20) - 8 },
		["with a misplaced used ring"] = { "used_low", 0x1002 },
	} do
		it("in a queue " .. name, function()
			driver:set("status", 0)
			driver = virtio.new(device)
			assert(driver:negotiate(virtio.F_VERSION_1))
			driver:set("queue_num", 16)
			for _, part in ipairs { "desc", "avail", "used" } do driver:set_address(part, driver:alloc(4096, 4096)) end
			driver:set(set[1], set[2])
			driver:set("queue_ready", 1)
			assert.equal(0, driver:get "queue_ready")
			assert.is_true(driver:needs_reset())
			driver:ok()
			driver:set("queue_notify", 0)
			driver = virtio.start(device, 1, { num = 16, gpa = 0x80000 })
			assert.equal(8, select(2, driver.queues[0]:call { 8 }))
		end)
	end

	it("is served where it is odd and allowed", function()
		-- empty parts, and an indirect table after direct parts, whose WRITE flag means nothing (2.7.5.3.2)
		queue:write_desc(0, 0, 0, virtio.NEXT, 1)
		queue:write_desc(1, 0x4000, 8, virtio.WRITE | virtio.NEXT, 2)
		queue:write_desc(2, 0x1000, 32, virtio.INDIRECT | virtio.WRITE)
		local entry = "<I8I4I2I2"
		device:write(0x1000, entry:pack(0x5000, 8, virtio.WRITE | virtio.NEXT, 1))
		device:write(0x1010, entry:pack(0x100000000, 8, virtio.WRITE, 0))
		queue.chains[0] = { indexes = {}, { gpa = 0x4000, len = 8, write = true } }
		queue:offer(0)
		driver:set("queue_notify", 0)
		assert.equal(24, select(2, queue:pop()))
	end)
end)

describe("a virtio device's state", function()
	it("goes on where it was, with a chain that waits", function()
		local device <close> = assert(core.virtio_device("rng", {}))
		local driver = virtio.start(device, 1)
		local queue = driver.queues[0]
		for _ = 1, 5 do queue:call { 8 } end
		device:store16(queue.avail + 4 + 2 * queue.num, queue.last_used) -- interrupt for the next
		device:pause()
		queue:push { 24 }
		queue:kick()
		local state = assert(device:save())
		local ram = device:read(0x10000, 0x10000)
		local copy <close> = assert(core.virtio_device("rng", {}))
		copy:write(0x10000, ram)
		assert(copy:load(state))
		local queue_before = queue
		driver = driver:move(copy)
		queue = driver.queues[0]
		assert.equal(15, driver:get "status")
		assert.equal(1, driver:get "interrupt_status")
		assert.equal(0, copy:irq(0))
		copy:restored()
		assert.equal(24, select(2, queue:pop()))
		driver:settle()
		assert.equal(1, copy:stats().interrupts)
		assert.equal(0, copy:stats().kicks)

		device:resume() -- the saved machine goes on
		assert.equal(24, select(2, queue_before:pop()))
	end)

	it("raises a raised interrupt again", function()
		local device <close> = assert(core.virtio_device("rng", {}))
		virtio.start(device, 1).queues[0]:call { 8 }
		device:pause() -- when the interrupt is raised
		local copy <close> = assert(core.virtio_device("rng", {}))
		copy:write(0x10000, device:read(0x10000, 0x10000))
		assert(copy:load(assert(device:save())))
		assert.equal(0, copy:irq(0))
		copy:restored()
		assert.equal(1, copy:irq(5000))
		device:resume()
	end)

	-- The record's fields, written anew with some of them changed.
	local FIELDS = "<I4I4I4I4I8I4I4I4I4" .. "I1I2I8I8I8I2I2I2"
	local NAMES = { id = 1, status = 2, interrupt_status = 3, features = 5, nqueues = 9, ready = 10, num = 11, desc = 12,
		avail = 13, used = 14 }
	local function forge(changes)
		local values = { 4, 15, 1, 0, virtio.F_VERSION_1, 0, 0, 0, 1, 1, 16, 0x1000, 0x2000, 0x3000, 0xfffe, 0xfffe, 0xfffe }
		for name, value in pairs(changes) do values[NAMES[name]] = value end
		return core.record_write("VDEV", 1, FIELDS:pack(table.unpack(values)))
	end

	it("loads what it would have saved", function()
		local device <close> = assert(core.virtio_device("rng", {}))
		assert(device:load(forge {}))
		device:pause()
		assert.equal(forge {}, device:save())
		device:resume()
	end)

	for name, changes in pairs {
		["of another device"] = { id = 2 },
		["with an unknown status"] = { status = 15 | 16 },
		["with DRIVER_OK alone"] = { status = 4 },
		["with an unknown interrupt"] = { interrupt_status = 4 },
		["with features that are not offered"] = { features = virtio.F_VERSION_1 | 1 },
		["without VERSION_1"] = { features = 0 },
		["with another number of queues"] = { nqueues = 2 },
		["with a queue that is ready too early"] = { status = 3 },
		["with a queue of a bad size"] = { num = 511 },
		["with a queue of no size"] = { num = 0 },
		["with a half ready queue"] = { ready = 2 },
		["with descriptors outside RAM"] = { desc = 0x7fffffff0 },
		["with an available ring that wraps"] = { avail = -16 },
		["with a used ring outside RAM"] = { used = 16 << 20 },
	} do
		it("is refused " .. name, function()
			local device <close> = assert(core.virtio_device("rng", {}))
			local fine, message, code = device:load(forge(changes))
			assert.is_nil(fine)
			assert.equal("EBADMSG", code)
			assert.matches("virtio device", message)
			assert.equal(0, virtio.new(device):get "status")
			assert.equal(8, select(2, virtio.start(device, 1).queues[0]:call { 8 }))
		end)
	end

	it("is refused when it is cut or flipped anywhere", function()
		local device <close> = assert(core.virtio_device("rng", {}))
		local whole = forge {}
		for len = 0, #whole - 1 do assert.is_nil((device:load(whole:sub(1, len)))) end
		for at = 1, #whole do
			local flipped = whole:sub(1, at - 1) .. string.char(whole:byte(at) ~ 4) .. whole:sub(at + 1)
			assert.is_nil((device:load(flipped)))
		end
		assert(device:load(whole))
	end)
end)
