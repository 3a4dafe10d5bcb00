local arguments = require "supermachine.cli.arguments"
local sm = require "supermachine"

local tag = { usage = "tag [--platform P] NAME NEW", summary = "give an image of the store another name" }

local types = { store = "string", platform = "string" }

--- Prints the new name as the store spells it.
function tag.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(tag, rest) end
	if #rest ~= 2 then return arguments.misuse(tag, "a name and a new name are expected") end
	local image, message = sm.store.tag(rest[1], rest[2], { store = options.store, platform = options.platform })
	if not image then return arguments.failed(message) end
	print(image.reference)
	return 0
end

return tag
