-- A pool in use for long: nothing fails, and nothing grows.
local build = require "spec.support.build"
local lab = require "spec.support.lab"
local resources = require "spec.support.resources"
local scheduler = require "supermachine.scheduler"
local sm = require "supermachine"

-- SUPERMACHINE_CYCLES=2000 for a soak.
local cycles = math.tointeger(tonumber(os.getenv "SUPERMACHINE_CYCLES" or "32"))
local machines <const> = 8

describe("a pool in use #lab", function()
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
		-- All are back: as many threads and descriptors as before.
		while pool:stats().ready < machines do
			assert.are.equal(0, pool:stats().failed)
			scheduler.sleep(5)
		end
	end

	it(("takes %d turns of 8 machines with 4 vCPUs, and none fails, and nothing grows"):format(cycles), function()
		local snapshot <close> = lab.snapshot { memory_mib = 128, vcpus = 4 }
		local pool <close> = assert(sm.pool.new(snapshot, { min = machines, max = machines }))
		use_all(pool, 2 * machines)
		local before = resources.now()
		use_all(pool, cycles)
		local after, stats = resources.now(), pool:stats()
		assert.are.same({ 0, machines, 0 }, { stats.failed, stats.restored, stats.in_use })
		assert.are.equal(before.descriptors, after.descriptors)
		assert.are.equal(before.threads, after.threads)
		if build.dir:match "/address$" or build.dir:match "/thread$" then return end
		-- A page a turn would be 8 MiB for 2,000; what the guests' last turns have written differs by some.
		assert.is_true(after.anonymous_kib - before.anonymous_kib < 6144,
			("memory grew from %d to %d KiB"):format(before.anonymous_kib, after.anonymous_kib))
	end)
end)
