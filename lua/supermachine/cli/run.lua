local arguments = require "supermachine.cli.arguments"
local attach = require "supermachine.cli.attach"
local fetch = require "supermachine.cli.fetch"
local own = require "supermachine.cli.own"
local service = require "supermachine.service"
local volumes = require "supermachine.cli.volumes"

local run = { usage = "run [OPTION...] [--] IMAGE [ARGV...]", summary = "run a process in a machine of an image" }

local types = arguments.join(arguments.machine_types, fetch.types, attach.types, own.types, volumes.types)

function run.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(run, rest) end
	local reference = table.remove(rest, 1)
	if not reference then return arguments.misuse(run, "an image is expected") end
	local wishes, wrong = own.options(run, options)
	if not wishes then return wrong end
	wishes.volumes, wrong = volumes.list(options)
	if wrong then return arguments.misuse(run, wrong) end
	local image <close>, status = fetch.image(run, reference, options, "missing")
	if not image then return status end
	local argv = service.command(image, rest)
	if #argv == 0 then return arguments.misuse(run, reference .. " names no command: give one") end
	-- One snapshot for whatever folders: they go behind its slots.
	local request = arguments.bake_options(options)
	request.mount_slots = wishes.mounts and #wishes.mounts
	request.volume_slots = wishes.volumes and #wishes.volumes
	local snapshot <close>, bake_message = image:bake(request)
	if not snapshot then return arguments.failed(bake_message) end
	local machine <close>, restore_message = snapshot:restore(wishes)
	if not machine then return arguments.failed(restore_message) end
	return volumes.settle(machine, wishes.volumes, attach.run(machine, argv, options))
end

return run
