-- A machine with a mount, whose kernel of a few hundred instructions drives the device, and is always at it.
-- SUPERMACHINE_CYCLES=1000 for as many snapshots and restores of one that reads.
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lfs = require "lfs"
local micro = require "spec.support.micro_fs_x86_64"
local resources = require "spec.support.resources"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local MIB <const> = 1 << 20
local cycles <const> = math.tointeger(tonumber(os.getenv "SUPERMACHINE_CYCLES" or "20"))

local function console(vm, bytes)
	local text, cursor, limit = "", 0, os.time() + 60 -- for what never comes
	while #text < bytes do
		local chunk
		assert.is_nil((vm:ended()))
		assert.is_true(os.time() < limit, "the guest says no more")
		chunk, cursor = assert(vm:console_from(cursor))
		text = text .. chunk
	end
	return text
end

for _, transport in ipairs { "direct", "worker" } do
	describe("a machine with a mount (" .. transport .. ") #kvm", function()
		local folder, source, other
		before_each(function()
			folder, source, other = folders.new(), folders.new(), folders.new()
			source:write("data", ("here"):rep(MIB // 4))
			other:write("data", "else")
		end)
		after_each(function()
			for _, each in ipairs { folder, source, other } do each:close() end
		end)

		-- Opens the file and reads it again and again, each time anew; with `slots`, of what a restore puts behind it.
		local function machine(slots)
			local drive = micro.driver(core.plan {
				memory_mib = 16, mounts = slots and 0 or 1, mount_slots = slots, dax_mib = 0,
			})
			local code = drive.start()
			local open, node, handle = drive.open("data", 0)
			-- So much that it is mostly inside a request.
			local read, at = drive.read(node, handle, MIB, 8 * MIB)
			code = code .. open .. read .. guest.loop(drive.again() .. guest.load(at) .. guest.print_word())
			return assert(sm.vm.new {
				kernel = guest.write(folder:join "kernel", slots and guest.print "wait" .. guest.loop(code) or code),
				memory_mib = 16, dax_mib = 0, transport = transport, mount_slots = slots,
				mounts = not slots and { { host = source.path, guest = "/src" } } or nil,
			})
		end
		local function fs_of(vm)
			for _, device in ipairs(assert(vm:devices())) do if device.fs then return device.fs end end
		end
		local function put(text)
			local file <close> = assert(io.open(source:join "data", "r+"))
			assert(file:write(text))
		end
		-- Of devices, in the process that has the machine.
		local function threads(vm)
			local pid, count = vm:pid() or scratch.read("/proc/self/stat"):match "^%d+", 0
			for task in lfs.dir(("/proc/%s/task"):format(pid)) do
				local file = io.open(("/proc/%s/task/%s/comm"):format(pid, task))
				if file then
					count = count + (file:read "l" == "virtio" and 1 or 0)
					file:close()
				end
			end
			return count
		end

		it("reads what is there now", function()
			local vm <close> = machine()
			assert(vm:resume())
			assert.are.equal("hereherehere", console(vm, 12):sub(1, 12))
			put "next"
			local seen = #vm:console()
			assert.is_truthy(console(vm, seen + 4096):find("nextnext", 1, true))
			assert.is_true(fs_of(vm).requests > 10)
			assert.are.equal(0, fs_of(vm).errors)
			assert.are.equal(1, fs_of(vm).handles)
		end)

		it("is saved while it reads, and its clones go on, each as the folder is now", function()
			local vm <close> = machine()
			assert(vm:resume())
			console(vm, 64)
			for round = 1, 5 do
				local path = folder:join("snapshot" .. round)
				assert(vm:snapshot(path, {}))
				put(("%04d"):format(round))
				local snapshot <close> = assert(sm.snapshot.open(path))
				local clone <close> = assert(snapshot:restore { transport = transport, paused = true })
				assert(clone:resume())
				assert.is_truthy(console(clone, 256):find(("%04d"):format(round), 1, true))
				assert.is_nil(console(clone, 256):find("[^%dhera]"))
			end
			-- The one that was saved is still at it.
			local seen = #vm:console()
			assert.is_truthy(console(vm, seen + 4096):find("00050005", 1, true))
		end)

		it(("goes on through %d snapshots and restores, its file open, and leaves nothing behind"):format(cycles), function()
			local vm, before = machine(), nil
			finally(function() vm:close() end)
			assert(vm:resume())
			for cycle = 1, cycles do
				console(vm, 64)
				assert(vm:snapshot(folder:join "snapshot", {}))
				vm:close()
				put(("%04d"):format(cycle))
				local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot", { prefetch = false }))
				vm = assert(snapshot:restore { transport = transport })
				assert.is_truthy(console(vm, 64):find(("%04d"):format(cycle), 1, true))
				local fs = fs_of(vm)
				assert.are.same({ 0, 0, 1 }, { fs.stale, fs.errors, fs.handles })
				assert(core.remove_tree(folder:join "snapshot"))
				snapshot:close()
				local now = resources.now()
				before = before or now
				-- A thread that nothing waits for may be about to end.
				assert.are.equal(before.descriptors, now.descriptors)
				assert.is_true(now.threads <= before.threads + 2)
			end
		end)

		it("is saved and reset inside requests that take long, of which none is lost", function()
			local drive = micro.driver(core.plan { memory_mib = 16, mounts = 1, dax_mib = 0 })
			scratch.run(("truncate -s 128M %s"):format(source:join "data"))
			local code = drive.start()
			local open, node, handle = drive.open("data", 2)
			local copy, at = drive.copy(node, handle, 64 * MIB)
			code = code .. open .. copy .. guest.loop(drive.again() .. guest.load(at) .. guest.print_word())
			local vm <close> = assert(sm.vm.new {
				kernel = guest.write(folder:join "kernel", code), memory_mib = 16, dax_mib = 0, transport = transport,
				mounts = { { host = source.path, guest = "/src" } },
			})
			local count = ("<I4"):pack(64 * MIB)
			assert(vm:resume())
			assert.are.equal(count, console(vm, 4):sub(1, 4))
			assert(vm:snapshot(folder:join "snapshot", {}))
			vm:close()
			local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot"))
			local clone <close> = assert(snapshot:restore { transport = transport })
			-- It may have been saved while it printed: from any byte of a word on.
			local function goes_on(words)
				local text = console(clone, 4 * words)
				assert.is_truthy(count:rep(words + 1):find(text:sub(1, 4 * words), 1, true))
			end
			for _ = 1, 5 do
				goes_on(2)
				assert(clone:reset())
			end
			goes_on(1)
		end)

		it("is reset while it reads", function()
			local vm <close> = machine()
			assert(vm:resume())
			console(vm, 64)
			assert(vm:snapshot(folder:join "snapshot", {}))
			local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot"))
			local clone <close> = assert(snapshot:restore { transport = transport })
			for round = 1, 20 do
				put(("%04d"):format(round))
				assert(clone:reset())
				assert.is_truthy(console(clone, 64):find(("%04d"):format(round), 1, true))
			end
		end)

		it("is bound to another folder at a restore, where an open file of the old one is stale", function()
			local vm <close> = machine()
			assert(vm:resume())
			console(vm, 64)
			assert(vm:snapshot(folder:join "snapshot", {}))
			local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot"))
			local clone <close> = assert(snapshot:restore {
				transport = transport, mounts = { { host = other.path, guest = "/src" } },
			})
			console(clone, 64)
			assert.is_true(fs_of(clone).stale > 0)
			assert.are.equal(other.path, clone:mounts()[1].host)
			local none, message, code = snapshot:restore { mounts = { { host = other:join "data", guest = "/src" } } }
			assert.is_nil(none)
			assert.matches("mount /src: host path .*/data: a folder is needed", message)
			assert.are.equal("EINVAL", code)
		end)

		it("starts no thread of a device that nobody asks, and ends with those it has inside", function()
			local vm <close> = assert(sm.vm.new {
				kernel = guest.write(folder:join "kernel", guest.loop(guest.print "idle")), memory_mib = 16, transport = transport,
				mounts = { { host = source.path, guest = "/src" } },
			})
			assert(vm:resume())
			console(vm, 64)
			assert.are.equal(0, threads(vm))
			assert(vm:snapshot(folder:join "snapshot", {}))
			local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot"))
			local clone <close> = assert(snapshot:restore { transport = transport })
			console(clone, 64)
			assert.are.equal(0, threads(clone))
			for _ = 1, 5 do
				local busy <close> = machine()
				assert(busy:resume())
				console(busy, 64)
				assert.is_true(threads(busy) > 0)
			end
		end)

		it("has slots that are backed while it runs, and not any more after a reset", function()
			local vm <close> = machine(1)
			assert(vm:resume())
			-- A session that is refused again and again: nothing is there.
			console(vm, 64)
			assert(vm:snapshot(folder:join "snapshot", {}))
			local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot"))
			local clone <close> = assert(snapshot:restore {
				transport = transport, mounts = { { host = source.path, guest = "/late" } },
			})
			assert.are.equal("mount0", clone:mounts()[1].tag)
			assert.is_true(clone:plan().slots[#clone:plan().slots].backed)
			local none, message, code = clone:mount { { host = other.path, guest = "/more" } }
			assert.is_nil(none)
			assert.matches("mount /more: fs: the machine has 1 slots, and something behind each", message)
			assert.are.equal("ENOSPC", code)
			none, message, code = clone:mount { { host = other.path, guest = "/late" } }
			assert.is_nil(none)
			assert.matches("mount /late: there is one", message)
			assert.are.equal("EEXIST", code)
			assert(clone:snapshot(folder:join "full", {}))
			assert(clone:reset())
			assert.is_false(clone:plan().slots[#clone:plan().slots].backed)
			assert.are.same({}, clone:mounts())
			assert.is_nil(fs_of(clone))
			assert(clone:mount { { host = other.path, guest = "/late" } })
			assert.is_not_nil(fs_of(clone))
			local full <close> = assert(sm.snapshot.open(folder:join "full"))
			local again <close> = assert(full:restore { transport = transport })
			assert.are.equal(source.path, again:mounts()[1].host)
			assert(again:reset())
			assert.are.equal(1, #again:mounts())
			assert.is_not_nil(fs_of(again))
			-- More than there are slots.
			none, message, code = snapshot:restore { mounts = {
				{ host = source.path, guest = "/a" }, { host = source.path, guest = "/b" },
			} }
			assert.is_nil(none)
			assert.matches("mount /b: fs: the machine has 1 slots", message)
			assert.are.equal("ENOSPC", code)
		end)

		it("has a pool whose machines are given folders, and give them back", function()
			local vm <close> = machine(1)
			assert(vm:resume())
			console(vm, 64)
			assert(vm:snapshot(folder:join "snapshot", {}))
			local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot"))
			local pool <close> = assert(sm.pool.new(snapshot, { min = 1, max = 1, transport = transport }))
			for _ = 1, 3 do
				local one <close> = assert(pool:acquire { timeout_ms = 20000, mounts = { { host = source.path, guest = "/a" } } })
				assert.is_not_nil(fs_of(one))
			end
			local bare <close> = assert(pool:acquire { timeout_ms = 20000 })
			assert.is_nil(fs_of(bare))
			assert.are.same({}, bare:mounts())
			local never <close> = assert(sm.pool.new(snapshot, { min = 0, max = 1, reset = "never" }))
			assert.error_matches(function() never:acquire { mounts = { { host = source.path, guest = "/a" } } } end,
				"'mounts': the pool's next user")
			local given <close> = assert(sm.pool.new(snapshot, {
				min = 1, max = 1, transport = transport, mounts = { { host = other.path, guest = "/a" } },
			}))
			for _ = 1, 3 do
				local one <close> = assert(given:acquire { timeout_ms = 20000 })
				assert.are.equal(other.path, one:mounts()[1].host)
				assert.is_not_nil(fs_of(one))
			end
		end)
	end)
end
