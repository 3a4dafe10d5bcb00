local arguments = require "supermachine.cli.arguments"
local choices = require "supermachine.options"
local fetch = require "supermachine.cli.fetch"
local service = require "supermachine.service"
local volumes = require "supermachine.cli.volumes"

local bake = {
	usage = "bake [OPTION...] REFERENCE [-- WARMUP...]\n       supermachine bake --ready-port N | --ready-console TEXT |"
		.. " --ready-stdout TEXT | --ready-ms N [OPTION...] REFERENCE [-- ARGV...]",
	summary = "make a snapshot of an image, with its service running if you say when that is ready; prints its path",
}

local types = arguments.join(arguments.machine_types, fetch.types, volumes.types, {
	["volume-slots"] = "integer",
	["ready-port"] = "integer", ["ready-console"] = "string", ["ready-stdout"] = "string", ["ready-ms"] = "integer",
	["timeout-ms"] = "integer", ["drop-caches"] = choices.cache_policies, ["on-restore"] = "string", v = "list",
	["mount-slots"] = "integer",
})

-- image:bake's options, and whether there is a service; or nil and what is wrong.
local function request_of(options)
	local request = arguments.bake_options(options)
	request.timeout_ms, request.drop_caches = options.timeout_ms, options.drop_caches
	local wrong
	request.mounts, wrong = arguments.mounts(options.v)
	if wrong then return nil, wrong end
	request.mount_slots = options.mount_slots
	if options.on_restore then request.on_restore = { "/bin/sh", "-c", options.on_restore } end
	request.volume_slots = options.volume_slots
	request.volumes, wrong = volumes.list(options)
	if wrong then return nil, wrong end
	for _, name in ipairs(service.triggers) do request[name] = options[name] end
	local fine, trigger = pcall(service.check, request, -1)
	if not fine then return nil, trigger end
	return request, trigger
end

function bake.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(bake, rest) end
	local request, trigger = request_of(options)
	if not request then return arguments.misuse(bake, trigger) end
	local reference = table.remove(rest, 1)
	if not reference then return arguments.misuse(bake, "a reference is expected") end
	if rest[1] == "--" then table.remove(rest, 1) end
	local image <close>, status = fetch.image(bake, reference, options, "missing")
	if not image then return status end
	if trigger then
		request.service = service.command(image, rest)
		if #request.service == 0 then return arguments.misuse(bake, reference .. " names no command: give one") end
	elseif #rest > 0 then
		request.warmup = rest
	end
	local snapshot <close>, why = image:bake(request)
	if not snapshot then return arguments.failed(why) end
	print(snapshot:path())
	return 0
end

return bake
