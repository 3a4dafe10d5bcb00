-- From nothing to the first exit of a restored microguest, by vCPUs and by size of its (sparse) RAM, against a bare C
-- program that does the same system calls, where the architecture has one (floor_ARCH.c).
local build = require "spec.support.build"
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lfs = require "lfs"
local sm = require "supermachine"

local batches, runs = 20, 5 -- the two take turns, so that a noisy moment hits both

local floor_name = "floor_" .. guest.arch
local floor_program = build.dir .. "/spec/perf/" .. floor_name
local has_floor = lfs.attributes(floor_program) ~= nil

-- The median of some runs of the bare program, milliseconds.
local function floor_median(vcpus, memory_mib)
	local pipe = assert(io.popen(("%s %d %d %d"):format(floor_program, vcpus, runs, memory_mib)))
	local text = pipe:read "a"
	assert(pipe:close())
	return assert(tonumber(text:match "total%s+([%d.]+)"), text) / 1000
end

-- Nothing here looks again and again: that would take the processor from the one that is timed.
local function restore(snapshot)
	local vm <close> = assert(snapshot:restore { paused = true })
	assert(vm:resume())
	assert(vm:wait { timeout_ms = 60000 })
	local times = assert(vm:timings())
	return (times.total_us + times.first_run_us) / 1000, times.total_us / 1000
end

-- A disk, the vsock, random numbers, a balloon, and what each machine has.
local function snapshot_of(folder, vcpus, memory_mib)
	local disk = folder:join "disk"
	local file = assert(io.open(disk, "wb"))
	assert(file:write(("\0"):rep(1 << 20)))
	assert(file:close())
	local vm <close> = assert(sm.vm.new {
		kernel = guest.write(folder:join "kernel", guest.print "x" .. guest.poweroff()), memory_mib = memory_mib,
		vcpus = vcpus, disks = { disk },
	})
	assert(vm:snapshot(folder:join "snapshot"))
	return assert(sm.snapshot.open(folder:join "snapshot"))
end

local function measure(report, vcpus, memory_mib)
	local folder <close> = folders.new()
	local snapshot <close> = snapshot_of(folder, vcpus, memory_mib)
	local total, build_only, floor = {}, {}, {}
	for batch = 1, batches do
		for _ = 1, runs do total[#total + 1], build_only[#build_only + 1] = restore(snapshot) end
		if has_floor then floor[batch] = floor_median(vcpus, memory_mib) end
	end
	local case = ("%d-vcpu.%d-mib"):format(vcpus, memory_mib)
	report {
		name = "restore.first-exit." .. case, unit = "ms", samples = total,
		against = has_floor and "floor" or nil, against_samples = has_floor and floor or nil,
	}
	report { name = "restore.build." .. case, unit = "ms", samples = build_only }
end

-- Many at once, against as many one after the other, from nothing to all of them there.
local function measure_many(report, count)
	local folder <close> = folders.new()
	local snapshot <close> = snapshot_of(folder, 1, 256)
	local function timed(run)
		local start = core.now_ms()
		local machines = run()
		local took = core.now_ms() - start
		for _, vm in ipairs(machines) do vm:close() end
		return took
	end
	local many, each = {}, {}
	for run = 1, 2 * runs do
		many[run] = timed(function() return assert(snapshot:restore_many(count)) end)
		each[run] = timed(function()
			local machines = {}
			for i = 1, count do machines[i] = assert(snapshot:restore()) end
			return machines
		end)
	end
	report {
		name = "restore.many." .. count, unit = "ms", samples = many, against = "one by one", against_samples = each,
	}
end

return {
	tier = "direct",
	run = function(report)
		for _, memory_mib in ipairs { 256, 4096 } do
			for _, vcpus in ipairs { 1, 4 } do measure(report, vcpus, memory_mib) end
		end
		for _, count in ipairs { 4, 16 } do measure_many(report, count) end
	end,
}
