local arguments = require "supermachine.cli.arguments"
local sm = require "supermachine"

local pull = { usage = "pull [--platform P] REFERENCE", summary = "fetch an image; prints its digest" }

local types = { store = "string", platform = "string", insecure = "flag" }

function pull.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(pull, rest) end
	if #rest ~= 1 then return arguments.misuse(pull, "one reference is expected") end
	local image <close>, message = arguments.pull(sm, rest[1], options)
	if not image then return arguments.failed(message) end
	print(image:digest())
	return 0
end

return pull
