-- A restored microguest that reads 256 pages, scattered over 96 MiB that are all full, with its working set read ahead
-- and without: from nothing to the last page, with none of the RAM file in memory, and with all of it; and one that
-- reads and writes them, which are its own beforehand where there is a set.  How much is won on a cold file is up to
-- the disk, and to its own read-ahead (/sys/block/DISK/queue/read_ahead_kb).
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local MIB <const> = 1 << 20
local PAGE <const> = 4096
local pages <const>, full_mib <const> = 256, 96
local cold_runs <const>, warm_runs <const> = 15, 60

local function snapshot_of(folder, writes)
	local code, seen = {}, {}
	math.randomseed(7)
	while #code < pages do
		local page = math.random(0, full_mib * MIB // PAGE - 1)
		local address = guest.entry + 2 * MIB + page * PAGE
		if not seen[page] then code[#code + 1] = guest.load(address) .. (writes and guest.store(address, 1) or "") end
		seen[page] = true
	end
	code = table.concat(code) .. guest.poweroff()
	local kernel = guest.write(folder:join "kernel", code .. ("x"):rep((full_mib + 2) * MIB - #code))
	local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = 256 })
	assert(vm:snapshot(folder:join "snapshot"))
	return folder:join "snapshot"
end

-- A first restore, milliseconds; the machine, whose guest has ended, goes to `use`.
local function restore(path, prefetch, use)
	local snapshot <close> = assert(sm.snapshot.open(path, { prefetch = prefetch }))
	local start = core.now_ms()
	local vm <close> = assert(snapshot:restore { paused = true, learn = use ~= nil })
	assert(vm:resume())
	assert(vm:wait { timeout_ms = 60000 })
	local took = core.now_ms() - start
	if use then use(vm) end
	return took
end

local function measure(report, case, runs, path, prepare)
	local on, off = {}, {}
	for run = 1, runs do
		prepare()
		on[run] = restore(path, true)
		prepare()
		off[run] = restore(path, false)
	end
	report {
		name = ("restore.%s.%d-pages"):format(case, pages), unit = "ms", samples = on, against = "no prefetch",
		against_samples = off,
	}
end

return {
	tier = "direct",
	run = function(report)
		local folder <close> = folders.new()
		local path = snapshot_of(folder)
		restore(path, true, function(vm) assert(vm:learn()) end)
		measure(report, "cold", cold_runs, path, function()
			scratch.run(("dd if=%s/ram iflag=nocache count=0"):format(path))
		end)
		restore(path, false)
		measure(report, "warm", warm_runs, path, function() collectgarbage() end)

		local other <close> = folders.new()
		path = snapshot_of(other, true)
		restore(path, true, function(vm) assert(vm:learn()) end)
		measure(report, "written", warm_runs, path, function() collectgarbage() end)
	end,
}
