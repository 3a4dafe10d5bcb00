local arguments = require "supermachine.cli.arguments"
local sm = require "supermachine"
local table_text = require "supermachine.cli.table"

local du = { usage = "du [--json]", summary = "what the store and its images take on the disk" }

local types = { store = "string", json = "flag" }

function du.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(du, rest) end
	if #rest > 0 then return arguments.misuse(du, "no words are expected") end
	local report, message = sm.store.du { store = options.store, json = options.json }
	if not report then return arguments.failed(message) end
	if options.json then
		print(report)
		return 0
	end
	local rows = { { "KIND", "COUNT", "SIZE" } }
	for _, kind in ipairs { "blobs", "erofs", "snapshots", "temporaries" } do
		rows[#rows + 1] = { kind, ("%d"):format(report[kind].count), table_text.bytes(report[kind].bytes) }
	end
	rows[#rows + 1] = { "all", "", table_text.bytes(report.bytes) }
	rows[#rows + 1] = { "unused", "", table_text.bytes(report.unused_bytes) }
	table_text.print(rows)
	if #report.images == 0 then return 0 end
	print()
	rows = { { "DIGEST", "SIZE", "UNIQUE", "SHARED", "REFERENCE" } }
	for _, image in ipairs(report.images) do
		rows[#rows + 1] = {
			image.digest:sub(8, 19), table_text.bytes(image.bytes), table_text.bytes(image.unique_bytes),
			table_text.bytes(image.shared_bytes), table.concat(image.references, " "),
		}
	end
	table_text.print(rows)
	return 0
end

return du
