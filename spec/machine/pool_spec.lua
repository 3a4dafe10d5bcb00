local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local scheduler = require "supermachine.scheduler"
local sm = require "supermachine"

local function snapshot_of(folder, name, code)
	local vm <close> = assert(sm.vm.new { kernel = guest.write(folder:join(name .. "-kernel"), code), memory_mib = 16 })
	assert(vm:snapshot(folder:join(name)))
	return assert(sm.snapshot.open(folder:join(name)))
end

describe("a pool #kvm", function()
	local folder, snapshot

	setup(function()
		folder = folders.new()
		snapshot = snapshot_of(folder, "plain", guest.loop(guest.print "x"))
	end)
	teardown(function()
		snapshot:close()
		folder:close()
	end)

	it("hands out machines that run, each once, and counts them", function()
		local pool <close> = assert(sm.pool.new(snapshot, { min = 2, max = 3 }))
		local one <close> = assert(pool:acquire())
		local two <close> = assert(pool:acquire())
		assert.are_not.equal(one, two)
		local text = ""
		while text == "" do text = assert(one:console()) end
		assert.matches("^x", text)
		assert.are.equal(2, pool:stats().in_use)
		one:close()
		assert.are.equal(1, pool:stats().in_use)
		assert.are.equal(2, pool:stats().handed_out)
	end)

	it("waits for a place at the maximum, and says so when the time is up", function()
		local pool <close> = assert(sm.pool.new(snapshot, { min = 0, max = 1 }))
		local one <close> = assert(pool:acquire())
		local none, message, code = pool:acquire { timeout_ms = 30 }
		assert.is_nil(none)
		assert.are.equal("ETIMEDOUT", code)
		assert.matches("at most 1", message)
		one:close()
		local two <close> = assert(pool:acquire { timeout_ms = 20000 })
		assert.is_truthy(two)
	end)

	it("serves many askers at once", function()
		local pool <close> = assert(sm.pool.new(snapshot, { min = 1, max = 4 }))
		local served = 0
		sm.run(function()
			for _ = 1, 12 do
				sm.go(function()
					local vm <close> = assert(pool:acquire { timeout_ms = 60000 })
					assert(vm:plan())
					served = served + 1
				end)
			end
		end)
		assert.are.equal(12, served)
		assert.are.equal(0, pool:stats().in_use)
	end)

	it("may be closed before the machines it handed out", function()
		local pool = assert(sm.pool.new(snapshot, { min = 1, max = 2 }))
		local vm = assert(pool:acquire())
		pool:close()
		assert(vm:pause())
		vm:close()
		assert.has_error(function() pool:stats() end)
	end)

	-- The guest's first words since the machine was made or put back.
	local function console(vm, bytes)
		local text = ""
		while #text < bytes do text = assert(vm:console()) end
		return text
	end
	-- Let the pool's threads get on until `done`.
	local function await(pool, done)
		while not done(pool:stats()) do assert(pool:stats().failed == 0) end
	end

	it("puts what comes back to what the snapshot says, without making a new machine", function()
		local counting <close> = snapshot_of(folder, "counting", guest.loop(guest.load(guest.scratch) .. guest.increment()
			.. guest.store_word(guest.scratch) .. guest.print_word()))
		local pool <close> = assert(sm.pool.new(counting, { min = 1, max = 1 }))
		local first, stats
		for round = 1, 6 do
			local vm <close> = assert(pool:acquire { timeout_ms = 60000 })
			local text = console(vm, 64)
			first = first or text:sub(1, 8)
			assert.are.equal(first, text:sub(1, 8), "round " .. round)
			stats = pool:stats() -- before this one goes back, too
		end
		assert.are.equal(1, stats.restored)
		assert.are.equal(5, stats.recycled)
		assert.is_true(stats.reset_p50_us > 0 and stats.reset_p50_us <= stats.recycle_p99_us)
	end)

	it("hands out again what is not to be reset, and closes what is to be closed", function()
		local never <close> = assert(sm.pool.new(snapshot, { min = 1, max = 1, reset = "never" }))
		local vm = assert(never:acquire())
		console(vm, 4)
		assert(vm:pause())
		local before = #vm:console()
		vm:close()
		vm = assert(never:acquire { timeout_ms = 60000 })
		assert.is_true(#vm:console() >= before)
		console(vm, before + 1)
		vm:close()
		assert.are.equal(1, never:stats().restored)
		local close <close> = assert(sm.pool.new(snapshot, { min = 0, max = 1, reset = "close" }))
		assert(close:acquire()):close()
		assert(close:acquire { timeout_ms = 60000 }):close()
		assert.are.equal(2, close:stats().restored)
		assert.has_error(function() sm.pool.new(snapshot, { reset = "sometimes" }) end)
	end)

	it("serves in the order of asking", function()
		local pool <close> = assert(sm.pool.new(snapshot, { min = 0, max = 1 }))
		local held = assert(pool:acquire())
		local asked = {}
		for i = 1, 5 do
			asked[i] = assert(pool:acquire_begin(60000))
			-- It waits before the next one asks.
			await(pool, function(stats) return stats.waiting == i end)
		end
		held:close()
		-- Each is given the machine only when the one before has put it back: out of order, this would wait for ever.
		for i = 1, 5 do
			local vm = assert(scheduler.finish(asked[i], 60000))
			assert.are.equal(5 - i, pool:stats().waiting)
			vm:close()
		end
	end)

	it("never hands out a machine that has ended", function()
		local dying <close> = snapshot_of(folder, "dying", guest.poweroff())
		local pool <close> = assert(sm.pool.new(dying, { min = 1, max = 1 }))
		local vm = assert(pool:acquire())
		assert.are.equal("poweroff", (vm:wait { timeout_ms = 60000 }))
		vm:close()
		assert.are.equal(0, pool:stats().recycled)
		-- Those that end while they are ready are counted, and others are made.
		while pool:stats().failed < 2 do
			local next, message, code = pool:acquire { timeout_ms = 1000 }
			assert.is_true(next ~= nil or code == "ETIMEDOUT", message)
			if next then next:close() end
		end
	end)

	it("closes what nobody wants", function()
		local pool <close> = assert(sm.pool.new(snapshot, { min = 0, max = 2, idle_ms = 1 }))
		local vm = assert(pool:acquire())
		vm:close()
		await(pool, function(stats) return stats.recycled == 1 and stats.ready == 0 and stats.recycling == 0 end)
		assert(pool:acquire { timeout_ms = 60000 }):close()
		assert.are.equal(2, pool:stats().restored)
	end)

	it("drains: waits for all that is out, and hands out no more", function()
		local pool <close> = assert(sm.pool.new(snapshot, { min = 1, max = 2 }))
		local vm = assert(pool:acquire())
		local ok, message, code = pool:drain { timeout_ms = 1 }
		assert.is_nil(ok)
		assert.matches("1 machines are still in use", message)
		assert.are.equal("ETIMEDOUT", code)
		local none
		none, message, code = pool:acquire()
		assert.is_nil(none)
		assert.matches("drained", message)
		assert.are.equal("ESHUTDOWN", code)
		local draining = assert(pool:drain_begin(60000))
		vm:close()
		assert(scheduler.finish(draining))
		assert.are.equal(0, pool:stats().in_use)
		assert(pool:drain())
	end)

	it("closed, tells those who wait", function()
		local pool = assert(sm.pool.new(snapshot, { min = 0, max = 1 }))
		local held = assert(pool:acquire())
		local asked = assert(pool:acquire_begin(60000))
		await(pool, function(stats) return stats.waiting == 1 end)
		pool:close()
		local none, message, code = scheduler.finish(asked)
		assert.is_nil(none)
		assert.matches("the pool was closed", message)
		assert.are.equal("ECANCELED", code)
		held:close()
	end)

	it("refuses limits that make no sense", function()
		for _, limits in ipairs { { min = 5, max = 4 }, { min = 0, max = 0 }, { min = -1 }, { max = 100000 } } do
			local pool, message, code = sm.pool.new(snapshot, limits)
			assert.is_nil(pool)
			assert.are.equal("EINVAL", code)
			assert.matches("min.*max", message)
		end
	end)
end)
