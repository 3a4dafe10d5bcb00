--- Mounts: folders and files of the host in a guest's file system.  What docs/mounts.md says is checked here, once.
local core = require "supermachine.core"
local options = require "supermachine.options"

local mounts = {}

local TAG_MAX <const>, RANGES_MAX <const>, MOUNTS_MAX <const> = 36, 8, 64

local types = {
	host = "string", guest = "string", readonly = "boolean", tag = "string", cache = "string", symlinks = "string",
	owners = "any", xattrs = "list", writeback = "boolean", locks = "string", dax = "boolean",
}
-- As in src/plan/mount.h.
local choices = {
	cache = { strict = 0, auto = 1, always = 2 },
	symlinks = { opaque = 0, deny = 1, follow = 2 },
	owners = { squash = 0, passthrough = 2 },
	locks = { guest = false, host = true },
}
local OWNERS_MAP <const> = 1

local function choose(key, value, default)
	local known = choices[key]
	if value == nil then value = default end
	if known[value] ~= nil then return known[value] end
	local names = {}
	for name in pairs(known) do names[#names + 1] = name end
	table.sort(names)
	return nil, ("%s: %s expected, got '%s'"):format(key, table.concat(names, ", "), tostring(value))
end

-- { {guest=, host=, count=}, ... } -> a flat list.
local function ranges(given)
	local flat = {}
	if #given == 0 or #given > RANGES_MAX then return nil, ("owners: 1 to %d ranges expected"):format(RANGES_MAX) end
	for i, range in ipairs(given) do
		for _, key in ipairs { "guest", "host", "count" } do
			local value = type(range) == "table" and range[key] or nil
			if math.type(value) ~= "integer" or value < 0 or value > 0xffffffff then
				return nil, ("owners[%d]: guest, host and count expected, numbers from 0 to 4294967295"):format(i)
			end
			flat[#flat + 1] = value
		end
		if range.count == 0 or math.max(range.guest, range.host) + range.count > 1 << 32 then
			return nil, ("owners[%d]: a count from 1 on, and no number past 4294967295, expected"):format(i)
		end
	end
	return flat
end

local function plain(path)
	if path:sub(1, 1) ~= "/" then return nil end
	path = path:gsub("/+", "/"):gsub("(.)/$", "%1")
	if path == "/" or (path .. "/"):find "/%.%.?/" or #path >= 4096 or path:find "\0" then return nil end
	return path
end

local function names(list)
	for i, name in ipairs(list) do
		if type(name) ~= "string" or name == "" or name:find "[,%z]" then
			return nil, ("xattrs[%d]: a name like 'user.*' expected"):format(i)
		end
	end
	return table.concat(list, ",")
end

-- One mount as the core takes it; or nil and what is wrong.
local function normal(given, wants_tag)
	local out = { host = given.host, writeback = given.writeback, readonly = given.readonly }
	local wrong
	if not given.host or given.host == "" or given.host:find "\0" then return nil, "host: a path expected" end
	out.guest = given.guest and plain(given.guest)
	if not out.guest then
		return nil, ("guest: an absolute path, without '.' and '..', expected, got '%s'"):format(tostring(given.guest))
	end
	for key in pairs { cache = 1, symlinks = 1 } do
		out[key], wrong = choose(key, given[key], key == "cache" and "strict" or "opaque")
		if wrong then return nil, wrong end
	end
	out.host_locks, wrong = choose("locks", given.locks, "guest")
	if wrong then return nil, wrong end
	if type(given.owners) == "table" then
		out.owners = OWNERS_MAP
		out.ranges, wrong = ranges(given.owners)
	else
		out.owners, wrong = choose("owners", given.owners, "squash")
	end
	if wrong then return nil, wrong end
	if given.xattrs then
		out.xattrs, wrong = names(given.xattrs)
		if wrong then return nil, wrong end
	end
	if given.writeback and out.cache == choices.cache.strict then
		return nil, "writeback: not with cache = 'strict', which has the host see each write"
	end
	if given.tag then
		if not wants_tag then return nil, "tag: the slot has its own" end
		if given.tag == "" or #given.tag > TAG_MAX or given.tag:find "[%c,]" then
			return nil, ("tag: 1 to %d bytes expected"):format(TAG_MAX)
		end
		if given.tag:find "^mount%d+$" then return nil, ("tag: '%s' is a slot's own"):format(given.tag) end
		out.tag = given.tag
	end
	out.dax = given.dax ~= false
	return out
end

--- Whether SUPERMACHINE_VIRTIOFS_DAX says that new machines are to have no DAX window.
function mounts.dax_off()
	local off = { ["0"] = true, off = true, ["false"] = true, no = true }
	return off[(os.getenv "SUPERMACHINE_VIRTIOFS_DAX" or ""):lower()] == true
end

--- The list `given` (option 'mounts'; nil: none) as the core takes it.  Raises at the caller's caller.  tagged: a new
-- machine's, which may have tags.
function mounts.check(given, tagged, level)
	level = (level or 1) + 2
	if given == nil then return nil end
	if #given > MOUNTS_MAX then error(("option 'mounts': at most %d"):format(MOUNTS_MAX), level) end
	local out, guests, tags = {}, {}, {}
	for i, mount in ipairs(given) do
		local fine, checked = pcall(options.check, types, mount, 0)
		local normalized, wrong
		if fine then
			normalized, wrong = normal(checked, tagged)
		else
			wrong = tostring(checked):gsub("^[^ ]+:%d+: ", "")
		end
		if not wrong and guests[normalized.guest] then
			wrong = ("guest: %s is there twice"):format(normalized.guest)
		end
		if not wrong and normalized.tag and tags[normalized.tag] then
			wrong = ("tag: '%s' is there twice"):format(normalized.tag)
		end
		if wrong then error(("option 'mounts'[%d]: %s"):format(i, wrong), level) end
		guests[normalized.guest] = true
		if normalized.tag then tags[normalized.tag] = true end
		out[i] = normalized
	end
	return out
end

--- The option's value as words, for the name of a bake: all but what is in the folders.  Or nil, message, code.
function mounts.words(given)
	local words = {}
	for i, mount in ipairs(mounts.check(given, true) or {}) do
		local host, message, code = core.real_path(mount.host)
		if not host then return nil, ("mount %d: host path %s"):format(i, message), code end
		mount.host = host
		local keys = {}
		for key in pairs(mount) do keys[#keys + 1] = key end
		table.sort(keys)
		for _, key in ipairs(keys) do
			local value = mount[key]
			value = type(value) == "table" and table.concat(value, " ") or tostring(value)
			words[#words + 1] = ("mount %d %s %d %s"):format(i, key, #value, value)
		end
	end
	return words
end

return mounts
