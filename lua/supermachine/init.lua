--- supermachine: OCI images as hardware-isolated microVMs, restored from snapshots.
--
-- Loading this module changes nothing in the process: no signal, locale, thread or descriptor.
local core = require "supermachine.core"
local scheduler = require "supermachine.scheduler"

return {
	version = core.version,
	image = require "supermachine.image",
	vm = require "supermachine.vm",
	snapshot = require "supermachine.snapshot",
	store = require "supermachine.store",
	pool = require "supermachine.pool",
	run = scheduler.run,
	go = scheduler.go,
}
