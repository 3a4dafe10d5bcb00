-- What one more idle machine costs, with hundreds of them there: of this process (Pss), and of the host (MemAvailable,
-- which has the process's own pages in it, too: all that one costs).  The latter against a bare C program that holds as
-- many virtual machines with one memory slot and the same vCPUs, the first of which has run (density_floor_ARCH.c).
-- What else allocates on the host meanwhile is in it as well: read the medians, of a quiet host.
--
-- Without hardware for nested pages, KVM keeps 10 bytes for each page of a guest: 640 KiB for 256 MiB.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lfs = require "lfs"
local memory = require "spec.support.memory"
local sm = require "supermachine"

local batches, each = 10, 50

local floor_program = build.dir .. "/spec/perf/density_floor_" .. guest.arch
local has_floor = lfs.attributes(floor_program) ~= nil

-- KiB of the host that a bare machine takes, by batch.
local function floor(memory_mib, vcpus)
	if not has_floor then return end
	local host = {}
	local pipe = assert(io.popen(("%s %d %d %d %d"):format(floor_program, batches, each, memory_mib, vcpus)))
	for line in pipe:lines() do host[#host + 1] = assert(tonumber(line), line) end
	assert(pipe:close() and #host == batches)
	return host
end

-- Says x, and sleeps.
local function snapshot_of(folder, memory_mib, vcpus)
	local kernel = guest.write(folder:join "kernel", guest.print "x" .. guest.idle())
	local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = memory_mib, vcpus = vcpus })
	assert(vm:resume())
	while vm:console() == "" do end
	assert(vm:pause())
	assert(vm:snapshot(folder:join "snapshot"))
	return assert(sm.snapshot.open(folder:join "snapshot"))
end

local function measure(report, memory_mib, vcpus)
	local folder <close> = folders.new()
	local snapshot <close> = snapshot_of(folder, memory_mib, vcpus)
	local bare = floor(memory_mib, vcpus)
	local clones, process, host = {}, {}, {}
	for batch = 1, batches do
		local before = memory.now()
		for _ = 1, each do clones[#clones + 1] = assert(snapshot:restore()) end
		local cost = memory.since(before, each)
		process[batch], host[batch] = cost.process_kib, cost.host_kib
	end
	for _, vm in ipairs(clones) do vm:close() end
	local name = ("%d-microguests.%d-mib.%d-vcpu"):format(batches * each, memory_mib, vcpus)
	report { name = "density.process." .. name, unit = "KiB", samples = process }
	report {
		name = "density.host." .. name, unit = "KiB", samples = host, against = bare and "bare VM", against_samples = bare,
	}
end

return {
	tier = "direct",
	run = function(report)
		measure(report, 16, 1)
		measure(report, 256, 1)
		measure(report, 16, 4)
	end,
}
