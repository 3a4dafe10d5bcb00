local core = require "supermachine.core"
local scratch = require "spec.support.scratch"
local virtio = require "spec.support.virtio_driver"

local IN, OUT, FLUSH, GET_ID = 0, 1, 4, 8
local OK, IOERR, UNSUPPORTED = 0, 1, 2

local function header(kind, sector) return ("<I4I4I8"):pack(kind, 0, sector or 0) end

describe("the virtio block device", function()
	local folder, file, content, disk_bytes, expected, device, driver, queue

	-- 64 KiB: bytes in memory, a gap, a file from an odd offset, another file run, zeros, and a gap at the end.
	lazy_setup(function()
		local bytes = {}
		math.randomseed(7)
		for i = 1, 40000 do bytes[i] = string.char(math.random(0, 255)) end
		content = table.concat(bytes)
		folder = scratch.folder()
		scratch.write(folder .. "/disk", content)
		disk_bytes = 64 << 10
		expected = content:sub(1, 1000) .. ("\0"):rep(536) .. content:sub(8, 8 + 20000 - 1) .. content:sub(30001, 30100)
			.. ("\0"):rep(700)
		expected = expected .. ("\0"):rep(disk_bytes - #expected)
	end)
	lazy_teardown(function() scratch.remove(folder) end)

	before_each(function()
		file = assert(io.open(folder .. "/disk", "rb"))
		device = assert(core.virtio_device("blk", {
			bytes = disk_bytes,
			segments = {
				{ offset = 0, length = 1000, data = content },
				{ offset = 1536, length = 20000, file = file, file_offset = 7 },
				{ offset = 21536, length = 100, file = file, file_offset = 30000 },
				{ offset = 21636, length = 700 },
			},
		}))
		file:close() -- the device has its own descriptor
		driver = virtio.start(device, 1)
		queue = driver.queues[0]
	end)
	after_each(function() device:close() end)

	-- One request, whose last part is the status: status, data
	local function request_to(to, list, indirect)
		to:push(list, indirect)
		to:kick()
		local parts, written = to:pop()
		local last = parts[#parts]
		local status = to.device:read(last.gpa + last.len - 1, 1):byte()
		local room = -1
		for _, part in ipairs(parts) do room = room + (part.write and part.len or 0) end
		if status ~= OK then assert.is_true(written == 0 or room == 0 and written == 1) end
		return status, to:data(parts, math.min(written, room))
	end
	local function request(kind, sector, ...) return request_to(queue, { header(kind, sector), ... }) end

	it("tells its size, limits and that it is read-only", function()
		assert.equal(2, driver:get "device_id")
		assert.equal(disk_bytes // 512, device:mmio_read(0x100, 8))
		assert.equal(disk_bytes // 512, device:mmio_read(0x100, 4))
		assert.equal(0, device:mmio_read(0x104, 4))
		assert.equal(126, device:mmio_read(0x10c, 4))
		assert.equal(512, device:mmio_read(0x114, 4))
		assert.equal(1 << 5, driver:features() & 1 << 5)
		assert.equal(0, device:mmio_read(0x13f, 8))
	end)

	it("reads every byte of the whole disk", function()
		local status, data = request(IN, 0, disk_bytes, 1)
		assert.equal(OK, status)
		assert.is_true(data == expected)
	end)

	it("reads across segments and gaps at any sector and size, in any pieces", function()
		for _, pieces in ipairs { { 512 }, { 1024 }, { 1, 511 }, { 700, 324 }, { 100, 1, 4000, 507 }, { 512, 512, 512 } } do
			local len, list = 0, {}
			for i, size in ipairs(pieces) do
				list[i] = size
				len = len + size
			end
			list[#list + 1] = 1
			for sector = 0, 60 do
				local status, data = request(IN, sector, table.unpack(list))
				assert.equal(OK, status)
				assert.is_true(data == expected:sub(sector * 512 + 1, sector * 512 + len), "sector " .. sector)
			end
			driver.next_gpa = 0x20000
		end
	end)

	it("takes the status in the data's last descriptor, and the header in pieces", function()
		local head = header(IN, 3)
		queue:push { head:sub(1, 5), head:sub(6), 513 }
		queue:kick()
		local parts, written = queue:pop()
		assert.equal(513, written)
		assert.equal(expected:sub(1537, 2048) .. "\0", queue:data(parts, written))
	end)

	it("serves indirect chains", function()
		local data = queue:call({ header(IN, 0), 4096, 4096, 1 }, true)
		assert.is_true(data == expected:sub(1, 8192) .. "\0")
	end)

	it("marks what it writes, and only that", function()
		local gpa = driver:alloc(3 * 4096, 4096)
		device:write(gpa, header(IN, 0))
		queue:add {
			{ gpa = gpa, len = 16 },
			{ gpa = gpa + 4096, len = 512, write = true },
			{ gpa = gpa + 8192, len = 1, write = true },
		}
		queue:kick()
		queue:pop()
		assert.is_false(device:marked(gpa))
		assert.is_true(device:marked(gpa + 4096))
		assert.is_true(device:marked(gpa + 8192))
		assert.is_true(device:marked(queue.used))
	end)

	it("reads the last sector and nothing after it", function()
		assert.equal(OK, (request(IN, disk_bytes // 512 - 1, 512, 1)))
		assert.equal(IOERR, (request(IN, disk_bytes // 512 - 1, 1024, 1)))
		assert.equal(IOERR, (request(IN, disk_bytes // 512, 512, 1)))
		assert.equal(IOERR, (request(IN, 1 << 55, 512, 1)))
		assert.equal(IOERR, (request(IN, -1, 512, 1)))
		assert.equal(4, device:stats().errors)
	end)

	it("refuses parts of sectors and short headers", function()
		assert.equal(IOERR, (request(IN, 0, 511, 1)))
		assert.equal(IOERR, (request_to(queue, { ("\0"):rep(15), 1 })))
		assert.equal(IOERR, (request_to(queue, { 1 })))
		assert.is_false(driver:needs_reset())
	end)

	it("refuses writes, and everything else that changes a disk", function()
		for _, kind in ipairs { OUT, 11, 13 } do
			assert.equal(IOERR, (request_to(queue, { header(kind, 0), ("x"):rep(512), 1 })))
		end
		local _, data = request(IN, 0, 512, 1)
		assert.is_true(data == expected:sub(1, 512))
	end)

	it("has nothing to flush, and an identity", function()
		assert.equal(OK, (request(FLUSH, 0, 1)))
		local status, id = request(GET_ID, 0, 20, 1)
		assert.equal(OK, status)
		assert.equal("supermachine" .. ("\0"):rep(8), id)
		assert.equal(IOERR, (request(GET_ID, 0, 19, 1)))
		assert.equal(UNSUPPORTED, (request(99, 0, 1)))
	end)

	it("bounds a request", function()
		local big = core.virtio_device("blk", { bytes = 1 << 20, memory_mib = 64 })
		local other = virtio.start(big, 1, { num = 256 })
		local gpa = other:alloc(1 << 20)
		big:write(gpa, header(IN, 0))
		local function try(count, len)
			local parts = { { gpa = gpa, len = 16 } }
			for _ = 1, count do parts[#parts + 1] = { gpa = gpa + 16, len = len, write = true } end
			parts[#parts + 1] = { gpa = gpa + (1 << 20) - 1, len = 1, write = true }
			other.queues[0]:add(parts)
			other.queues[0]:kick()
			other.queues[0]:pop()
			return big:read(gpa + (1 << 20) - 1, 1):byte()
		end
		assert.equal(OK, try(126, 512))
		big:write(gpa, header(IN, 0))
		assert.equal(IOERR, try(127, 512))
		assert.equal(OK, try(1, 256 << 10))
		big:write(gpa, header(IN, 0))
		assert.equal(IOERR, try(1, (256 << 10) + 512))
		big:close()
	end)

	it("needs a reset where there is no room for a status", function()
		queue:push { header(IN, 0) }
		queue:kick()
		driver:wait_needs_reset()
	end)

	it("serves many requests offered at once", function()
		for _ = 1, 20 do queue:push({ header(IN, 5), 512, 1 }, true) end
		queue:kick()
		for _ = 1, 20 do
			local parts, written = queue:pop()
			assert.is_true(queue:data(parts, written) == expected:sub(2561, 3072) .. "\0")
		end
	end)

	it("goes on past what one wake-up serves", function()
		local wide = virtio.start(device, 1, { num = 256, gpa = 0x100000 })
		local gpa = wide:alloc(32)
		device:write(gpa, header(FLUSH))
		for _ = 1, 256 do wide.queues[0]:add({ { gpa = gpa, len = 16 }, { gpa = gpa + 16, len = 1, write = true } }, true) end
		wide.queues[0]:kick()
		for _ = 1, 256 do wide.queues[0]:pop() end
		assert.equal(256, device:stats().requests)
		assert.equal(1, device:stats().kicks)
	end)

	it("reports a file that has become shorter as an I/O error", function()
		local path = folder .. "/short"
		scratch.write(path, ("x"):rep(4096))
		local handle = assert(io.open(path, "rb"))
		local short <close> = assert(core.virtio_device("blk", {
			bytes = 4096, segments = { { offset = 0, length = 4096, file = handle } },
		}))
		handle:close()
		scratch.write(path, ("x"):rep(512))
		local other = virtio.start(short, 1)
		assert.equal(OK, (request_to(other.queues[0], { header(IN, 0), 512, 1 })))
		assert.equal(IOERR, (request_to(other.queues[0], { header(IN, 0), 1024, 1 })))
	end)

	it("is empty where the slot has no disk", function()
		local empty <close> = assert(core.virtio_device("blk", {}))
		local other = virtio.start(empty, 1)
		assert.equal(0, empty:mmio_read(0x100, 8))
		assert.equal(IOERR, (request_to(other.queues[0], { header(IN, 0), 512, 1 })))
	end)

	it("refuses a disk that is none", function()
		for _, case in ipairs {
			{ bytes = 100 },
			{ bytes = 512, segments = { { offset = 0, length = 513 } } },
			{ bytes = 512, segments = { { offset = 0, length = 0 } } },
			{ bytes = 512, segments = { { offset = 513, length = 1 } } },
			{ bytes = 512, segments = { { offset = 256, length = 10 }, { offset = 0, length = 10 } } },
			{ bytes = 512, segments = { { offset = 0, length = 10 }, { offset = 9, length = 10 } } },
			{ bytes = 512, segments = { { offset = 0, length = -1 } } },
		} do
			local none, message, code = core.virtio_device("blk", case)
			assert.is_nil(none)
			assert.matches("block device", message)
			assert.equal("EINVAL", code)
		end
	end)

	it("loads a state only of a disk of the same size", function()
		device:pause()
		local state = assert(device:save())
		device:resume()
		local other <close> = assert(core.virtio_device("blk", { bytes = 512 }))
		local none, message, code = other:load(state)
		assert.is_nil(none)
		assert.matches("65536 bytes, this one has 512", message)
		assert.equal("EBADMSG", code)
	end)

	it("tells a restored guest of a disk in a slot that was empty", function()
		local empty <close> = assert(core.virtio_device("blk", {}))
		virtio.start(empty, 1)
		empty:pause()
		local state = assert(empty:save())
		assert(device:load(state))
		local generation = driver:get "generation"
		device:restored()
		assert.equal(2, driver:get "interrupt_status")
		assert.equal(1, device:irq(virtio.WAIT_MS))
		assert.not_equal(generation, driver:get "generation")
		assert.equal(disk_bytes // 512, device:mmio_read(0x100, 8))
	end)
end)
