local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local function snapshot_in(folder)
	local vm <close> = assert(sm.vm.new {
		kernel = guest.write(folder:join "kernel", guest.print "x" .. guest.poweroff()), memory_mib = 16, vcpus = 2,
	})
	assert(vm:snapshot(folder:join "snapshot", { colour = "blue" }))
	return assert(sm.snapshot.open(folder:join "snapshot"))
end

for _, transport in ipairs { "direct", "worker" } do
	describe("many machines restored at once (" .. transport .. ") #kvm", function()
		it("are all there, each one's own", function()
			local folder <close> = folders.new()
			local snapshot <close> = snapshot_in(folder)
			local machines = assert(snapshot:restore_many(5, { transport = transport }))
			assert.are.equal(5, #machines)
			local ids = {}
			for _, vm in ipairs(machines) do
				assert.are.equal("poweroff", (vm:wait { timeout_ms = 20000 }))
				assert.are.equal("x", vm:console())
				assert.is_nil(ids[vm:id()])
				ids[vm:id()] = true
				vm:close()
			end
		end)

		it("may be paused, and then are as they were saved", function()
			local folder <close> = folders.new()
			local snapshot <close> = snapshot_in(folder)
			for _, vm in ipairs(assert(snapshot:restore_many(2, { transport = transport, paused = true }))) do
				assert.are.same({ "" }, { vm:console(), vm:id() })
				vm:close()
			end
		end)
	end)
end

describe("many machines restored at once #kvm", function()
	it("let other tasks run meanwhile", function()
		local folder <close> = folders.new()
		local snapshot <close> = snapshot_in(folder)
		local order = {}
		sm.run(function()
			sm.go(function() order[#order + 1] = "other" end)
			local machines = assert(snapshot:restore_many(3))
			order[#order + 1] = "restored"
			for _, vm in ipairs(machines) do vm:close() end
		end)
		assert.are.same({ "other", "restored" }, order)
	end)

	it("are all closed when one fails, and the failure says which", function()
		local folder <close> = folders.new()
		local snapshot <close> = snapshot_in(folder)
		local none, message, code = snapshot:restore_many(3, { device = "/dev/null" })
		assert.are.same({ nil, "EOPNOTSUPP" }, { none, code })
		assert.matches("^machine [1-3] of 3: snapshot .*/snapshot: restore: .*not a KVM device", message)
		-- A process that has no descriptors left after some.
		local script = folder:join "script.lua"
		scratch.write(script, [[
			local lfs, sm = require "lfs", require "supermachine"
			local function resources()
				collectgarbage()
				local descriptors, threads = 0, 0
				for _ in lfs.dir "/proc/self/fd" do descriptors = descriptors + 1 end
				for name in lfs.dir "/proc/self/task" do threads = threads + 1 end
				return descriptors .. " " .. threads
			end
			local snapshot <close> = assert(sm.snapshot.open(arg[1]))
			for _, vm in ipairs(assert(snapshot:restore_many(2))) do vm:close() end
			local before = resources()
			local machines, message, code = snapshot:restore_many(8)
			-- A thread that was joined is in /proc for a moment yet.
			for _ = 1, 200 do
				if before == resources() then break end
				require("supermachine.scheduler").sleep(5)
			end
			print(machines, message, code, before == resources())]])
		local said = scratch.run(("ulimit -n 100; '%s/supermachine' %s %s"):format(build.dir, script, snapshot:path()))
		assert.matches("^nil\tmachine [3-8] of 8: .*\tEMFILE\ttrue", said)
	end)

	it("are from 1 to 4096", function()
		local folder <close> = folders.new()
		local snapshot <close> = snapshot_in(folder)
		for _, count in ipairs { 0, -1, 4097, 1.5, "2" } do
			assert.has_error(function() snapshot:restore_many(count) end,
				"restore_many: an integer from 1 to 4096 expected, got " .. tostring(count))
		end
	end)

	it("cannot be of another size, one or many", function()
		local folder <close> = folders.new()
		local snapshot <close> = snapshot_in(folder)
		for option, own in pairs { memory_mib = 16, vcpus = 2 } do
			local words = ("option '%s': it is the snapshot's own, %d, and cannot be changed at a restore"):format(option, own)
			assert.has_error(function() snapshot:restore { [option] = 64 } end, words)
			assert.has_error(function() snapshot:restore_many(2, { [option] = 64 }) end, words)
		end
	end)
end)
