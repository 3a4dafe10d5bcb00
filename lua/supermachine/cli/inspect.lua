local arguments = require "supermachine.cli.arguments"
local core = require "supermachine.core"
local sm = require "supermachine"
local table_text = require "supermachine.cli.table"

local inspect = {
	usage = "inspect [--platform P] [--json] NAME",
	summary = "what an image of the store is and wants; a snapshot's folder",
}

local types = { store = "string", platform = "string", json = "flag" }

-- Words as they could be typed.
local function words(list)
	local quoted = {}
	for i, word in ipairs(list) do
		quoted[i] = word:match "^[%w%-_=+./:,@]+$" or ("%q"):format(word):gsub("\\\n", "\\n")
	end
	return table.concat(quoted, " ")
end

local function sorted(labels)
	local list = {}
	for key, value in pairs(labels) do list[#list + 1] = ("%s=%s"):format(key, value) end
	table.sort(list)
	return list
end

-- "CMD curl -f localhost, interval_ms 30000, .."
local function health(check)
	local parts = { words(check.test) }
	for _, name in ipairs { "interval_ms", "timeout_ms", "start_period_ms", "start_interval_ms", "retries" } do
		if check[name] then parts[#parts + 1] = ("%s %.14g"):format(name, check[name]) end
	end
	return table.concat(parts, ", ")
end

local function report(image)
	local rows, process = {}, image.process
	local function row(name, text) if text ~= "" then rows[#rows + 1] = { name, text } end end
	for _, reference in ipairs(image.references) do row("reference", reference) end
	row("digest", image.digest)
	row("config", image.config_digest)
	row("platform", image.platform)
	row("created", image.config.created or "")
	row("size", table_text.bytes(image.size))
	row("entrypoint", words(process.entrypoint))
	row("cmd", words(process.cmd))
	for _, variable in ipairs(process.env) do row("env", words { variable }) end
	row("workdir", process.workdir)
	row("user", process.user)
	row("stop signal", process.stop_signal)
	row("volumes", words(process.volumes))
	row("ports", words(process.exposed_ports))
	if process.healthcheck then row("healthcheck", health(process.healthcheck)) end
	for _, label in ipairs(sorted(process.labels)) do row("label", words { label }) end
	for _, layer in ipairs(image.layers) do
		row("layer", ("%s %s%s"):format(layer.digest, table_text.bytes(layer.size), layer.stored and "" or " (missing)"))
	end
	for _, erofs in ipairs(image.erofs) do row("erofs", ("%s %s"):format(erofs.path, table_text.bytes(erofs.bytes))) end
	for _, snapshot in ipairs(image.snapshots) do row("snapshot", snapshot.path) end
	return rows
end

local function volume_slots(manifest)
	local list = {}
	for key in pairs(manifest) do list[#list + 1] = math.tointeger(tonumber(key:match "^volume%-(%d+)$")) end
	table.sort(list)
	return list
end

local function manifest_rows(manifest)
	local plan, metadata = manifest.plan, manifest.metadata or {}
	local rows = {
		{ "created", manifest.created }, { "host", manifest.host }, { "architecture", plan.arch },
		{ "vCPUs", ("%d"):format(plan.vcpus) }, { "memory", ("%d MiB"):format(plan.memory_mib) },
		{ "stored", table_text.bytes(manifest.ram.data_bytes) }, { "devices", table.concat(plan.devices, " ") },
	}
	for _, slot in ipairs(volume_slots(manifest)) do
		local name = ("volume-%d"):format(slot)
		rows[#rows + 1] = { name, table_text.bytes(manifest[name].bytes) }
	end
	for _, name in ipairs { "reference", "image" } do
		if type(metadata[name]) == "string" then rows[#rows + 1] = { name, metadata[name] } end
	end
	if manifest.parent then rows[#rows + 1] = { "parent", manifest.parent.path } end
	return rows
end

-- The manifest of the snapshot in this folder: its text and its rows; nil when there is none; nil, message.
local function snapshot_report(folder)
	local path = folder .. "/manifest.json"
	local file = io.open(path, "rb")
	if not file then return nil end
	local text = file:read "a"
	file:close()
	local manifest, message = core.json_decode(text)
	if not manifest then return nil, ("%s: %s"):format(path, message) end
	-- Anybody may have written it.
	local fine, rows = pcall(manifest_rows, manifest)
	if not fine then return nil, path .. ": not a snapshot's" end
	return text, rows
end

function inspect.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(inspect, rest) end
	if #rest ~= 1 then return arguments.misuse(inspect, "one name is expected") end
	local text, rows = snapshot_report(rest[1])
	if text then
		if options.json then print(text) else table_text.print(rows) end
		return 0
	elseif rows then
		return arguments.failed(rows)
	end
	local image, message = sm.store.inspect(rest[1],
		{ store = options.store, platform = options.platform, json = options.json })
	if not image then return arguments.failed(message) end
	if options.json then
		print(image)
	else
		table_text.print(report(image))
	end
	return 0
end

return inspect
