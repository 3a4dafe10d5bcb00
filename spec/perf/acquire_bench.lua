-- What taking a machine that is ready costs the one who asks: time, and processor time of the calling thread.
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local sm = require "supermachine"

local runs <const> = 500

-- Says x, and sleeps.
local function snapshot_of(folder)
	local kernel = guest.write(folder:join "kernel", guest.print "x" .. guest.idle())
	local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = 16 })
	assert(vm:resume())
	while vm:console() == "" do end
	assert(vm:pause())
	assert(vm:snapshot(folder:join "snapshot"))
	return assert(sm.snapshot.open(folder:join "snapshot"))
end

return {
	tier = "direct",
	run = function(report)
		local folder <close> = folders.new()
		local snapshot <close> = snapshot_of(folder)
		local pool <close> = assert(sm.pool.new(snapshot, { min = 2, max = 4 }))
		local wall, cpu = {}, {}
		for i = 1, runs do
			while pool:stats().ready == 0 do end
			local start, cpu_start = core.now_ms(), core.thread_cpu_us()
			local vm = assert(pool:acquire())
			cpu[i] = core.thread_cpu_us() - cpu_start
			wall[i] = (core.now_ms() - start) * 1000
			vm:close()
		end
		report { name = "acquire.wall", unit = "us", samples = wall }
		report { name = "acquire.cpu", unit = "us", samples = cpu }
	end,
}
