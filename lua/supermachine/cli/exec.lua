local arguments = require "supermachine.cli.arguments"
local attach = require "supermachine.cli.attach"
local own = require "supermachine.cli.own"
local sm = require "supermachine"

local exec = {
	usage = "exec [OPTION...] SNAPSHOT [--] ARGV...", summary = "restore a snapshot and run a process in it",
}

local types = arguments.join(attach.types, own.types)

function exec.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(exec, rest) end
	local path = table.remove(rest, 1)
	if rest[1] == "--" then table.remove(rest, 1) end
	if not path or #rest == 0 then return arguments.misuse(exec, "a snapshot and a command are expected") end
	local wishes, status = own.options(exec, options)
	if not wishes then return status end
	local snapshot <close>, message = sm.snapshot.open(path)
	if not snapshot then return arguments.failed(message) end
	local machine <close>, restore_message = snapshot:restore(wishes)
	if not machine then return arguments.failed(restore_message) end
	return attach.run(machine, rest, options)
end

return exec
