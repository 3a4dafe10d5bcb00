-- Whatever a guest and its devices do, a reset undoes: random workloads, each compared with the snapshot byte by byte.
-- SUPERMACHINE_CYCLES=1000 for as many workloads.
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local machine_state = require "spec.support.machine_state"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"
local workload = require "spec.support.workload_x86_64"

local cycles <const> = math.tointeger(tonumber(os.getenv "SUPERMACHINE_CYCLES" or "24"))
local rounds <const> = 4 -- of one guest, which does something else each time

-- A snapshot of a guest that waits for its sign.
local function saved(folder, seed)
	local vm <close> = assert(sm.vm.new {
		kernel = guest.write(folder:join "kernel", workload.code(seed)), disks = { folder:join "disk" },
		memory_mib = workload.memory_mib, vcpus = workload.vcpus,
	})
	assert(vm:resume())
	while vm:console() ~= "ready" do end
	assert(vm:pause())
	assert(vm:snapshot(folder:join "origin"))
	return assert(sm.snapshot.open(folder:join "origin"))
end

-- Until so many things are done, or it has halted.  Adds what its devices have done meanwhile.
local function work(vm, things, done)
	assert(vm:resume())
	assert(vm:set_balloon(1))
	local text
	repeat
		text = assert(vm:console())
		local reason, detail = vm:ended()
		assert(not reason, ("%s: %s, after %q"):format(reason, detail, text))
	until #text >= things or text:find "h"
	for _, device in ipairs(assert(vm:devices())) do
		done[device.kind] = (done[device.kind] or 0) + device.requests
	end
	done.halts = done.halts + (text:find "h" and 1 or 0)
end

local function same(folder, ram, vm, what)
	local path = folder:join "after"
	assert(vm:snapshot(path))
	assert.is_true(ram == scratch.read(path .. "/ram"), what .. ": RAM")
	assert.are.equal("", machine_state.differences(folder:join "origin", path), what)
	scratch.remove(path)
end

describe("a reset after anything #kvm", function()
	it("has all RAM and state as it was saved", function()
		local folder <close> = folders.new()
		local done = { halts = 0 }
		folder:write("disk", ("0123456789abcde\n"):rep(workload.disk_bytes // 16))
		for seed = 1, (cycles + rounds - 1) // rounds do
			local snapshot <close> = saved(folder, seed)
			local ram = scratch.read(folder:join "origin/ram")
			local vm <close> = assert(snapshot:restore {
				paused = true, transport = seed % 2 == 0 and "worker" or "direct",
			})
			same(folder, ram, vm, ("seed %d, restored"):format(seed))
			for round = 1, rounds do
				work(vm, math.random(40), done)
				assert(vm:reset { paused = true })
				same(folder, ram, vm, ("seed %d, round %d"):format(seed, round))
			end
			scratch.remove(folder:join "origin")
		end
		-- Or nothing of this has been tried.
		for _, what in ipairs { "block", "rng", "halts" } do assert.is_true(done[what] > 0, what) end
	end)
end)
