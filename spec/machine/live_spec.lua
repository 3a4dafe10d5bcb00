-- Snapshots of machines that run, and run on.
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lfs = require "lfs"
local scheduler = require "supermachine.scheduler"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local MIB <const> = 1 << 20
local PAGE <const> = 4096
local pages <const> = 64
local zero <const> = guest.ram_base + 6 * MIB -- nobody writes there
local first <const> = guest.ram_base + 8 * MIB
local blinking <const> = guest.ram_base + 9 * MIB

-- Counts in a register, writes each number to many pages, and powers off when one of them has another; says "." now and
-- then.  Other pages hold something for a while, and then nothing again.
local function strict_guest()
	local step, now_and_then = { guest.increment() }, {}
	for i = 0, pages - 1 do step[#step + 1] = guest.store_word(first + i * PAGE) end
	for i = 0, pages - 1 do step[#step + 1] = guest.unless(first + i * PAGE, guest.poweroff()) end
	for i = 0, pages - 1 do now_and_then[#now_and_then + 1] = guest.store(blinking + i * PAGE, 0x5a5a5a5a) end
	now_and_then[#now_and_then + 1] = guest.print "."
	for i = 0, pages - 1 do now_and_then[#now_and_then + 1] = guest.store(blinking + i * PAGE, 0) end
	now_and_then[#now_and_then + 1] = guest.load(zero)
	for i = 0, pages - 1 do
		now_and_then[#now_and_then + 1] = guest.unless(blinking + i * PAGE, guest.poweroff())
	end
	now_and_then[#now_and_then + 1] = guest.load(first)
	return guest.loop(table.concat(now_and_then) .. table.concat(step):rep(8))
end

-- Until it has said `dots` more; fails when it ends.
local function dots(vm, count)
	local cursor = select(2, assert(vm:console_from(0)))
	while count > 0 do
		local text
		text, cursor = assert(vm:console_from(cursor))
		count = count - #text
		assert.are.same({}, { vm:ended() })
	end
end

local function booted(folder, transport)
	local vm = assert(sm.vm.new {
		kernel = guest.write(folder:join "kernel", strict_guest()), memory_mib = 32, transport = transport,
	})
	assert(vm:resume())
	dots(vm, 2)
	return vm
end

-- A machine from the snapshot is consistent: it goes on counting.
local function sound(path, transport)
	local snapshot <close> = assert(sm.snapshot.open(path, { verify = true }))
	local vm <close> = assert(snapshot:restore { transport = transport })
	dots(vm, 3)
end

local function same_ram(one, two)
	assert.is_true(scratch.read(one .. "/ram") == scratch.read(two .. "/ram"), one .. ", " .. two)
end

for _, transport in ipairs { "direct", "worker" } do
	describe("a snapshot of a running machine (" .. transport .. ") #kvm", function()
		it("is of one moment, and the machine goes on", function()
			local folder <close> = folders.new()
			local vm <close> = booted(folder, transport)
			for i = 1, 5 do
				local path = folder:join("live" .. i)
				local times = assert(vm:snapshot(path))
				assert.is_true(times.rounds >= 2, times.rounds)
				assert.is_true(times.pause_us > 0 and times.pause_us < times.capture_us, times.pause_us)
				assert.is_true(times.written_bytes >= times.ram_bytes)
				assert.is_true(lfs.attributes(path .. "/ram", "blocks") * 512 <= times.ram_bytes + 64 * 1024)
				sound(path, transport)
				dots(vm, 1)
			end
			-- One that stands still is written once.
			assert(vm:pause())
			local times = assert(vm:snapshot(folder:join "paused"))
			assert.are.same({ 1, 0, times.ram_bytes }, { times.rounds, times.pause_us, times.written_bytes })
		end)

		it("that was restored is still known to differ from its origin", function()
			local folder <close> = folders.new()
			do
				local vm <close> = booted(folder, transport)
				assert(vm:snapshot(folder:join "origin"))
			end
			local origin <close> = assert(sm.snapshot.open(folder:join "origin"))
			local vm <close> = assert(origin:restore { transport = transport })
			dots(vm, 2)
			assert(vm:snapshot(folder:join "whole", {}))
			sound(folder:join "whole", transport)
			local times = assert(vm:snapshot(folder:join "child", {}, { diff = true }))
			assert.is_true(times.rounds >= 2 and times.ram_bytes < 4 * pages * PAGE, times.ram_bytes)
			sound(folder:join "child", transport)

			-- What was found while it ran counts when it stands still, too, and for the way back.
			assert(vm:pause())
			assert(vm:snapshot(folder:join "late", {}, { diff = true }))
			assert(vm:snapshot(folder:join "late-whole", {}))
			local late <close> = assert(sm.snapshot.open(folder:join "late"))
			assert(late:flatten(folder:join "late-flat"))
			same_ram(folder:join "late-whole", folder:join "late-flat")
			assert(vm:reset { paused = true })
			assert(vm:snapshot(folder:join "again", {}))
			same_ram(folder:join "origin", folder:join "again")
		end)

		it("that is paused, resumed and asked things meanwhile is none the worse", function()
			local folder <close> = folders.new()
			local vm <close> = booted(folder, transport)
			sm.run(function()
				local left = 6
				for i = 1, left do
					sm.go(function()
						assert(vm:snapshot(folder:join("at-once" .. i)))
						left = left - 1
					end)
				end
				sm.go(function()
					while left > 0 do
						assert(vm:pause())
						assert(vm:statistics())
						assert(vm:resume())
						scheduler.sleep(1)
					end
				end)
			end)
			for i = 1, 6 do sound(folder:join("at-once" .. i), transport) end
			dots(vm, 2)
		end)
	end)
end

describe("a snapshot of a running machine #kvm", function()
	it("that ends is none, and leaves nothing", function()
		local folder <close> = folders.new()
		local kernel = guest.write(folder:join "kernel", guest.poweroff())
		local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = 32 })
		assert(vm:resume())
		assert(vm:wait { timeout_ms = 60000 })
		local times, message, code = vm:snapshot(folder:join "none")
		assert.are.same({ nil, "ESHUTDOWN" }, { times, code })
		assert.matches("none: capture: pause: the machine has ended", message)
		assert.are.same({ "kernel" }, scratch.files(folder.path))
	end)
end)
