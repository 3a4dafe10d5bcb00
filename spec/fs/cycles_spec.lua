-- Files in use while a machine is saved and restored, or reset, again and again: none that is there is ESTALE, none has
-- other content, what was locked is locked, and no descriptor is left.  SUPERMACHINE_CYCLES=1000 for a soak.
local build = require "spec.support.build"
local core = require "supermachine.core"
local file_system = require "spec.support.file_system"
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local resources = require "spec.support.resources"
local scheduler = require "supermachine.scheduler"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local cycles = math.tointeger(tonumber(os.getenv "SUPERMACHINE_CYCLES" or "4"))
local owners = scratch.is_root() and "passthrough" or "squash"

local function fs_of(vm)
	for _, device in ipairs(assert(vm:devices())) do
		if device.kind == "fs" then return device.fs end
	end
end

describe("files in use on a mount #lab", function()
	local system

	setup(function()
		system = file_system.new(48)
		scratch.run(("cp %s/spec/fs/posix %s && chmod 755 %s/posix"):format(build.dir, system.path, system.path))
	end)
	teardown(function() system:close() end)

	-- What the guest's program has said so far; nothing, as long as its shell has not begun.
	local function said(vm)
		local text, message, code = vm:read_file("/dev/shm/log", { timeout_ms = 120000 })
		assert(text or code == "ENOENT", message)
		assert.is_nil((text or ""):match "[^\n]*wrong[^\n]*")
		assert.is_nil(vm:ended())
		return text or ""
	end

	-- The last round that the guest's program told of, once it is past `last`.
	local function await_round(vm, last)
		while true do
			local round = tonumber(said(vm):match "round (%d+)\n[^\n]*$")
			if round and round > last then return round end
			scheduler.sleep(50)
		end
	end

	local function await_end(vm)
		while true do
			if said(vm):find "stopped\n$" then return end
			scheduler.sleep(50)
		end
	end

	it(("are what they were through %d snapshots and restores"):format(cycles), function()
		local folder <close> = folders.new()
		scratch.run("mkdir " .. system:join "work")
		local image = lab.image "busybox"
		local before, vm = resources.now(), nil
		finally(function() if vm then vm:close() end end)
		vm = assert(image:boot {
			memory_mib = 128, timeout_ms = 120000, mounts = { { host = system.path, guest = "/mnt", owners = owners } },
		})
		local process = assert(vm:spawn({ "sh", "-c", "exec /mnt/posix --churn /mnt/work >/dev/shm/log 2>&1" },
			{ stdin = false, keep = true }))
		local round = 0
		for cycle = 1, cycles do
			round = await_round(vm, round)
			local path = folder:join(tostring(cycle))
			assert(vm:pause())
			assert(vm:snapshot(path))
			if process then process:close() end
			process = nil
			vm:close()
			-- Nobody is to write a working set into the folder while it is removed.
			local snapshot <close> = assert(sm.snapshot.open(path, { prefetch = false }))
			vm = assert(snapshot:restore { timeout_ms = 120000 })
			assert(core.remove_tree(path))
		end
		await_round(vm, round)
		assert.are.equal(0, fs_of(vm).stale)
		scratch.write(system:join "work/stop", "")
		await_end(vm)
		vm:close()
		local after = resources.now()
		for _ = 1, 100 do
			if after.descriptors <= before.descriptors then break end
			scheduler.sleep(20)
			after = resources.now()
		end
		assert.are.equal(before.descriptors, after.descriptors)
	end)

	it(("leave no descriptor behind in %d resets"):format(cycles), function()
		local snapshot <close> = assert(lab.image("busybox"):bake { memory_mib = 128, timeout_ms = 120000,
			mounts = { { host = system.path, guest = "/mnt", owners = owners } } })
		local vm <close> = assert(snapshot:restore { timeout_ms = 120000 })
		local first
		for _ = 1, cycles do
			local text = lab.output(vm, { "/mnt/posix", "--rounds", "2", "--entries", "20", "--only", "unlinked",
				"--only", "links", "/mnt" }, { timeout_ms = 300000 })
			assert.matches("^%d+ passed, 0 failed, 0 cannot run$", text)
			assert(vm:reset { timeout_ms = 120000 })
			assert.are.equal("1", lab.shell(vm, "ls -d /mnt/posix | wc -l"))
			-- Less those that the server counts itself, which are what this guest has looked at; others close a bit later.
			local function besides() return resources.now().descriptors - fs_of(vm).descriptors end
			first = first or besides()
			for _ = 1, 100 do
				if besides() <= first then break end
				scheduler.sleep(20)
			end
			assert.is_true(besides() <= first)
			assert.are.same({ 0, 0 }, { fs_of(vm).handles, fs_of(vm).stale })
		end
	end)
end)
