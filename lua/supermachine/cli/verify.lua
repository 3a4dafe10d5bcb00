local arguments = require "supermachine.cli.arguments"
local core = require "supermachine.core"
local sm = require "supermachine"
local table_text = require "supermachine.cli.table"

local verify = {
	usage = "verify [--platform P] [--remove] [--json] [NAME]",
	summary = "hash what the store has, or one image; names what is damaged",
}

local types = { store = "string", platform = "string", remove = "flag", json = "flag" }

--- 0 when everything is sound, 1 otherwise.  --remove takes what is damaged away; the next pull or bake makes it anew.
function verify.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(verify, rest) end
	if #rest > 1 then return arguments.misuse(verify, "at most one name is expected") end
	if options.platform and not rest[1] then return arguments.misuse(verify, "option --platform needs a name") end
	local report, message = sm.store.verify {
		store = options.store, name = rest[1], platform = options.platform, remove = options.remove, json = options.json,
	}
	if not report then return arguments.failed(message) end
	if options.json then
		print(report)
		return #assert(core.json_decode(report)).problems == 0 and 0 or 1
	end
	for _, item in ipairs(report.problems) do
		print(item.kind, item.name, item.removed and item.problem .. "; removed" or item.problem)
	end
	io.stderr:write(("%d blobs (%s), %d EROFS files and %d references: %s\n"):format(report.blobs,
		table_text.bytes(report.bytes), report.erofs, report.references,
		#report.problems == 0 and "sound" or ("%d damaged"):format(#report.problems)))
	return #report.problems == 0 and 0 or 1
end

return verify
