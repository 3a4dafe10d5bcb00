--- Where the files are that a machine needs besides the image: guest kernel, guest init, cached initramfs.
local core = require "supermachine.core"

local paths = {}

local function readable(path)
	local file = io.open(path, "rb")
	if file then file:close() end
	return file ~= nil
end

--- The folders to look in, first to last: $SUPERMACHINE_LIBDIR, the running executable's, the source tree's build
-- folder, the installed one.
local function folders()
	local list = {}
	local function add(path) if path and path ~= "" then list[#list + 1] = path end end
	add(os.getenv "SUPERMACHINE_LIBDIR")
	add(core.executable_dir())
	local here = debug.getinfo(1, "S").source:match "^@(.*)/lua/supermachine/paths%.lua$"
	add(here and here .. "/build")
	add(core.libdir)
	return list
end

local function find(name, what, hint)
	local tried = {}
	for _, folder in ipairs(folders()) do
		local path = folder .. "/" .. name
		if readable(path) then return path end
		tried[#tried + 1] = path
	end
	return nil, ("%s not found (%s): looked at %s"):format(what, hint, table.concat(tried, ", ")), "ENOENT"
end

--- The guest kernel: `given`, $SUPERMACHINE_KERNEL, or the one that `make kernel` built.
function paths.kernel(given)
	given = given or os.getenv "SUPERMACHINE_KERNEL"
	if given and given ~= "" then
		if readable(given) then return given end
		return nil, ("kernel %s: cannot be read"):format(given), "ENOENT"
	end
	return find("vmlinux", "guest kernel", "`make kernel` builds it; SUPERMACHINE_KERNEL names another")
end

--- The modules of a kernel: the folder `modules` beside it, as vendor/kernel/debian lays it out, or nil.
function paths.modules(kernel)
	local folder = (kernel:match "^(.*/)" or "") .. "modules"
	return readable(folder .. "/modules.order") and folder or nil
end

--- The guest's init and agent.
function paths.guest()
	return find("supermachine-guest", "guest init", "`make` builds it; SUPERMACHINE_LIBDIR names its folder")
end

--- An initramfs of init and `modules` (a folder of .ko files and modules.order, their names in load order; nil: none),
-- made once for each content.  Returns its path.
function paths.initramfs(modules)
	local guest, message, code = paths.guest()
	if not guest then return nil, message, code end
	local entries = { { path = "init", mode = 493, file = guest } } -- 0755
	local inputs = { assert(core.sha256_file(guest)) }
	if modules then
		local list = modules .. "/modules.order"
		if not readable(list) then
			return nil, ("modules: %s: cannot be read"):format(list), "ENOENT"
		end
		entries[#entries + 1] = { path = "modules/list", mode = 420, file = list }
		for name in io.lines(list) do
			entries[#entries + 1] = { path = "modules/" .. name, mode = 420, file = modules .. "/" .. name }
		end
		for _, entry in ipairs(entries) do
			local digest, digest_message, digest_code = core.sha256_file(entry.file)
			if not digest then return nil, digest_message, digest_code end
			inputs[#inputs + 1] = entry.path .. "=" .. digest
		end
	end
	local folder
	folder, message, code = core.cache_dir()
	if not folder then return nil, message, code end
	local path = ("%s/initramfs-%s.cpio"):format(folder, core.sha256(table.concat(inputs, "\n")):sub(1, 16))
	if readable(path) then return path end
	local ok
	ok, message, code = core.initramfs(path, entries)
	if not ok then return nil, message, code end
	return path
end

return paths
