-- From nothing to the first exit of a restored microguest, against a bare C program that does the same system calls,
-- where the architecture has one (floor_ARCH.c).
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lfs = require "lfs"
local sm = require "supermachine"

local batches, runs = 10, 10 -- the two take turns, so that a noisy moment hits both

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

local function restore(snapshot)
	local vm <close> = assert(snapshot:restore { paused = true })
	assert(vm:resume())
	local first
	repeat first = vm:statistics().first_exit_us until first > 0
	local build_ms = vm:times().total_us / 1000
	return build_ms + first / 1000, build_ms
end

local function measure(report, vcpus)
	local memory_mib = 128
	local folder <close> = folders.new()
	local kernel = guest.write(folder:join "kernel", guest.loop(guest.print "x"))
	do
		local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = memory_mib, vcpus = vcpus })
		assert(vm:resume())
		while vm:console() == "" do end
		assert(vm:pause())
		assert(vm:snapshot(folder:join "snapshot"))
	end
	local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot"))
	local total, build_only, floor = {}, {}, {}
	for batch = 1, batches do
		for _ = 1, runs do total[#total + 1], build_only[#build_only + 1] = restore(snapshot) end
		if has_floor then floor[batch] = floor_median(vcpus, memory_mib) end
	end
	report {
		name = ("restore.first-exit.%d-vcpu"):format(vcpus), unit = "ms", samples = total,
		against = has_floor and floor_name .. ".c" or nil, against_samples = has_floor and floor or nil,
	}
	report { name = ("restore.build.%d-vcpu"):format(vcpus), unit = "ms", samples = build_only }
end

return {
	tier = "direct",
	run = function(report)
		measure(report, 1)
		measure(report, 4)
	end,
}
