--- Snapshots: folders that machines are restored from.
local core = require "supermachine.core"
local mounts = require "supermachine.mounts"
local options = require "supermachine.options"
local process = require "supermachine.process"
local scheduler = require "supermachine.scheduler"
local vm = require "supermachine.vm"
local volumes = require "supermachine.volumes"

local snapshot = {}
local methods = core.methods "supermachine.snapshot"

--- Open a snapshot folder.  verify = true hashes RAM and state even when nothing seems to have touched them.  sealed =
--- true reads both into memory, where they are hashed and nobody can change them: whatever happens to the files then.
--- kernel: a path; the snapshot must have been made with that very kernel ("EBADMSG" where not, or it does not say).
--- prefetch = false: neither read the working set ahead at the first restore, and copy for each machine what it writes
--- of it (threads do, and no machine waits for them), nor learn it, where there is none, from the first machine whose
--- agent answers.
function snapshot.open(path, given)
	local checked = options.check({
		verify = "boolean", sealed = "boolean", prefetch = "boolean", kernel = "string",
	}, given)
	local opened, message, code = scheduler.finish(core.snapshot_open_begin(path,
		options.pick(checked, { "verify", "sealed", "prefetch" })))
	if not opened or not checked.kernel then return opened, message, code end
	local digest
	digest, message, code = core.sha256_file(checked.kernel)
	local made = (opened:metadata() or {}).kernel
	if digest and made == "sha256:" .. digest then return opened end
	opened:close()
	if not digest then return nil, message, code end
	return nil, ("snapshot %s: made with kernel %s, and %s is sha256:%s"):format(path, made or "unknown", checked.kernel,
		digest), "EBADMSG"
end

--- The table that was given to vm:snapshot.
function methods:metadata()
	return core.json_decode(self:metadata_text())
end

--- A copy of the snapshot, as a new folder, that needs no parent.  Returns what vm:snapshot does.
function methods:flatten(path) return scheduler.finish(self:flatten_begin(path)) end

-- What a snapshot was made with stays as it is: its devices and memory hold it.
local fixed = { memory_mib = true, vcpus = true }

local function restore(self, given, count)
	for key in pairs(type(given) == "table" and given or {}) do
		if fixed[key] then
			error(("option '%s': it is the snapshot's own, %d, and cannot be changed at a restore"):format(key,
				self:plan()[key]), 3)
		end
	end
	local checked = options.check({
		transport = "string", device = "string", timeout_ms = "integer", paused = "boolean", learn = "boolean",
		mounts = "list", volumes = "list", hostname = vm.own_options.hostname, env = vm.own_options.env,
		secrets = vm.own_options.secrets,
	}, given, 2)
	if checked.paused and (checked.hostname or checked.secrets) then
		error("options 'hostname' and 'secrets': a paused machine cannot be told", 3)
	end
	checked.env = checked.env and process.env(checked.env)
	checked.mounts = mounts.check(checked.mounts, false, 2)
	checked.volumes = volumes.check(checked.volumes, 2)
	for _, volume in ipairs(checked.paused and checked.volumes or {}) do
		if volume.guest then error("option 'volumes': a paused machine cannot be told to mount one: no guest path", 3) end
	end
	local metadata = self:metadata() or {}
	local machines, message, code = scheduler.finish(self:restore_begin {
		transport = checked.transport, device = checked.device, timeout_ms = checked.timeout_ms, count = count,
		learn = checked.learn, resume = not checked.paused, agent = metadata.agent == true, hostname = checked.hostname,
		secrets = checked.secrets, mounts = checked.mounts, volumes = checked.volumes,
		on_restore = not checked.paused and vm.on_restore(metadata) or nil,
	})
	if not machines then return nil, message, code end
	for _, machine in ipairs(machines) do vm.set_origin(machine, metadata, checked) end
	return machines
end

--- A machine from the snapshot, running and with an identity of its own: generation ID, random numbers, clock,
-- vm:id() (in the guest, /run/supermachine/id), boot ID, and machine-id where /etc has one.  The snapshot's on_restore
-- has ended with code 0 when it is returned.
-- Options: transport, device, timeout_ms = 30000 for the guest's answer, paused = false (leave it paused, as it was
-- saved, without a new identity), learn = false (watch it page by page until vm:learn()); and the machine's own
-- mounts (docs/mounts.md: each is bound to the host path given, where the snapshot has a mount at the same guest path,
-- or put behind a slot that has nothing), volumes (docs/volumes.md: files behind volume slots that have nothing; both
-- are mounted before on_restore runs), hostname, env (added to the environment of each later process) and secrets =
-- { ["/run/secrets/name"] = value } (files in the guest's memory, mode 0400; gone with the machine).
function methods:restore(given)
	local machines, message, code = restore(self, given, 1)
	if not machines then return nil, message, code end
	return machines[1]
end

--- As many machines at once, as a list, by as many threads as the host has processors: all of them, or nil and the
-- message of the first that failed, with its number.  Options as for restore, the same for each.
function methods:restore_many(count, given)
	if math.type(count) ~= "integer" or count < 1 or count > 4096 then
		error("restore_many: an integer from 1 to 4096 expected, got " .. tostring(count), 2)
	end
	return restore(self, given, count)
end

return snapshot
