local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local sm = require "supermachine"

local function snapshot_of(folder, code)
	local vm <close> = assert(sm.vm.new { kernel = guest.write(folder:join "kernel", code), memory_mib = 16 })
	assert(vm:snapshot(folder:join "snapshot"))
	return assert(sm.snapshot.open(folder:join "snapshot"))
end

describe("a pool #kvm", function()
	local folder, snapshot

	setup(function()
		folder = folders.new()
		snapshot = snapshot_of(folder, guest.loop(guest.print "x"))
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

	it("refuses limits that make no sense", function()
		for _, limits in ipairs { { min = 5, max = 4 }, { min = 0, max = 0 }, { min = -1 }, { max = 100000 } } do
			local pool, message, code = sm.pool.new(snapshot, limits)
			assert.is_nil(pool)
			assert.are.equal("EINVAL", code)
			assert.matches("min.*max", message)
		end
	end)
end)
