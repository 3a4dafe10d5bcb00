--- Volumes on the command line: --volume FILE:GUEST[:ro][:size=MIB].
local arguments = require "supermachine.cli.arguments"
local volumes = require "supermachine.volumes"

local cli = {}

cli.types = { volume = "list" }

local EXPECTED <const> = "option --volume: FILE:GUEST[:ro][:size=MIB] is expected"

-- GUEST begins with the first slash behind a colon.
local function parse(word)
	local host, guest, rest = word:match "^(.-):(/[^:]*)(.*)$"
	if not host or host == "" then return nil, EXPECTED end
	local volume = { host = host, guest = guest }
	for part in rest:gmatch ":([^:]*)" do
		local mib = part:match "^size=(%d+)$"
		if part == "ro" then
			volume.readonly = true
		elseif mib then
			volume.size_mib = math.tointeger(tonumber(mib))
		else
			return nil, EXPECTED
		end
	end
	return volume
end

--- The option's words as a list for image:bake and snapshot:restore; nil: there are none; nil and what is wrong.
function cli.list(options)
	if not options.volume then return nil end
	local list = {}
	for i, word in ipairs(options.volume) do
		local volume, wrong = parse(word)
		if not volume then return nil, wrong end
		list[i] = volume
	end
	local fine, wrong = pcall(volumes.check, list, -1)
	if not fine then return nil, wrong end
	return list
end

--- Have the guest write what it still holds of them; `status` is what the process ended with.
function cli.settle(machine, list, status)
	if not list or machine:ended() then return status end
	local fine, message = machine:command("sync", { timeout_ms = 60000 })
	return fine and status or arguments.failed("volumes: " .. message)
end

return cli
