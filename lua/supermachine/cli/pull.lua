local arguments = require "supermachine.cli.arguments"
local progress = require "supermachine.cli.progress"
local sm = require "supermachine"

local pull = { usage = "pull [--platform P] [--quiet] REFERENCE", summary = "fetch an image; prints its digest" }

local types = {
	store = "string", platform = "string", insecure = "flag", parallel = "integer", quiet = "flag",
}

function pull.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(pull, rest) end
	if #rest ~= 1 then return arguments.misuse(pull, "one reference is expected") end
	if options.parallel and (options.parallel < 1 or options.parallel > 64) then
		return arguments.misuse(pull, "option --parallel: 1 to 64 are expected")
	end
	local image <close>, message = arguments.pull(sm, rest[1], options, nil,
		not options.quiet and progress.listener() or nil)
	if not image then return arguments.failed(message) end
	print(image:digest())
	return 0
end

return pull
