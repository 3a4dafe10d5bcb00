-- From nothing to the first exit of a restored microguest, against a bare C program that does the same system calls.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local sm = require "supermachine"

local runs = 50

-- Microseconds of each run of spec/perf/floor.c.
local function floor_samples(vcpus, memory_mib)
	local command = ("%s/spec/perf/floor --vcpus=%d --memory-mib=%d --runs=%d --samples"):format(build.dir, vcpus,
		memory_mib, runs)
	local pipe = assert(io.popen(command))
	local samples = {}
	for line in pipe:lines() do samples[#samples + 1] = assert(tonumber(line), line) / 1000 end
	assert(pipe:close())
	return samples
end

local function measure(report, vcpus)
	local memory_mib = 128
	local folder <close> = folders.new()
	local kernel = guest.write(folder:join "kernel", guest.loop(guest.out8(0x3f8, 120)))
	do
		local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = memory_mib, vcpus = vcpus })
		assert(vm:resume())
		while vm:console() == "" do end
		assert(vm:pause())
		assert(vm:snapshot(folder:join "snapshot"))
	end
	local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot"))
	local total, build_only = {}, {}
	for i = 1, runs do
		local vm <close> = assert(snapshot:restore { paused = true })
		assert(vm:resume())
		local first
		repeat first = vm:statistics().first_exit_us until first > 0
		build_only[i] = vm:times().total_us / 1000
		total[i] = build_only[i] + first / 1000
	end
	report {
		name = ("restore.first-exit.%d-vcpu"):format(vcpus), unit = "ms", samples = total, against = "floor.c",
		against_samples = floor_samples(vcpus, memory_mib),
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
