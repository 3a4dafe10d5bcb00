local arguments = require "supermachine.cli.arguments"
local sm = require "supermachine"
local table_text = require "supermachine.cli.table"

local images = { usage = "images [--json | --quiet]", summary = "what is in the store; --quiet: digests alone" }

local types = { store = "string", json = "flag", quiet = "flag", q = "flag" }

function images.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(images, rest) end
	if #rest > 0 then return arguments.misuse(images, "no words are expected") end
	local list, message = sm.store.list { store = options.store, json = options.json }
	if not list then return arguments.failed(message) end
	if options.json then
		print(list)
		return 0
	end
	local rows, seen = { { "REFERENCE", "PLATFORM", "DIGEST", "SIZE", "PULLED" } }, {}
	for _, image in ipairs(list) do
		if options.quiet or options.q then
			if image.digest and not seen[image.digest] then print(image.digest) end
			seen[image.digest or ""] = true
		else
			rows[#rows + 1] = {
				image.reference or "?", image.platform or "?", (image.digest or "?"):match "^sha256:(%x+)" or "?",
				image.error and "damaged" or not image.complete and "incomplete" or table_text.bytes(image.size),
				image.time and os.date("%Y-%m-%d %H:%M", image.time) or "?",
			}
			rows[#rows][3] = rows[#rows][3]:sub(1, 12)
		end
		if image.error then io.stderr:write(("supermachine: %s\n"):format(image.error)) end
	end
	if not (options.quiet or options.q) then table_text.print(rows) end
	return 0
end

return images
