local arguments = require "supermachine.cli.arguments"
local sm = require "supermachine"

local rmi = {
	usage = "rmi [--platform P] NAME...", summary = "forget names of images; `gc` then frees the space",
}

local types = { store = "string", platform = "string" }

--- Prints each name that is gone; one that was not there does not keep the others from going.
function rmi.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(rmi, rest) end
	if #rest == 0 then return arguments.misuse(rmi, "a name is expected") end
	local status = 0
	for _, name in ipairs(rest) do
		local removed, message = sm.store.remove(name, { store = options.store, platform = options.platform })
		if not removed then status = arguments.failed(message) end
		for _, image in ipairs(removed or {}) do print(image.reference) end
	end
	return status
end

return rmi
