--- Pools: machines of one snapshot, ready before they are asked for.  The mechanism is C (src/pool/pool.c).
local core = require "supermachine.core"
local options = require "supermachine.options"
local scheduler = require "supermachine.scheduler"
local vm = require "supermachine.vm"

local pool = {}
local methods = core.methods "supermachine.pool"
local metadata_of = setmetatable({}, { __mode = "k" })

--- Keep `min` (1) machines ready and at most `max` (16, or min) alive.  Options also: reset = "always" (a machine that
-- comes back is made what the snapshot says, and gets a new identity; "never": handed out as it is, among those who
-- trust each other; "close": closed, and another one made), idle_ms = 60000 (a ready machine beyond min that nobody
-- wanted for so long is closed; negative: never), transport, device, identity_ms = 30000 (how long a restored guest may
-- take to answer).
function pool.new(snapshot, given)
	local checked = options.check({
		min = "integer", max = "integer", transport = "string", device = "string", identity_ms = "integer",
		reset = "string", idle_ms = "integer",
	}, given)
	local metadata = snapshot:metadata() or {}
	checked.agent = metadata.agent == true
	local handle, message, code = core.pool_new(snapshot, checked)
	if not handle then return nil, message, code end
	metadata_of[handle] = metadata
	return handle
end

--- A running machine of its own; closing it gives it back.  Who asks first is served first.  timeout_ms: no limit
-- unless given.
function methods:acquire(given)
	local checked = options.check({ timeout_ms = "integer" }, given)
	local machine, message, code = self:acquire_ready()
	if not machine and not message then
		machine, message, code = scheduler.finish(self:acquire_begin(checked.timeout_ms))
	end
	if not machine then return nil, message, code end
	return vm.set_origin(machine, metadata_of[self] or {})
end

--- Hand out no more, wait until all machines have come back, and close them.  timeout_ms: no limit unless given; then
-- nil, a message with how many are out, "ETIMEDOUT", and the pool stays drained.
function methods:drain(given)
	local checked = options.check({ timeout_ms = "integer" }, given)
	return scheduler.finish(self:drain_begin(checked.timeout_ms))
end

return pool
