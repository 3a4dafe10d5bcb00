local arguments = require "supermachine.cli.arguments"
local sm = require "supermachine"
local table_text = require "supermachine.cli.table"

local gc = {
	usage = "gc [--dry-run] [--snapshots] [--json]",
	summary = "free what no image, snapshot or machine needs",
}

local types = {
	store = "string", json = "flag", snapshots = "flag", timeout = "integer", ["dry-run"] = "flag",
	["min-age"] = "integer",
}

--- Options in seconds: --min-age spares what is younger, --timeout is how long to wait for pulls and bakes (60).
function gc.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(gc, rest) end
	if #rest > 0 then return arguments.misuse(gc, "no words are expected") end
	for _, name in ipairs { "min_age", "timeout" } do
		if options[name] and options[name] < 0 then
			return arguments.misuse(gc, ("option --%s: must not be negative"):format((name:gsub("_", "-"))))
		end
	end
	local report, message, code = sm.store.gc {
		store = options.store, json = options.json, snapshots = options.snapshots, dry_run = options.dry_run,
		min_age_s = options.min_age, timeout_ms = (options.timeout or 60) * 1000,
	}
	if code == "ETIMEDOUT" then message = "gc: the store is in use: a pull or a bake is under way" end
	if not report then return arguments.failed(message) end
	if options.json then
		print(report)
		return 0
	end
	for _, path in ipairs(report.unreadable) do
		io.stderr:write(("supermachine: snapshot %s cannot be made out: no EROFS file is removed\n"):format(path))
	end
	for _, item in ipairs(report.removed) do print(item.kind, item.name) end
	io.stderr:write(("%s %s\n"):format(report.dry_run and "would free" or "freed", table_text.bytes(report.removed_bytes)))
	return 0
end

return gc
