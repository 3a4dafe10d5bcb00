local core = require "supermachine.core"
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local scratch = require "spec.support.scratch"
local virtio = require "spec.support.virtio_driver"
local volumes = require "spec.support.volume"

local OK <const>, OUT <const> = volumes.OK, volumes.OUT
local MIB <const>, BLOCK <const>, SECTOR <const> = volumes.MIB, volumes.BLOCK, volumes.SECTOR
local read, write, change, pattern = volumes.read, volumes.write, volumes.change, volumes.pattern

describe("a volume's overlay", function()
	local folder
	before_each(function() folder = folders.new() end)
	after_each(function() folder:close() end)

	local function clone(content, name, bytes)
		return volumes.new(folder, content, { overlay = folder:join(name or "overlay"), bytes = bytes })
	end
	local function whole(driver, bytes)
		local out = {}
		for at = 0, bytes - 1, 64 << 10 do
			out[#out + 1] = assert(read(driver, at // SECTOR, math.min(64 << 10, bytes - at)))
		end
		return table.concat(out)
	end
	local function copied(device)
		local file <close> = assert(io.open(folder:join "copy", "w+b"))
		device:pause()
		assert(core.virtio_volume_track(device))
		local offset = 0
		repeat
			local next_offset = assert(core.virtio_volume_copy(device, file, offset, MIB))
			assert.is_true(next_offset > offset)
			offset = next_offset
		until offset == device:mmio_read(0x100, 8) * SECTOR
		assert.equal(0, (assert(core.virtio_volume_finish(device, file))))
		core.virtio_volume_untrack(device)
		device:resume()
		return scratch.read(folder:join "copy")
	end

	it("has what was written since, and leaves the file alone", function()
		local content = pattern(MIB, 1)
		local one <close>, first, path = clone(content, "one")
		local two <close>, second = clone(nil, "two", MIB)
		assert.equal(OK, write(first, 0, ("a"):rep(BLOCK)))
		assert.equal(OK, write(second, 0, ("b"):rep(SECTOR)))
		assert.equal(OK, volumes.flush(first))
		assert.is_true(whole(first, MIB) == ("a"):rep(BLOCK) .. content:sub(BLOCK + 1))
		assert.is_true(whole(second, MIB) == ("b"):rep(SECTOR) .. content:sub(SECTOR + 1))
		assert.is_true(scratch.read(path) == content)
		assert.equal(8, volumes.blocks(folder:join "one"))
		assert.equal(0, one:stats().errors + two:stats().errors)
	end)

	-- The last block is a short one.
	for _, seed in ipairs { 1, 2, 3 } do
		it("is what a plain file would be after any writes, zeros and discards, seed " .. seed, function()
			math.randomseed(seed)
			local sectors = 3 * 256 * 8 + 8 * 70 + 3
			local content = pattern(sectors * SECTOR, seed)
			local device <close>, driver, path = clone(content)
			local model = {} -- by sector
			for i = 0, sectors - 1 do model[i] = content:sub(i * SECTOR + 1, (i + 1) * SECTOR) end
			local zero = ("\0"):rep(SECTOR)
			for step = 1, 400 do
				local first = math.random(0, sectors - 1)
				local count = math.min(math.random(1, ({ 3, 20, 500 })[math.random(3)]), sectors - first)
				local kind = math.random(10)
				if kind <= 7 then
					local data = pattern(count * SECTOR, seed * 1000 + step)
					assert.equal(OK, write(driver, first, data))
					for i = 0, count - 1 do model[first + i] = data:sub(i * SECTOR + 1, (i + 1) * SECTOR) end
				else
					local discard = kind == 8
					assert.equal(OK, change(driver, discard and volumes.DISCARD or volumes.ZEROES, { { first, count } }))
					local from, to = first, first + count
					if discard then
						from, to = (from + 7) // 8 * 8, to == sectors and to or to // 8 * 8
					end
					for i = from, to - 1 do model[i] = zero end
				end
				local at = math.random(0, sectors - 1)
				local len = math.min(math.random(1, 100), sectors - at)
				assert.is_true(read(driver, at, len * SECTOR) == table.concat(model, "", at, at + len - 1))
			end
			local expected = table.concat(model, "", 0, sectors - 1)
			assert.is_true(whole(driver, sectors * SECTOR) == expected)
			assert.is_true(copied(device) == expected)
			assert.is_true(scratch.read(path) == content)
			assert.equal(0, device:stats().errors)
		end)
	end

	-- The sectors of a block, each written by a request of its own, all at once: none undoes another's.  One is left to
	-- the file.
	it("keeps the writes of parallel requests to one block", function()
		local content = pattern(MIB, 9)
		for round = 1, 20 do
			local device <close> = clone(content, "overlay" .. round)
			local wide = virtio.start(device, 1, { num = 256, gpa = 0x200000 })
			local queue, expected = wide.queues[0], {}
			for sector = 0, 255 do
				expected[sector] = content:sub(sector * SECTOR + 1, (sector + 1) * SECTOR)
				if sector % 8 ~= round % 8 then
					expected[sector] = pattern(SECTOR, round * 1000 + sector)
					queue:push({ volumes.header(OUT, sector), expected[sector], 1 }, true)
				end
			end
			queue:kick()
			for _ = 1, 224 do queue:pop() end
			local data = queue:call { volumes.header(volumes.IN, 0), 256 * SECTOR, 1 }
			assert.is_true(data == table.concat(expected, "", 0, 255) .. "\0")
		end
	end)

	it("is empty again once the device forgets, and the host has its blocks back", function()
		local content = pattern(MIB, 4)
		local device <close>, driver, path = clone(content)
		driver:set("status", 0)
		device:pause()
		local state = assert(device:save())
		device:resume()
		for _ = 1, 3 do
			local other = virtio.start(device, 1, { gpa = 0x200000 })
			assert.is_true(whole(other, MIB) == content)
			assert.equal(OK, write(other, 0, ("a"):rep(64 << 10)))
			assert.equal(OK, write(other, 129, ("b"):rep(SECTOR)))
			assert.is_true(read(other, 128, 3 * SECTOR)
				== content:sub(128 * SECTOR + 1, 129 * SECTOR) .. ("b"):rep(SECTOR) .. content:sub(130 * SECTOR + 1, 131 * SECTOR))
			assert.equal(128 + 8, volumes.blocks(folder:join "overlay"))
			device:pause()
			core.virtio_forget(device)
			assert.equal(0, volumes.blocks(folder:join "overlay"))
			assert(device:load(state))
			device:restored()
			device:resume()
		end
		assert.is_true(scratch.read(path) == content)
	end)

	for name, overlay in pairs { ["with its overlay"] = true, ["without one"] = false } do
		it("is copied, " .. name .. ", as it is at the end, whatever is written meanwhile", function()
			local bytes = 4 * MIB
			local device <close>, driver = volumes.new(folder, pattern(bytes, 3), {
				overlay = overlay and folder:join "overlay" or nil,
			})
			math.randomseed(overlay and 5 or 6)
			local function change_some()
				for i = 1, 20 do
					local sector, count = math.random(0, bytes // SECTOR - 100), math.random(100)
					if i % 5 == 0 then
						assert.equal(OK, change(driver, i % 2 == 0 and volumes.DISCARD or volumes.ZEROES, { { sector, count, i % 2 } }))
					else
						assert.equal(OK, write(driver, sector, pattern(count * SECTOR, math.random(1 << 30))))
					end
				end
			end
			change_some()
			local file <close> = assert(io.open(folder:join "copy", "w+b"))
			device:pause()
			assert(core.virtio_volume_track(device))
			device:resume()
			local offset = 0
			repeat
				change_some()
				offset = assert(core.virtio_volume_copy(device, file, offset, 300000))
				change_some()
			until offset == bytes
			device:pause()
			local changed = assert(core.virtio_volume_finish(device, file))
			core.virtio_volume_untrack(device)
			device:resume()
			assert.is_true(changed > 0 and changed <= bytes)
			assert.is_true(scratch.read(folder:join "copy") == whole(driver, bytes))
		end)
	end

	it("is copied together with the file, holes as holes", function()
		scratch.run("truncate -s 64M " .. scratch.quote(folder:join "data.img"))
		local device <close>, driver = clone(nil, "overlay", 64 * MIB)
		assert.equal(OK, write(driver, 50 * MIB // SECTOR, ("a"):rep(BLOCK)))
		local copy = copied(device)
		assert.equal(64 * MIB, #copy)
		assert.equal(50 * MIB, copy:find("a", 1, true) - 1)
		assert.equal(8, volumes.blocks(folder:join "copy"))
	end)

	-- A file system of 64 KiB, in a mount namespace of its own.
	it("that the host has no room for is the guest's I/O error, and the rest goes on", function()
		folder:write("full.lua", ([[
			local volumes = require "spec.support.volume"
			local folders = require "spec.support.folder"
			local folder <close> = folders.new()
			local content = volumes.pattern(1 << 20, 5)
			local device <close>, driver = volumes.new(folder, content, { overlay = %q })
			local fine, failed = 0, 0
			for i = 0, 31 do
				local status = volumes.write(driver, i * 8, ("a"):rep(4096))
				if status == 0 then fine = fine + 1 else failed = failed + 1 end
			end
			local kept, same = 0, 0
			for i = 0, 31 do
				local data = assert(volumes.read(driver, i * 8, 4096))
				if data == ("a"):rep(4096) then kept = kept + 1 end
				if data == content:sub(i * 4096 + 1, (i + 1) * 4096) then same = same + 1 end
			end
			local stats = device:stats()
			print(fine, failed, kept, same, stats.errors, stats.full)
		]]):format(folder:join "small/overlay"))
		scratch.run("mkdir " .. folder:join "small")
		local out = scratch.run(("unshare -rm sh -ec 'mount -t tmpfs -o size=64k none %s; exec %s %s'"):format(
			folder:join "small", build.dir .. "/supermachine", folder:join "full.lua"))
		local fine, failed, kept, same, errors, full = out:match "(%d+)%s+(%d+)%s+(%d+)%s+(%d+)%s+(%d+)%s+(%d+)"
		assert.equal("16", fine)
		assert.equal("16", failed)
		assert.same({ fine, failed, failed, failed }, { kept, same, errors, full })
	end)

	it("that cannot be made is an error", function()
		scratch.write(folder:join "data.img", ("x"):rep(4096))
		local file <close> = io.open(folder:join "data.img", "rb")
		local readonly <close> = io.open(folder:join "data.img", "rb")
		local none, _, code = core.virtio_volume { file = file, overlay = readonly, bytes = 4096 }
		assert.is_nil(none)
		assert.equal("EINVAL", code)
	end)
end)
