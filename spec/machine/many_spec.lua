local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local resources = require "spec.support.resources"
local sm = require "supermachine"

-- An emulated machine takes a hundred times as long for each.
local rounds = os.getenv "TESTHOST" and 100 or 1000

describe("many machines #kvm", function()
	it("built, run and closed in one process leave descriptors, threads and memory where they were", function()
		local folder <close> = folders.new()
		local kernel = guest.write(folder:join "kernel", guest.print "x" .. guest.spin())
		local function one()
			local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = 16, vcpus = 2 })
			assert(vm:resume())
		end
		-- The first few fill the allocator's pools and the threads' stacks.
		for _ = 1, 20 do one() end
		local before = resources.now()
		for _ = 1, rounds do one() end
		local after = resources.now()
		assert.are.equal(before.descriptors, after.descriptors)
		assert.are.equal(before.threads, after.threads)
		-- A leak of one page a machine would be 4 MiB for the thousand.  A sanitizer's own memory grows with every
		-- thread, and it looks for leaks by itself.
		if build.dir:match "/address$" or build.dir:match "/thread$" then return end
		assert.is_true(after.anonymous_kib - before.anonymous_kib < 2048,
			("memory grew from %d to %d KiB"):format(before.anonymous_kib, after.anonymous_kib))
	end)

	it("live side by side", function()
		local folder <close> = folders.new()
		local machines = {}
		for i = 1, 16 do
			local kernel = guest.write(folder:join("kernel" .. i), guest.print(("%02d"):format(i)) .. guest.spin())
			machines[i] = assert(sm.vm.new {
				kernel = kernel, memory_mib = 16, transport = i % 2 == 0 and "worker" or "direct",
			})
			assert(machines[i]:resume())
		end
		for i, vm in ipairs(machines) do
			local text = ""
			while #text < 2 do text = assert(vm:console()) end
			assert.are.equal(("%02d"):format(i), text)
			vm:close()
		end
	end)
end)
