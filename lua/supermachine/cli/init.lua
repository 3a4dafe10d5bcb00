--- The commands: one file each, thin Lua over the public API.
local core = require "supermachine.core"

local cli = {}

local names = {
	"run", "pull", "bake", "exec", "images", "inspect", "tag", "rmi", "du", "verify", "gc", "doctor",
}

local function help()
	io.write "usage: supermachine COMMAND [ARG...]      supermachine SCRIPT [ARG...]      supermachine (a prompt)\n\n"
	for _, name in ipairs(names) do
		local command = require("supermachine.cli." .. name)
		io.write(("  %-40s %s\n"):format(command.usage, command.summary))
	end
	io.write(("  %-40s %s\n"):format("version", "print the version"))
	return 0
end

--- Run a command; args is a list, the command's name first.  Returns the exit code: 125 when supermachine itself
-- failed, 64 for wrong usage.
function cli.main(args)
	local name = table.remove(args, 1)
	if name == "version" then
		print("supermachine " .. core.version)
		return 0
	end
	for _, known in ipairs(names) do
		if name == known then return require("supermachine.cli." .. name).main(args) end
	end
	return help()
end

return cli
