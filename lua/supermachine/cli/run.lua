local arguments = require "supermachine.cli.arguments"
local attach = require "supermachine.cli.attach"
local fetch = require "supermachine.cli.fetch"
local own = require "supermachine.cli.own"

local run = { usage = "run [OPTION...] [--] IMAGE [ARGV...]", summary = "run a process in a machine of an image" }

local types = arguments.join(arguments.machine_types, fetch.types, attach.types, own.types)

-- As the OCI image specification has it: the entrypoint, then what the user says or the image's cmd.
local function command_line(image, words)
	local process = image:process()
	local argv = table.move(process.entrypoint, 1, #process.entrypoint, 1, {})
	local tail = #words > 0 and words or process.cmd
	return table.move(tail, 1, #tail, #argv + 1, argv)
end

function run.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(run, rest) end
	local reference = table.remove(rest, 1)
	if not reference then return arguments.misuse(run, "an image is expected") end
	local wishes, wrong = own.options(run, options)
	if not wishes then return wrong end
	local image <close>, status = fetch.image(run, reference, options, "missing")
	if not image then return status end
	local argv = command_line(image, rest)
	if #argv == 0 then return arguments.misuse(run, reference .. " names no command: give one") end
	local snapshot <close>, bake_message = image:bake(arguments.bake_options(options))
	if not snapshot then return arguments.failed(bake_message) end
	local machine <close>, restore_message = snapshot:restore(wishes)
	if not machine then return arguments.failed(restore_message) end
	return attach.run(machine, argv, options)
end

return run
