local build = require "spec.support.build"
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local records = require "spec.support.records"
local scratch = require "spec.support.scratch"
local virtio = require "spec.support.virtio_driver"
local volumes = require "spec.support.volume"

local IN <const>, OUT <const>, GET_ID <const> = volumes.IN, volumes.OUT, volumes.GET_ID
local DISCARD <const>, ZEROES <const> = volumes.DISCARD, volumes.ZEROES
local OK <const>, IOERR <const>, UNSUPPORTED <const> = volumes.OK, volumes.IOERR, volumes.UNSUPPORTED
local MIB <const>, BLOCK <const>, SECTOR <const> = volumes.MIB, volumes.BLOCK, volumes.SECTOR
local F_RO <const>, F_FLUSH <const>, F_WCE <const>, F_DISCARD <const>, F_ZEROES <const> =
	1 << 5, 1 << 9, 1 << 11, 1 << 13, 1 << 14
local ALL <const> = (1 << 27) - 1 | virtio.F_VERSION_1 | virtio.F_EVENT_IDX | virtio.F_INDIRECT

local volume, request_to, header, ranges = volumes.new, volumes.request, volumes.header, volumes.ranges
local read, write, flush, change = volumes.read, volumes.write, volumes.flush, volumes.change
local pattern, blocks_of = volumes.pattern, volumes.blocks

describe("a volume", function()
	local folder
	before_each(function() folder = folders.new() end)
	after_each(function() folder:close() end)

	it("tells its size, features, limits and name", function()
		local device <close>, driver = volume(folder, ("\0"):rep(MIB), { index = 7 })
		assert.equal(2, driver:get "device_id")
		assert.equal(MIB // SECTOR, device:mmio_read(0x100, 8))
		local features = driver:features()
		for _, bit in ipairs { F_FLUSH, F_WCE, F_DISCARD, F_ZEROES } do assert.equal(bit, features & bit) end
		assert.equal(0, features & F_RO)
		assert.equal(1, device:mmio_read(0x120, 1)) -- writeback
		assert.equal(3, device:mmio_read(0x118, 1)) -- physical blocks of 8 sectors
		assert.equal(16, device:mmio_read(0x128, 4)) -- ranges of a discard
		assert.equal(8, device:mmio_read(0x12c, 4)) -- its grain
		assert.equal(1, device:mmio_read(0x138, 1)) -- zeros may unmap
		local status, id = request_to(driver.queues[0], { header(GET_ID), 20, 1 })
		assert.equal(OK, status)
		assert.equal("sm-volume-7" .. ("\0"):rep(9), id)
	end)

	it("reads and writes, in any pieces, at any sector", function()
		local content = pattern(MIB, 1)
		local device <close>, driver, path = volume(folder, content)
		for _, sector in ipairs { 0, 1, 7, 8, 100, MIB // SECTOR - 24 } do
			for _, pieces in ipairs { { 512 }, { 100, 412 }, { 4096 }, { 1, 4095, 4096 }, { 512, 8192, 3584 } } do
				local list, sent = { header(OUT, sector) }, {}
				for i, size in ipairs(pieces) do
					sent[i] = pattern(size + 8, sector * 16 + i):sub(1, size)
					list[#list + 1] = sent[i]
				end
				list[#list + 1] = 1
				local data = table.concat(sent)
				assert.equal(OK, (request_to(driver.queues[0], list)))
				content = content:sub(1, sector * SECTOR) .. data .. content:sub(sector * SECTOR + #data + 1)
				assert.is_true(read(driver, sector, #data) == data)
			end
		end
		assert.equal(OK, flush(driver))
		assert.is_true(scratch.read(path) == content)
		assert.equal(0, device:stats().errors)
	end)

	it("takes the header and data in one descriptor, and indirect chains", function()
		local device <close>, driver, path = volume(folder, ("\0"):rep(MIB))
		assert.equal(OK, (request_to(driver.queues[0], { header(OUT, 8) .. ("a"):rep(1024), 1 })))
		assert.equal(OK, (request_to(driver.queues[0], { header(OUT, 16), ("b"):rep(512), ("c"):rep(512), 1 }, true)))
		assert.is_true(scratch.read(path):sub(4097, 9216)
			== ("a"):rep(1024) .. ("\0"):rep(3072) .. ("b"):rep(512) .. ("c"):rep(512))
		assert.equal(2, device:stats().requests)
	end)

	it("refuses what is not on it, and parts of sectors", function()
		local device <close>, driver, path = volume(folder, ("x"):rep(MIB))
		local last = MIB // SECTOR - 1
		assert.equal(OK, write(driver, last, ("y"):rep(512)))
		assert.equal(IOERR, write(driver, last, ("y"):rep(1024)))
		assert.equal(IOERR, write(driver, last + 1, ("y"):rep(512)))
		assert.equal(IOERR, write(driver, 1 << 55, ("y"):rep(512)))
		assert.equal(IOERR, write(driver, -1, ("y"):rep(512)))
		assert.equal(IOERR, write(driver, 0, ("y"):rep(511)))
		assert.equal(IOERR, select(2, read(driver, last, 1024)))
		assert.equal(IOERR, (request_to(driver.queues[0], { ("\0"):rep(15), 1 })))
		assert.equal(UNSUPPORTED, (request_to(driver.queues[0], { header(99), 1 })))
		assert.equal(IOERR, (request_to(driver.queues[0], { header(GET_ID), 19, 1 })))
		assert.equal(9, device:stats().errors)
		assert.equal(MIB, #scratch.read(path))
		assert.is_true(scratch.read(path) == ("x"):rep(MIB - 512) .. ("y"):rep(512))
	end)

	it("bounds a request", function()
		local device <close>, driver = volume(folder, ("\0"):rep(4 * MIB))
		local other = virtio.start(device, 1, { num = 256, gpa = 0x100000 })
		local queue, head, data = other.queues[0], other:alloc(32), other:alloc(MIB)
		local function try(kind, count, len)
			device:write(head, header(kind))
			local parts = { { gpa = head, len = 16 } }
			for _ = 1, count do parts[#parts + 1] = { gpa = data, len = len, write = kind == IN } end
			parts[#parts + 1] = { gpa = head + 16, len = 1, write = true }
			queue:add(parts)
			queue:kick()
			queue:pop()
			return device:read(head + 16, 1):byte()
		end
		for _, kind in ipairs { IN, OUT } do
			assert.equal(OK, try(kind, 126, 512))
			assert.equal(IOERR, try(kind, 127, 512))
			assert.equal(OK, try(kind, 1, 256 << 10))
			assert.equal(IOERR, try(kind, 1, (256 << 10) + 512))
		end
		assert.is_not_nil(driver)
	end)

	it("needs a reset where there is no room for a status, and serves the next driver", function()
		local device <close>, driver = volume(folder, ("x"):rep(MIB))
		driver.queues[0]:push { header(OUT, 0), ("y"):rep(512) }
		driver.queues[0]:kick()
		driver:wait_needs_reset()
		local again = virtio.start(device, 1, { gpa = 0x100000 })
		assert.is_true(read(again, 0, 512) == ("x"):rep(512))
	end)

	it("punches holes for discards, in whole blocks, and for zeros anywhere", function()
		local device <close>, driver, path = volume(folder, ("x"):rep(MIB))
		local full = blocks_of(path)
		-- From sector 1 to 31: blocks 1 and 2 are whole.
		assert.equal(OK, change(driver, DISCARD, { { 1, 30 } }))
		assert.is_true(scratch.read(path):sub(1, 16384) == ("x"):rep(BLOCK) .. ("\0"):rep(2 * BLOCK) .. ("x"):rep(BLOCK))
		assert.equal(full - 16, blocks_of(path))
		assert.equal(OK, change(driver, ZEROES, { { 65, 3, 1 }, { 128, 64, 1 } }))
		local content = scratch.read(path)
		assert.is_true(content:sub(64 * SECTOR + 1, 70 * SECTOR)
			== ("x"):rep(SECTOR) .. ("\0"):rep(3 * SECTOR) .. ("x"):rep(2 * SECTOR))
		assert.is_true(content:sub(128 * SECTOR + 1, 193 * SECTOR) == ("\0"):rep(64 * SECTOR) .. ("x"):rep(SECTOR))
		assert.equal(full - 16 - 64, blocks_of(path))
		-- Without leave to unmap, the blocks stay.
		assert.equal(OK, change(driver, ZEROES, { { 256, 64 } }))
		assert.is_true(scratch.read(path):sub(256 * SECTOR + 1, 320 * SECTOR) == ("\0"):rep(64 * SECTOR))
		assert.equal(full - 16 - 64, blocks_of(path))
		assert.equal(MIB, #scratch.read(path))
		assert.equal(0, device:stats().errors)
	end)

	it("refuses ranges that are too many, too long, cut short, or out of it, and changes nothing then", function()
		local device <close>, driver, path = volume(folder, ("x"):rep(MIB))
		for _, kind in ipairs { DISCARD, ZEROES } do
			local many = {}
			for i = 1, 17 do many[i] = { 0, 8 } end
			assert.equal(IOERR, change(driver, kind, many))
			assert.equal(IOERR, change(driver, kind, { { 0, 8 }, { MIB // SECTOR - 8, 9 } }))
			assert.equal(IOERR, change(driver, kind, { { 0, 8 }, { 1 << 55, 8 } }))
			assert.equal(IOERR, change(driver, kind, { { 0, 8 }, { -1, 8 } }))
			assert.equal(IOERR, change(driver, kind, { { 0, 8 }, { 0, 0xffffffff } }))
			assert.equal(UNSUPPORTED, change(driver, kind, { { 0, 8 }, { 8, 8, 2 } }))
			assert.equal(IOERR, (request_to(driver.queues[0], { header(kind), ranges { { 0, 8 } }:sub(1, 15), 1 })))
			assert.equal(IOERR, (request_to(driver.queues[0], { header(kind), 1 })))
		end
		assert.equal(UNSUPPORTED, change(driver, DISCARD, { { 0, 8, 1 } }))
		assert.is_true(scratch.read(path) == ("x"):rep(MIB))
		assert.equal(17, device:stats().errors)
	end)

	it("has its cache on or off as the driver wants it", function()
		local device <close>, driver = volume(folder, ("\0"):rep(MIB))
		device:mmio_write(0x120, 1, 0)
		assert.equal(0, device:mmio_read(0x120, 1))
		assert.equal(OK, write(driver, 0, ("y"):rep(512)))
		device:mmio_write(0x120, 1, 1)
		assert.equal(1, device:mmio_read(0x120, 1))
		-- Who knows of no flush gets no cache.
		driver = virtio.start(device, 1, { features = ALL & ~F_FLUSH, gpa = 0x100000 })
		assert.equal(0, device:mmio_read(0x120, 1))
		assert.equal(OK, write(driver, 0, ("y"):rep(512)))
		driver = virtio.start(device, 1, { features = ALL & ~F_WCE, gpa = 0x200000 })
		device:mmio_write(0x120, 1, 0)
		assert.equal(1, device:mmio_read(0x120, 1))
		assert.equal(OK, write(driver, 0, ("y"):rep(512)))
	end)

	-- In a process of its own, where each fdatasync is a line.
	it("syncs the file when the driver flushes, and with each change where it has no cache", function()
		folder:write("sync.lua", [[
			local folders = require "spec.support.folder"
			local virtio = require "spec.support.virtio_driver"
			local volumes = require "spec.support.volume"
			local folder <close> = folders.new()
			local device <close>, driver = volumes.new(folder, ("x"):rep(1 << 20))
			local function step(what, status) io.write(what, " ", status, "\n"):flush() end
			step("write", volumes.write(driver, 0, ("y"):rep(512)))
			step("discard", volumes.change(driver, volumes.DISCARD, { { 0, 8 } }))
			step("flush", volumes.flush(driver))
			device:mmio_write(0x120, 1, 0)
			step("write through", volumes.write(driver, 0, ("y"):rep(512)))
			step("zeros through", volumes.change(driver, volumes.ZEROES, { { 0, 8 } }))
			driver = virtio.start(device, 1, { gpa = 0x100000, features = virtio.F_VERSION_1 })
			step("no flush known", volumes.write(driver, 0, ("y"):rep(512)))
		]])
		local function trace(variables)
			return scratch.run(("ASAN_OPTIONS=verify_asan_link_order=0 SUPERMACHINE_SYNCS=1 %s "
				.. "LD_PRELOAD=%s/spec/virtio/sync_preload.so %s/supermachine %s"):format(variables, build.dir, build.dir,
				folder:join "sync.lua"))
		end
		assert.equal("write 0\ndiscard 0\nsync\nflush 0\nsync\nwrite through 0\nsync\nzeros through 0\nsync\n"
			.. "no flush known 0", trace "")
		assert.equal("write 0\ndiscard 0\nsync\nflush 1\nsync\nwrite through 1\nsync\nzeros through 1\nsync\n"
			.. "no flush known 1", trace "SUPERMACHINE_SYNC_FAILS=1")
	end)

	it("that is read-only says so, and is", function()
		local device <close>, driver, path = volume(folder, ("x"):rep(MIB), { readonly = true })
		assert.equal(F_RO, driver:features() & F_RO)
		assert.equal(IOERR, write(driver, 0, ("y"):rep(512)))
		assert.equal(IOERR, change(driver, DISCARD, { { 0, 8 } }))
		assert.equal(IOERR, change(driver, ZEROES, { { 0, 8 } }))
		assert.equal(OK, flush(driver))
		assert.is_true(read(driver, 0, 512) == ("x"):rep(512))
		assert.is_true(scratch.read(path) == ("x"):rep(MIB))
		assert.equal(3, device:stats().errors)
	end)

	it("serves many requests at once, and each is answered once", function()
		local device <close> = volume(folder, ("\0"):rep(4 * MIB))
		local driver = virtio.start(device, 1, { num = 256, gpa = 0x100000 })
		local queue = driver.queues[0]
		for round = 1, 20 do
			driver.next_gpa = driver.first_gpa or driver.next_gpa
			driver.first_gpa = driver.next_gpa
			for i = 0, 79 do queue:push { header(OUT, i * 8), pattern(BLOCK, round * 1000 + i), 1 } end
			queue:kick()
			for _ = 0, 79 do queue:pop() end
			for i = 0, 79 do queue:push { header(IN, i * 8), BLOCK, 1 } end
			queue:kick()
			for _ = 0, 79 do
				local parts, written = queue:pop()
				local sector = select(3, ("<I4I4I8"):unpack(device:read(parts[1].gpa, 16)))
				assert.is_true(queue:data(parts, written) == pattern(BLOCK, round * 1000 + sector // 8) .. "\0")
			end
		end
		assert.equal(20 * 160, device:stats().requests)
	end)

	it("reports a file that has become shorter as an I/O error", function()
		local device <close>, driver, path = volume(folder, ("x"):rep(8192))
		scratch.write(path, "")
		assert.equal(IOERR, select(2, read(driver, 0, 512)))
		assert.equal(1, device:stats().errors)
	end)

	it("refuses sizes that are none", function()
		for _, bytes in ipairs { 0, 511, -1 } do
			scratch.write(folder:join "data.img", "")
			local file <close> = assert(io.open(folder:join "data.img", "r+b"))
			local none, message, code = core.virtio_volume { file = file, bytes = bytes }
			assert.is_nil(none)
			assert.matches("whole sectors", message)
			assert.equal("EINVAL", code)
		end
	end)

	it("is empty where the slot has none, until it gets one, and again when that is forgotten", function()
		local device <close> = assert(core.virtio_volume {})
		local driver = virtio.start(device, 1)
		assert.equal(0, device:mmio_read(0x100, 8))
		assert.equal(IOERR, write(driver, 0, ("y"):rep(512)))
		assert.equal(OK, flush(driver))
		device:pause()
		local before = assert(device:save())
		device:resume()
		scratch.write(folder:join "late", ("x"):rep(8192))
		local file <close> = assert(io.open(folder:join "late", "r+b"))
		device:irq(0)
		assert(core.virtio_volume_back(device, { file = file, bytes = 8192 }))
		assert.equal(2, driver:get "interrupt_status" & 2)
		assert.equal(1, device:irq(virtio.WAIT_MS))
		assert.equal(16, device:mmio_read(0x100, 8))
		assert.equal(OK, write(driver, 0, ("y"):rep(512)))
		assert.equal(OK, flush(driver))
		assert.is_true(scratch.read(folder:join "late") == ("y"):rep(512) .. ("x"):rep(7680))
		local none, message, code = core.virtio_volume_back(device, { file = file, bytes = 8192 })
		assert.is_nil(none)
		assert.matches("there is one already", message)
		assert.equal("EBUSY", code)

		local open = scratch.descriptors()
		device:pause()
		core.virtio_forget(device)
		assert(device:load(before))
		device:restored()
		device:resume()
		assert.equal(open - 1, scratch.descriptors())
		assert.equal(0, device:mmio_read(0x100, 8))
		driver = driver:move(device)
		assert.equal(IOERR, write(driver, 0, ("z"):rep(512)))
		assert.is_true(scratch.read(folder:join "late"):sub(1, 512) == ("y"):rep(512))
	end)

	it("refuses a state that no volume has", function()
		local device <close> = volume(folder, ("x"):rep(MIB))
		device:pause()
		local state = assert(device:save())
		for words, change_payload in pairs {
			["cache mode 2"] = function(payload) return payload:sub(1, -2) .. "\2" end,
			["malformed"] = function(payload) return payload:sub(1, -2) end,
			["this one has 1048576"] = function(payload) return payload:sub(1, -10) .. ("<I8"):pack(MIB + 512) .. "\1" end,
		} do
			local none, message, code = device:load(records.changed(state, "VDEV", change_payload))
			assert.is_nil(none)
			assert.equal("EBADMSG", code)
			assert.is_truthy(message:find(words, 1, true) or words == "malformed", message)
		end
		device:resume()
	end)

	it("keeps its cache mode in its state, and loads only one of its size", function()
		local device <close> = volume(folder, ("x"):rep(MIB))
		device:mmio_write(0x120, 1, 0)
		device:pause()
		local state = assert(device:save())
		device:resume()
		local file <close> = assert(io.open(folder:join "data.img", "r+b"))
		local other <close> = assert(core.virtio_volume { file = file, bytes = MIB })
		assert(other:load(state))
		assert.equal(0, other:mmio_read(0x120, 1))
		local smaller <close> = assert(core.virtio_volume { file = file, bytes = 512 })
		local none, message, code = smaller:load(state)
		assert.is_nil(none)
		assert.matches("saved with 1048576 bytes, this one has 512", message)
		assert.equal("EBADMSG", code)
	end)
end)
