--- A process of a guest on this program's own standard streams.
local arguments = require "supermachine.cli.arguments"
local core = require "supermachine.core"
local scheduler = require "supermachine.scheduler"
local sm = require "supermachine"

local attach = {}

attach.types = { user = "string", workdir = "string", interactive = "flag", i = "flag" }

-- Copy one of the process's outputs to a file of ours until its end.
local function copy(process, stderr, file)
	while true do
		local piece, message = process:read(nil, { stderr = stderr })
		if not piece then return message end
		file:write(piece)
		file:flush()
	end
end

-- Our standard input to the process's, up to its end.
local function feed(process)
	while true do
		scheduler.await(0, "r")
		local piece, message, code = core.read_fd(0, 65536)
		if not piece and code ~= "EINTR" and code ~= "EAGAIN" then return message end
		if piece == "" then return process:close_stdin() end
		if piece and not process:write(piece) then return end
	end
end

--- Run argv in the machine; returns the exit code to end with: the process's own, or 128 + its signal.
function attach.run(machine, argv, options)
	local interactive = options.interactive or options.i or false
	local process <close>, message = machine:spawn(argv, {
		user = options.user, cwd = options.workdir, stdin = interactive,
	})
	if not process then return arguments.failed(message) end
	return sm.run(function()
		sm.go(copy, process, true, io.stderr)
		if interactive then sm.go(feed, process) end
		copy(process, false, io.stdout)
		local result, why = process:wait()
		if not result then return arguments.failed(why) end
		return result.code or 128 + result.signal
	end)
end

return attach
