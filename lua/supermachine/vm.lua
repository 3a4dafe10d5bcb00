--- Machines.  The userdata and its plain methods are C (src/lua/vm.c); what blocks is written here, once, over
-- operations and descriptors, so that inside sm.run the same calls yield.
local core = require "supermachine.core"
local mounts = require "supermachine.mounts"
local options = require "supermachine.options"
local process = require "supermachine.process"
local scheduler = require "supermachine.scheduler"
local stream = require "supermachine.stream"
local volumes = require "supermachine.volumes"

local vm = {}
local methods = core.methods "supermachine.vm"

-- What the image says about its processes, by machine: { env, workdir, user, entrypoint, cmd, stop_signal }.
local defaults = setmetatable({}, { __mode = "k" })
-- The metadata of the snapshot that a machine was restored from, or would have.
local origins = setmetatable({}, { __mode = "k" })
-- Machines that were given secrets.
local holds_secrets = setmetatable({}, { __mode = "k" })

local BALLOON_SPARE_MIB <const> = 12 -- of free memory, that trim leaves to the guest besides its kernel's reserves
local BALLOON_STUCK_MS <const> = 2000

local new_options = {
	vcpus = "integer", memory_mib = "integer", kernel = "string", initrd = "string", disks = "list",
	volume_slots = "integer", mount_slots = "integer", net = "boolean", dax_mib = "integer", cmdline = "string",
	cpu_disable = "string", transport = "string", agent = "boolean", device = "string", mounts = "list",
	volumes = "list",
}

--- A paused machine.  Options: kernel (a path; needed), initrd, vcpus = 1, memory_mib = 256, disks (a list of paths, or
-- of lists of EROFS layers), cmdline, cpu_disable ("cx16,avx2"), volume_slots, mount_slots, net, dax_mib, transport =
-- "direct" or "worker", agent = false (the guest runs the agent), device = "/dev/kvm", mounts (docs/mounts.md: each is
-- a virtio-fs device with a tag; image:boot and image:bake have the guest mount them).
-- volumes (docs/volumes.md) are disks behind the others; image:boot and image:bake have the guest mount them.
function vm.new(given)
	local checked = options.check(new_options, given)
	if not checked.kernel then error("option 'kernel' is missing", 2) end
	checked.mounts = mounts.check(checked.mounts, true)
	if mounts.dax_off() then checked.dax_mib = 0 end
	checked.volumes = volumes.check(checked.volumes)
	return scheduler.finish(core.vm_begin(checked))
end

--- Remember what a machine was restored from: what its image says about processes, which exec and spawn fall back to.
-- given: { env, secrets } of this one machine.
function vm.set_origin(machine, metadata, given)
	given = given or {}
	origins[machine] = metadata
	holds_secrets[machine] = given.secrets and next(given.secrets) ~= nil or nil
	local all = {}
	for key, value in pairs(metadata.process or {}) do all[key] = value end
	all.added_env = given.env
	defaults[machine] = all
	return machine
end

--- The options of restore and acquire that are one machine's own.
vm.own_options = { hostname = "string", env = "table", secrets = "table" }

--- The on_restore command of a snapshot's metadata as a process's request.
function vm.on_restore(metadata)
	return metadata.on_restore and process.request(metadata.on_restore, metadata.process)
end

--- Wait until the agent says hello after a boot; returns the guest's kernel release.  nil, message, code when the
-- machine ends or timeout_ms (60000) passes; the message carries the console's last line.
function methods:wait_ready(given)
	local checked = options.check({ timeout_ms = "integer" }, given)
	local release, message, code = scheduler.finish(self:ready_begin(checked.timeout_ms or 60000))
	if release then return release end
	local reason, detail = self:ended()
	if reason then message = ("%s: %s: %s"):format(message, reason, detail) end
	-- What init said, or the kernel's last words.
	local text = self:console() or ""
	local last = text:match "supermachine: init: [^\r\n]+" or text:match "([^\r\n]+)[\r\n]*$"
	return nil, ("the guest's agent is not ready: %s; console: %s"):format(message, last or "(nothing)"), code
end

--- Wait until the machine ends by itself.  Returns reason ("poweroff", "reset", "halt", "panic", "triple-fault",
-- "fault", "worker-died") and detail; nil, message, "ETIMEDOUT" when it goes on.
function methods:wait(given)
	local checked = options.check({ timeout_ms = "integer" }, given)
	if not scheduler.wait({ { self:end_fd(), "r" } }, checked.timeout_ms) then
		return nil, ("the machine still runs after %d ms"):format(checked.timeout_ms), "ETIMEDOUT"
	end
	return self:ended()
end

--- What the guest wrote on its console and the ring still holds.
function methods:console()
	local text, message, code = self:console_from(0)
	if not text then return nil, message, code end
	return text
end

--- Start a process; see supermachine.process for the handle.
function methods:spawn(argv, given)
	return process.spawn(self, argv, given, defaults[self])
end

--- Run a process to its end; returns { code, signal, stdout, stderr, duration_ms, max_rss_bytes }.
function methods:exec(argv, given)
	return process.exec(self, argv, given, defaults[self])
end

--- A stream to a TCP port inside the guest.  Options: address (numeric, as the guest sees it; default its loopback),
-- timeout_ms.
function methods:connect(port, given)
	local checked = options.check({ address = "string", timeout_ms = "integer" }, given)
	return stream.wrap(scheduler.finish(self:connect_begin(port, checked.address, checked.timeout_ms)))
end

--- The content of a regular file of the guest, and { size, mode, uid, gid }.  Options: max_bytes = 64 MiB, timeout_ms.
function methods:read_file(path, given)
	local checked = options.check({ max_bytes = "integer", timeout_ms = "integer" }, given)
	return scheduler.finish(self:read_file_begin(path, checked.max_bytes or 64 << 20, checked.timeout_ms))
end

--- Write a file of the guest; it appears whole or not at all.  Options: mode = 420 (0644), timeout_ms.
function methods:write_file(path, data, given)
	local checked = options.check({ mode = "integer", timeout_ms = "integer" }, given)
	return scheduler.finish(self:write_file_begin(path, data, checked.mode or 420, checked.timeout_ms))
end

--- Put host folders, or files, behind mount slots that have nothing (mount_slots of vm.new and image:bake), and have
-- the guest mount them.  given: a list as for the option 'mounts', but for tags.  A reset of the machine takes them
-- away.  Options: timeout_ms = 30000.
function methods:mount(given, own)
	local checked = options.check({ timeout_ms = "integer" }, own)
	return scheduler.finish(self:mount_begin {
		mounts = mounts.check(given, false), agent = (origins[self] or {}).agent == true,
		timeout_ms = checked.timeout_ms,
	})
end

--- Put files of the host behind volume slots that have nothing (volume_slots of vm.new and image:bake), written to
-- directly, and have the guest mount those that name a path there.  given: a list as for the option 'volumes'.  A reset
-- of the machine takes them away.  Options: timeout_ms = 30000.
function methods:mount_volumes(given, own)
	local checked = options.check({ timeout_ms = "integer" }, own)
	return scheduler.finish(self:volumes_give_begin {
		volumes = volumes.check(given), agent = (origins[self] or {}).agent == true,
		timeout_ms = checked.timeout_ms or 30000,
	})
end

--- Ask the guest: "ping" (does the agent live), "sync" (write everything to the disks), "drop_caches" (let go of what
-- the kernel only caches), "shutdown" (power off).
function methods:command(word, given)
	local checked = options.check({ timeout_ms = "integer" }, given)
	return scheduler.finish(self:command_begin(word, checked.timeout_ms))
end

-- Until the balloon is as large as wanted (or nothing comes of it for a while); whoever watches it hears of no event.
local function await_balloon(machine, fine, deadline)
	local last, since, pause = -1, core.now_ms(), 2
	while true do
		local statistics, message, code = machine:statistics()
		if not statistics then return nil, message, code end
		local size, now = statistics.balloon_mib, core.now_ms()
		if fine(size) then return size end
		if size ~= last then last, since, pause = size, now, 2 end
		if now > deadline or now > since + BALLOON_STUCK_MS then return size, "stuck" end
		scheduler.sleep(pause)
		pause = math.min(pause * 2, 50)
	end
end

-- How much of its free memory a guest can miss before its kernel lets go of files that it caches, which are what a
-- warm-up was for.  It begins to at the high watermarks, which it raises to 2.5 times that where memory is in pieces
-- (Documentation/admin-guide/sysctl/vm.rst, watermark_boost_factor).
local function to_spare_mib(machine, timeout_ms)
	local meminfo, message, code = machine:read_file("/proc/meminfo", { timeout_ms = timeout_ms })
	if not meminfo then return nil, message, code end
	local zones
	zones, message, code = machine:read_file("/proc/zoneinfo", { timeout_ms = timeout_ms })
	if not zones then return nil, message, code end
	local pages = 0
	for high in zones:gmatch "\n%s+high%s+(%d+)" do pages = pages + tonumber(high) end
	local reserve_mib = pages * 4096 * 5 // 2 >> 20
	return (tonumber(meminfo:match "MemFree:%s*(%d+) kB") or 0) // 1024 - reserve_mib - BALLOON_SPARE_MIB
end

--- Give the guest's free memory back to the host, so that a snapshot has holes there.  Returns { freed_mib }.  Options:
-- drop_caches = false (first have the guest let go of what it only caches: clones read files from their disks anew),
-- timeout_ms = 60000.
function methods:trim(given)
	local checked = options.check({ timeout_ms = "integer", drop_caches = "boolean" }, given)
	local timeout_ms = checked.timeout_ms or 60000
	local deadline = core.now_ms() + timeout_ms
	local ok, message, code = true, nil, nil
	if checked.drop_caches then ok, message, code = self:command("drop_caches", { timeout_ms = timeout_ms }) end
	if not ok then return nil, message, code end
	local wanted
	wanted, message, code = to_spare_mib(self, timeout_ms)
	if not wanted then return nil, message, code end
	if wanted <= 0 then return { freed_mib = 0 } end
	ok, message, code = self:set_balloon(wanted)
	if not ok then return nil, message, code end
	local freed
	freed, message, code = await_balloon(self, function(size) return size >= wanted end, deadline)
	-- The guest gets it all back, whatever came of it.
	ok = self:set_balloon(0)
	if not freed or not ok then return nil, message, code end
	local left, stuck = await_balloon(self, function(size) return size == 0 end, deadline)
	if not left or stuck then return nil, "the guest's balloon does not shrink", "ETIMEDOUT" end
	return { freed_mib = freed }
end

--- Save a machine as a new folder.  One that runs goes on: its RAM is written while it runs, what changed meanwhile is
-- written again, in rounds, and it stands still only for what is left then (pause_us).  metadata: a table that
-- snapshot:metadata() gives back; by default, that of what the machine was restored from, or what a bake of its image
-- would have.  agent = true in it: the guest runs the agent; on_restore: argv of what the agent runs at each restore
-- (see image:bake).  Options: diff = false (of a machine that was restored, store only the RAM that has changed since;
-- the snapshot then needs the one it was restored from, unchanged, where it is).  Returns { capture_us, pause_us,
-- hash_us, sync_us, total_us, ram_bytes (stored), written_bytes (in all rounds), rounds }.  "EPERM": the machine was
-- given secrets.  "ESHUTDOWN": it ended meanwhile.
function methods:snapshot(path, metadata, given)
	local checked = options.check({ diff = "boolean" }, given)
	if holds_secrets[self] then return nil, "snapshot: the machine was given secrets, which are never saved", "EPERM" end
	local text = core.json_encode(metadata or origins[self] or {})
	return scheduler.finish(self:snapshot_begin(path, text, checked.diff == true))
end

--- Record which memory this machine has touched since its restore as the working set of the snapshot that it is of, in
-- place of what is there: who opens the snapshot from then on has that read ahead at the first restore, and what was
-- written of it copied for each machine (the first 16 MiB): so not after a machine has done its work.  For guests
-- without the agent, or where the reply that counts comes later than the agent's (a server's first answer).  Of a
-- machine that was restored with learn = true (and Linux 6.7) it is exact; of others, what the kernel maps with a page
-- counts as touched, up to 2 MiB.
function methods:learn() return scheduler.finish(self:learn_begin()) end

--- Make a restored machine what it was when it was restored, in place: only what has changed since is put back.  Its
-- processes, connections and writes are gone; it runs on with an identity of its own, as after a restore.  Returns
-- { copied_bytes, dropped_bytes, stop_us, memory_us, total_us }, the guest's answer not in it.  Options: timeout_ms =
-- 30000 for that, paused = false (leave it paused, exactly as it was saved).  Its env stays, its host name and secrets
-- are gone.
function methods:reset(given)
	local checked = options.check({ timeout_ms = "integer", paused = "boolean" }, given)
	local metadata = origins[self] or {}
	local result, message, code = scheduler.finish(self:reset_begin {
		resume = not checked.paused, agent = metadata.agent == true, timeout_ms = checked.timeout_ms,
		on_restore = vm.on_restore(metadata),
	})
	if not result then return nil, message, code end
	holds_secrets[self] = nil
	self:mounts_forget()
	return result
end

return vm
