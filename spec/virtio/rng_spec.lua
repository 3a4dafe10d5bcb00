local core = require "supermachine.core"
local virtio = require "spec.support.virtio_driver"

describe("the virtio entropy device", function()
	it("fills buffers with bytes that differ", function()
		local device <close> = assert(core.virtio_device("rng", {}))
		local driver = virtio.start(device, 1)
		local seen = {}
		for _ = 1, 10 do
			local bytes, written = driver.queues[0]:call { 16, 16 }
			assert.equal(32, written)
			assert.is_nil(seen[bytes])
			seen[bytes] = true
			assert.not_equal(bytes:sub(1, 16), bytes:sub(17))
		end
	end)

	it("gives at most 64 KiB a request", function()
		local device <close> = assert(core.virtio_device("rng", {}))
		local driver = virtio.start(device, 1)
		local _, written = driver.queues[0]:call { 1 << 20 }
		assert.equal(64 << 10, written)
		assert.equal(64 << 10, device:stats().bytes)
	end)

	it("serves more at once than a wake-up's share", function()
		local device <close> = assert(core.virtio_device("rng", {}))
		local driver = virtio.start(device, 1)
		local gpa = driver:alloc(64 << 10)
		for _ = 1, 40 do driver.queues[0]:add { { gpa = gpa, len = 64 << 10, write = true } } end
		driver.queues[0]:kick()
		for _ = 1, 40 do assert.equal(64 << 10, select(2, driver.queues[0]:pop())) end
	end)

	it("has nothing for a request without room", function()
		local device <close> = assert(core.virtio_device("rng", {}))
		local driver = virtio.start(device, 1)
		local _, written = driver.queues[0]:call { "text" }
		assert.equal(0, written)
		assert.is_false(driver:needs_reset())
	end)
end)
