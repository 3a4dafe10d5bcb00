-- What a user waits for, with a Linux guest: boot to the agent, snapshot, restore to an exec's answer, acquire, exec.
-- The peer of the fast ways is the slow one: booting the same image for each answer.
local core = require "supermachine.core"
local lab = require "spec.support.lab"
local scheduler = require "supermachine.scheduler"
local sm = require "supermachine"

local runs = 10

local function since(start) return core.now_ms() - start end

local function exec(vm) assert(assert(vm:exec({ "true" }, { timeout_ms = 60000 })).code == 0) end

local function boots(image)
	local boot, answer, capture = {}, {}, {}
	for i = 1, 3 do
		local start = core.now_ms()
		local vm <close> = assert(image:boot { memory_mib = 128 })
		boot[i] = since(start)
		exec(vm)
		answer[i] = since(start)
		assert(vm:pause())
		local folder = lab.store() .. "/bench" .. i
		start = core.now_ms()
		assert(vm:snapshot(folder))
		capture[i] = since(start)
		assert(core.remove_tree(folder))
	end
	return boot, answer, capture
end

local function restores(snapshot)
	local answer, close = {}, {}
	for i = 1, runs do
		local start = core.now_ms()
		local vm = assert(snapshot:restore())
		exec(vm)
		answer[i] = since(start)
		start = core.now_ms()
		vm:close()
		close[i] = since(start)
	end
	return answer, close
end

-- After an exec, until the agent has answered again; and of that, until all was as it had been.
local function resets(snapshot)
	local ready, reset = {}, {}
	local vm <close> = assert(snapshot:restore())
	for i = 1, runs do
		exec(vm)
		local start = core.now_ms()
		local result = assert(vm:reset())
		ready[i], reset[i] = since(start), result.total_us / 1000
	end
	return ready, reset
end

local function acquires(snapshot)
	local acquire, cpu, round_trip, ping = {}, {}, {}, {}
	local pool <close> = assert(sm.pool.new(snapshot, { min = 1, max = 2 }))
	for _ = 1, runs do
		-- Between requests the pool has time to refill.
		while pool:stats().ready == 0 do scheduler.sleep(5) end
		local start, cpu_start = core.now_ms(), core.thread_cpu_us()
		local vm <close> = assert(pool:acquire())
		cpu[#cpu + 1] = core.thread_cpu_us() - cpu_start
		acquire[#acquire + 1] = since(start)
		start = core.now_ms()
		exec(vm)
		round_trip[#round_trip + 1] = since(start)
		start = core.now_ms()
		assert(vm:command "ping")
		ping[#ping + 1] = since(start)
	end
	return acquire, cpu, round_trip, ping
end

return {
	tier = "lab",
	run = function(report)
		local image = lab.image "busybox"
		local boot, boot_answer, capture = boots(image)
		report { name = "boot.agent", unit = "ms", samples = boot }
		report { name = "boot.exec", unit = "ms", samples = boot_answer }
		report { name = "snapshot.save", unit = "ms", samples = capture }
		local snapshot <close> = lab.snapshot()
		local answer, close = restores(snapshot)
		report {
			name = "restore.exec", unit = "ms", samples = answer, against = "boot.exec", against_samples = boot_answer,
		}
		report { name = "restore.close", unit = "ms", samples = close }
		local ready, reset = resets(snapshot)
		report {
			name = "recycle.ready", unit = "ms", samples = ready, against = "restore.exec", against_samples = answer,
		}
		report { name = "recycle.reset", unit = "ms", samples = reset }
		local acquire, cpu, round_trip, ping = acquires(snapshot)
		report { name = "acquire.ready", unit = "ms", samples = acquire, against = "restore.exec", against_samples = answer }
		report { name = "acquire.cpu", unit = "us", samples = cpu }
		report { name = "exec.round-trip", unit = "ms", samples = round_trip, against = "agent ping", against_samples = ping }
	end,
}
