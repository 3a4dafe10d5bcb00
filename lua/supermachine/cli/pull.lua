local arguments = require "supermachine.cli.arguments"
local fetch = require "supermachine.cli.fetch"

local pull = { usage = "pull [--platform P] [--quiet] REFERENCE", summary = "fetch an image; prints its digest" }

local types = arguments.join(fetch.types, { parallel = "integer" })

function pull.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(pull, rest) end
	if #rest ~= 1 then return arguments.misuse(pull, "one reference is expected") end
	if options.parallel and (options.parallel < 1 or options.parallel > 64) then
		return arguments.misuse(pull, "option --parallel: 1 to 64 are expected")
	end
	local image <close>, status = fetch.image(pull, rest[1], options)
	if not image then return status end
	print(image:digest())
	return 0
end

return pull
