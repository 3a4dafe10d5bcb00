--- The image store: what lies in it, what it costs, and taking out what nothing needs.
--
-- Every function takes store = its folder (default: the user's) and json = true (the result as JSON text) beside its
-- own options.  Names are references as image.pull takes them, or digests, or 8 or more hex digits of one.
local core = require "supermachine.core"
local options = require "supermachine.options"
local scheduler = require "supermachine.scheduler"

local store = {}

local function call(word, types, given, arguments)
	types.store, types.json, types.timeout_ms = "string", "boolean", "integer"
	local checked = options.check(types, given, 2)
	local timeout_ms = checked.timeout_ms
	checked.timeout_ms = nil
	for _, argument in ipairs(arguments or {}) do
		local key, value = argument[1], argument[2]
		if type(value) ~= "string" then
			error(("%s: string expected, got %s"):format(key, type(value)), 3)
		end
		checked[key] = value
	end
	return scheduler.finish(core.store_begin(word, checked), timeout_ms)
end

--- The references, by name: a list of { reference, platform, digest, size, layers, created, time, complete, error }.
function store.list(given) return call("list", {}, given) end

--- Everything about one image.  Options: platform.
function store.inspect(name, given)
	return call("inspect", { platform = "string" }, given, { { "name", name } })
end

--- Space on the disk: of blobs, EROFS files, snapshots and temporaries, and of each image, shared and unique.
function store.du(given) return call("du", {}, given) end

--- Give an image another name.  Options: platform.
function store.tag(name, new_name, given)
	return call("tag", { platform = "string" }, given, { { "name", name }, { "new_name", new_name } })
end

--- Forget a name; what it led to stays until gc.  Options: platform.  Returns a list of what was removed.
function store.remove(name, given)
	return call("remove", { platform = "string" }, given, { { "name", name } })
end

--- Remove what no reference, snapshot, open image or machine needs, and what dead processes left.  Waits for pulls and
-- bakes that are under way (timeout_ms).  Options: dry_run, min_age_s = 0 (spare what is younger), snapshots = true
-- (baked snapshots of images without a reference, too).
function store.gc(given)
	return call("gc", { dry_run = "boolean", min_age_s = "integer", snapshots = "boolean" }, given)
end

--- Hash every blob and look at every EROFS file and reference.  Options: name and platform (what that one image needs
-- alone), remove = true (what is damaged, so that the next pull or bake makes it anew).
function store.verify(given)
	return call("verify", { name = "string", platform = "string", remove = "boolean" }, given)
end

return store
