local arguments = require "supermachine.cli.arguments"
local fetch = require "supermachine.cli.fetch"

local bake = {
	usage = "bake [OPTION...] REFERENCE [-- WARMUP...]", summary = "make a snapshot of an image; prints its path",
}

local types = arguments.join(arguments.machine_types, fetch.types, { ["on-restore"] = "string" })

function bake.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(bake, rest) end
	local reference = table.remove(rest, 1)
	if not reference then return arguments.misuse(bake, "a reference is expected") end
	if rest[1] == "--" then table.remove(rest, 1) end
	local image <close>, status = fetch.image(bake, reference, options, "missing")
	if not image then return status end
	local request = arguments.bake_options(options)
	if #rest > 0 then request.warmup = rest end
	if options.on_restore then request.on_restore = { "/bin/sh", "-c", options.on_restore } end
	local snapshot <close>, why = image:bake(request)
	if not snapshot then return arguments.failed(why) end
	print(snapshot:path())
	return 0
end

return bake
