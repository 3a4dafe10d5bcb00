local core = require "supermachine.core"
local virtio = require "spec.support.virtio_driver"

local PAGE = 4096

describe("the virtio balloon", function()
	local device, driver

	before_each(function()
		device = assert(core.virtio_device("balloon", {}))
		driver = virtio.start(device, 5)
	end)
	after_each(function() device:close() end)

	local function frames(...)
		local list = {}
		for i, frame in ipairs { ... } do list[i] = ("<I4"):pack(frame) end
		return table.concat(list)
	end

	-- Fill pages with their own letter, from 8 MiB on.
	local BASE = 8 << 20
	local function fill(count)
		for i = 0, count - 1 do device:write(BASE + i * PAGE, ("x"):rep(PAGE)) end
	end
	local function is_zero(page) return device:read(BASE + page * PAGE, PAGE) == ("\0"):rep(PAGE) end

	it("tells the guest what is wanted, with an interrupt and a new generation", function()
		assert.equal(0, device:mmio_read(0x100, 4))
		local generation = driver:get "generation"
		assert(device:balloon_set(256))
		assert.equal(2, driver:get "interrupt_status" & 2)
		assert.equal(256, device:mmio_read(0x100, 4))
		assert.not_equal(generation, driver:get "generation")
		local interrupts = device:stats().interrupts
		assert(device:balloon_set(256)) -- no news
		assert.equal(interrupts, device:stats().interrupts)
	end)

	it("cannot want more than there is", function()
		local none, _, code = device:balloon_set(4097)
		assert.is_nil(none)
		assert.equal("EINVAL", code)
		assert(device:balloon_set(4096))
	end)

	it("learns what the guest has given", function()
		device:mmio_write(0x104, 4, 77)
		assert.equal(77, device:balloon_actual())
		device:mmio_write(0x100, 4, 5) -- not the guest's to write
		assert.equal(0, device:mmio_read(0x100, 4))
		device:mmio_write(0x105, 4, 5)
		device:mmio_write(0x13e, 4, 5)
		assert.equal(77, device:mmio_read(0x104, 4))
		driver:set("status", 0)
		assert.equal(0, device:balloon_actual())
	end)

	it("gives inflated pages back to the host, in any order", function()
		fill(12)
		local base = BASE // PAGE
		driver.queues[0]:call { frames(base + 1, base + 2, base + 3), frames(base + 7, base + 6, base + 10) }
		for page = 0, 11 do
			local given = ({ [1] = 1, [2] = 1, [3] = 1, [6] = 1, [7] = 1, [10] = 1 })[page] ~= nil
			assert.equal(given, is_zero(page), "page " .. page)
		end
		assert.equal(6 * PAGE, device:stats().bytes)
		driver.queues[1]:call { frames(base + 1) }
		device:write(BASE + PAGE, "back")
		assert.equal("back", device:read(BASE + PAGE, 4))
	end)

	it("counts frames outside RAM and gives the others", function()
		fill(2)
		local base = BASE // PAGE
		driver.queues[0]:call { frames(0xffffffff, base, 4096, 0xfffffffe, base + 1) .. "\1\2" }
		assert.is_true(is_zero(0))
		assert.is_true(is_zero(1))
		assert.is_false(driver:needs_reset())
		assert.is_true(device:stats().errors >= 3)
	end)

	it("bounds a chain", function()
		fill(1)
		local gpa = driver:alloc(16384 + 4, 4)
		device:write(gpa, frames(4095):rep(4096) .. frames(BASE // PAGE))
		driver.queues[0]:add { { gpa = gpa, len = 16384 + 4 } }
		driver.queues[0]:kick()
		driver.queues[0]:pop()
		driver:settle()
		assert.equal(1, device:stats().errors)
		assert.is_false(is_zero(0))
	end)

	for queue = 2, 4 do
		it("gives reported free pages back, on queue " .. queue, function()
			fill(4)
			driver.queues[queue]:add {
				{ gpa = BASE + PAGE, len = 2 * PAGE, write = true },
				{ gpa = BASE + 3 * PAGE + 1, len = PAGE, write = true }, -- no whole page
			}
			driver.queues[queue]:kick()
			driver.queues[queue]:pop()
			assert.is_false(is_zero(0))
			assert.is_true(is_zero(1))
			assert.is_true(is_zero(2))
			assert.is_false(is_zero(3))
		end)
	end

	it("reports nothing where that was not negotiated", function()
		driver = virtio.start(device, 5, { features = virtio.F_VERSION_1, gpa = 0x100000 })
		fill(1)
		driver.queues[2]:add { { gpa = BASE, len = PAGE, write = true } }
		driver.queues[2]:kick()
		driver:settle()
		assert.is_nil(driver.queues[2]:poll())
		assert.is_false(is_zero(0))
	end)

	it("keeps its numbers in its state", function()
		assert(device:balloon_set(99))
		device:mmio_write(0x104, 4, 55)
		device:pause()
		local copy <close> = assert(core.virtio_device("balloon", {}))
		assert(copy:load(assert(device:save())))
		device:resume()
		assert.equal(99, copy:mmio_read(0x100, 4))
		assert.equal(55, copy:balloon_actual())
	end)

	it("is not what other devices are", function()
		local none, _, code = device:connect(1)
		assert.is_nil(none)
		assert.equal("EOPNOTSUPP", code)
		local rng <close> = assert(core.virtio_device("rng", {}))
		none, _, code = rng:balloon_set(1)
		assert.is_nil(none)
		assert.equal("EOPNOTSUPP", code)
		assert.equal(0, rng:balloon_actual())
	end)
end)
