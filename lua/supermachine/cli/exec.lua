local arguments = require "supermachine.cli.arguments"
local attach = require "supermachine.cli.attach"
local own = require "supermachine.cli.own"
local sm = require "supermachine"
local volumes = require "supermachine.cli.volumes"

local exec = {
	usage = "exec [OPTION...] SNAPSHOT [--] ARGV...", summary = "restore a snapshot and run a process in it",
}

local types = arguments.join(attach.types, own.types, volumes.types)

function exec.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(exec, rest) end
	local path = table.remove(rest, 1)
	if rest[1] == "--" then table.remove(rest, 1) end
	if not path or #rest == 0 then return arguments.misuse(exec, "a snapshot and a command are expected") end
	local wishes, status = own.options(exec, options)
	if not wishes then return status end
	local wrong
	wishes.volumes, wrong = volumes.list(options)
	if wrong then return arguments.misuse(exec, wrong) end
	local snapshot <close>, message = sm.snapshot.open(path)
	if not snapshot then return arguments.failed(message) end
	local machine <close>, restore_message = snapshot:restore(wishes)
	if not machine then return arguments.failed(restore_message) end
	return volumes.settle(machine, wishes.volumes, attach.run(machine, rest, options))
end

return exec
