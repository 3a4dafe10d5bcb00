--- Volumes: files of the host as disks of a guest.  What docs/volumes.md says is checked here, once.
local options = require "supermachine.options"

local volumes = {}

local VOLUMES_MAX <const>, MIB_MAX <const> = 64, 1 << 32

local types = {
	host = "string", guest = "string", size_mib = "integer", readonly = "boolean", format = "boolean",
	overlay = "boolean",
}

--- An absolute path without "//", a "/" at its end, "." and ".."; nil for one that is none, and for the root.
function volumes.plain(path)
	if path:sub(1, 1) ~= "/" then return nil end
	path = path:gsub("/+", "/"):gsub("(.)/$", "%1")
	if path == "/" or (path .. "/"):find "/%.%.?/" or #path >= 4096 or path:find "%z" then return nil end
	return path
end

-- One volume as the core takes it; or nil and what is wrong.
local function normal(given)
	local out = { host = given.host, readonly = given.readonly, format = given.format ~= false, overlay = given.overlay }
	if not given.host or given.host == "" or given.host:find "%z" then return nil, "host: a path expected" end
	if given.guest then
		out.guest = volumes.plain(given.guest)
		if not out.guest then
			return nil, ("guest: an absolute path, without '.' and '..', expected, got '%s'"):format(given.guest)
		end
	elseif out.format then
		return nil, "guest: a path expected; without one it is a raw disk: format = false"
	end
	if given.size_mib then
		if given.size_mib < 1 or given.size_mib > MIB_MAX then
			return nil, ("size_mib: 1 to %d expected, got %d"):format(MIB_MAX, given.size_mib)
		end
		out.bytes = given.size_mib << 20
	end
	if given.readonly and given.overlay then return nil, "overlay: nothing is written to what is read-only" end
	return out
end

--- The list `given` (option 'volumes'; nil: none) as the core takes it.  Raises at the caller's caller.
function volumes.check(given, level)
	level = (level or 1) + 2
	if given == nil then return nil end
	if #given > VOLUMES_MAX then error(("option 'volumes': at most %d"):format(VOLUMES_MAX), level) end
	local out, guests = {}, {}
	for i, volume in ipairs(given) do
		local fine, checked = pcall(options.check, types, volume, 0)
		local normalized, wrong
		if fine then
			normalized, wrong = normal(checked)
		else
			wrong = tostring(checked):gsub("^[^ ]+:%d+: ", "")
		end
		if not wrong and normalized.guest and guests[normalized.guest] then
			wrong = ("guest: %s is there twice"):format(normalized.guest)
		end
		if wrong then error(("option 'volumes'[%d]: %s"):format(i, wrong), level) end
		if normalized.guest then guests[normalized.guest] = true end
		out[i] = normalized
	end
	return out
end

--- The same list with files that are not written to: what a machine writes is its own.
function volumes.overlaid(given)
	local out = {}
	for i, volume in ipairs(given) do
		out[i] = {}
		for key, value in pairs(volume) do out[i][key] = value end
		if not volume.readonly then out[i].overlay = true end
	end
	return out
end

return volumes
