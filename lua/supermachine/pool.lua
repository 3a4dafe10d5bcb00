--- Pools: machines of one snapshot, ready before they are asked for.  The mechanism is C (src/pool/pool.c).
local core = require "supermachine.core"
local mounts = require "supermachine.mounts"
local options = require "supermachine.options"
local process = require "supermachine.process"
local scheduler = require "supermachine.scheduler"
local vm = require "supermachine.vm"
local volumes = require "supermachine.volumes"

local pool = {}
local methods = core.methods "supermachine.pool"
-- { metadata, resets }
local origins = setmetatable({}, { __mode = "k" })

--- Keep `min` (1) machines ready and at most `max` (16, or min) alive.  Options also: reset = "always" (a machine that
-- comes back is made what the snapshot says, and gets a new identity; "never": handed out as it is, among those who
-- trust each other; "close": closed, and another one made), idle_ms = 60000 (a ready machine beyond min that nobody
-- wanted for so long is closed; negative: never), transport, device, identity_ms = 30000 (how long a restored guest may
-- take to answer, the snapshot's on_restore included), mounts (as for snapshot:restore, the same for each machine).
function pool.new(snapshot, given)
	local checked = options.check({
		min = "integer", max = "integer", transport = "string", device = "string", identity_ms = "integer",
		reset = "string", idle_ms = "integer", mounts = "list",
	}, given)
	checked.mounts = mounts.check(checked.mounts, false)
	local metadata = snapshot:metadata() or {}
	checked.agent, checked.on_restore = metadata.agent == true, vm.on_restore(metadata)
	checked.timeout_ms, checked.identity_ms = checked.identity_ms, nil
	local handle, message, code = core.pool_new(snapshot, checked)
	if not handle then return nil, message, code end
	origins[handle] = { metadata = metadata, resets = checked.reset ~= "never" }
	return handle
end

-- Give a machine what is its user's alone.
local function add(machine, origin, checked)
	local done, message, code = true, nil, nil
	if checked.mounts then
		done, message, code = scheduler.finish(machine:mount_begin {
			mounts = checked.mounts, agent = origin.metadata.agent == true, timeout_ms = checked.timeout_ms,
		})
	end
	if done and checked.volumes then
		done, message, code = scheduler.finish(machine:volumes_give_begin {
			volumes = checked.volumes, agent = origin.metadata.agent == true, timeout_ms = checked.timeout_ms,
		})
	end
	if done and (checked.hostname or checked.secrets) then
		done, message, code = scheduler.finish(machine:identity_begin {
			agent = origin.metadata.agent == true, hostname = checked.hostname, secrets = checked.secrets,
			timeout_ms = checked.timeout_ms,
		})
	end
	if done then return machine end
	machine:close()
	return nil, "acquire: " .. message, code
end

--- A running machine of its own; closing it gives it back.  Who asks first is served first.  Options: timeout_ms (no
-- limit unless given); hostname, env and secrets as for snapshot:restore; mounts and volumes: as many as there are
-- slots that have nothing.
function methods:acquire(given)
	local checked = options.check({
		timeout_ms = "integer", mounts = "list", volumes = "list", hostname = vm.own_options.hostname,
		env = vm.own_options.env,
		secrets = vm.own_options.secrets,
	}, given)
	checked.env = checked.env and process.env(checked.env)
	checked.mounts = mounts.check(checked.mounts, false)
	checked.volumes = volumes.check(checked.volumes)
	local origin = origins[self]
	if checked.secrets and not origin.resets then
		error("option 'secrets': the pool's next user would get them: its reset is 'never'", 2)
	end
	if checked.mounts and not origin.resets then
		error("option 'mounts': the pool's next user would get them: its reset is 'never'", 2)
	end
	if checked.volumes and not origin.resets then
		error("option 'volumes': the pool's next user would get them: its reset is 'never'", 2)
	end
	local machine, message, code = self:acquire_ready()
	if not machine and not message then
		machine, message, code = scheduler.finish(self:acquire_begin(checked.timeout_ms))
	end
	if machine then machine, message, code = add(machine, origin, checked) end
	if not machine then return nil, message, code end
	return vm.set_origin(machine, origin.metadata, checked)
end

--- Hand out no more, wait until all machines have come back, and close them.  timeout_ms: no limit unless given; then
-- nil, a message with how many are out, "ETIMEDOUT", and the pool stays drained.
function methods:drain(given)
	local checked = options.check({ timeout_ms = "integer" }, given)
	return scheduler.finish(self:drain_begin(checked.timeout_ms))
end

return pool
