-- What one more idle Linux guest costs, with many of them there: of this process (Pss), and of the host (MemAvailable,
-- which has the process's own pages in it, too: all that one costs).  Each clone of one snapshot of 256 MiB has run a
-- process and then idled for 10 s; and again, after it was reset, and ran a process, 50 times.  The snapshot's warm-up
-- has run that process once, so what is read for it is in the snapshot, where all share it.
--
-- SUPERMACHINE_DENSITY=100 for as many clones, which takes a quarter of an hour in an emulated host.
local lab = require "spec.support.lab"
local memory = require "spec.support.memory"
local scheduler = require "supermachine.scheduler"

local idle_ms <const>, recycles <const> = 10000, 50

local function exec(vm) assert(assert(vm:exec({ "true" }, { timeout_ms = 60000 })).code == 0) end

local function restored(snapshot, count)
	local clones = {}
	for i = 1, count do
		clones[i] = assert(snapshot:restore())
		exec(clones[i])
	end
	scheduler.sleep(idle_ms)
	return clones
end

local function recycle(clones)
	for _, vm in ipairs(clones) do
		assert(vm:reset())
		exec(vm)
	end
end

return {
	tier = "lab",
	run = function(report)
		local wanted = tonumber(os.getenv "SUPERMACHINE_DENSITY" or "24")
		local snapshot <close> = lab.snapshot { memory_mib = 256, warmup = { "true" } }
		-- The first has to itself what all share.
		local first <close> = assert(snapshot:restore())
		exec(first)
		scheduler.sleep(idle_ms)

		local before = memory.now()
		local clones = restored(snapshot, wanted)
		local function say(what)
			local each = memory.since(before, #clones)
			local name = ("%d-guests.256-mib.%s"):format(#clones, what)
			report { name = "density.process." .. name, unit = "MiB", samples = { each.process_kib / 1024 } }
			report { name = "density.host." .. name, unit = "MiB", samples = { each.host_kib / 1024 } }
		end
		say "idle"
		for _ = 1, recycles do recycle(clones) end
		scheduler.sleep(idle_ms)
		say(recycles .. "-recycles")
		for _, vm in ipairs(clones) do vm:close() end
	end,
}
