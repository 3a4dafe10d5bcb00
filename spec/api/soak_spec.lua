-- A pool in use for long: nothing fails, and nothing grows.
local build = require "spec.support.build"
local lab = require "spec.support.lab"
local resources = require "spec.support.resources"
local scheduler = require "supermachine.scheduler"
local sm = require "supermachine"

-- SUPERMACHINE_CYCLES=2000 SUPERMACHINE_VCPUS=4 for a soak.
local cycles = math.tointeger(tonumber(os.getenv "SUPERMACHINE_CYCLES" or "24"))
local vcpus = math.tointeger(tonumber((os.getenv "SUPERMACHINE_VCPUS" or "1"):match "%d+"))
local machines <const> = 8
-- What the guests' turns write differs by so much, each machine.
local turn_kib <const> = 4096

describe("a pool in use #lab", function()
	-- Until all are back: as many threads and descriptors as before.
	local function await_all(pool)
		while pool:stats().ready < machines do
			assert.are.equal(0, pool:stats().failed)
			scheduler.sleep(5)
		end
	end

	local function use(pool, cycle)
		local vm <close> = assert(pool:acquire { timeout_ms = 120000 })
		local word = ("cycle-%d"):format(cycle)
		-- What the last user wrote is gone; what this one writes is there.
		assert.are.equal(word, lab.shell(vm, "cat /dev/shm/mine 2>/dev/null; echo " .. word .. " | tee /dev/shm/mine"))
	end

	-- `count` uses, as many at once as there are machines.
	local function use_all(pool, count)
		local cycle = 0
		sm.run(function()
			for _ = 1, machines do
				sm.go(function()
					while cycle < count do
						cycle = cycle + 1
						use(pool, cycle)
					end
				end)
			end
		end)
		assert.are.equal(count, cycle)
		await_all(pool)
	end

	-- Each has been used: what a turn writes is private memory from the first on.
	local function use_each(pool)
		local all = {}
		for i = 1, machines do
			all[i] = assert(pool:acquire { timeout_ms = 120000 })
			lab.shell(all[i], "echo " .. i .. " >/dev/shm/mine")
		end
		for _, vm in ipairs(all) do vm:close() end
		await_all(pool)
	end

	-- What a machine had open for its identity may close just after it is ready.
	local function settled(before)
		local now = resources.now()
		for _ = 1, 100 do
			if now.descriptors <= before.descriptors then break end
			scheduler.sleep(20)
			now = resources.now()
		end
		return now
	end

	local name = ("takes %d turns of 8 machines with %d vCPUs, and none fails, and nothing grows"):format(cycles, vcpus)
	it(name, function()
		local snapshot <close> = lab.snapshot { memory_mib = 128, vcpus = vcpus }
		local pool <close> = assert(sm.pool.new(snapshot, { min = machines, max = machines }))
		for _ = 1, 2 do use_each(pool) end
		local before = resources.now()
		use_all(pool, cycles)
		local after, stats = settled(before), pool:stats()
		assert.are.same({ 0, machines, 0 }, { stats.failed, stats.restored, stats.in_use })
		assert.are.equal(before.descriptors, after.descriptors)
		assert.are.equal(before.threads, after.threads)
		if build.dir:match "/address$" or build.dir:match "/thread$" then return end
		assert.is_true(after.anonymous_kib - before.anonymous_kib < machines * turn_kib,
			("memory grew from %d to %d KiB"):format(before.anonymous_kib, after.anonymous_kib))
	end)
end)
