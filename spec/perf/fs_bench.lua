-- Mounts: bytes and names through virtio-fs, in microseconds per MiB or per operation (spec/perf/fs_load.c; the guest's
-- caches are dropped before each kind of work).
--
--   fs.X        cache = "auto", against QEMU's microvm machine with Debian's virtiofsd, cache=auto, the same guest
--               kernel and the same folder
--   fs.X.tmpfs  the same, against the guest's own tmpfs: what the host's round trip costs
--   fs.X.dax    with the DAX window, against the same without: the guest has no copy of the content
local build = require "spec.support.build"
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local paths = require "supermachine.paths"
local scratch = require "spec.support.scratch"

local memory_mib <const>, rounds <const>, mib <const>, files <const> = 256, 3, 4, 100
local tree_folders <const>, tree_files <const> = 100, 100
local program <const> = build.dir .. "/spec/perf/fs_load"
local order <const> = {
	"write.seq", "read.seq", "read.random", "write.random", "create", "stat", "readdir", "unlink", "walk",
}
-- What the window is for.
local mapped <const> = { ["write.seq"] = true, ["read.seq"] = true, ["read.random"] = true, ["write.random"] = true }

-- { name = { a sample a round } } from the program's lines.
local function samples(text)
	local all = {}
	for name, value in text:gmatch "(%S+) (%d+%.%d+) %d+" do
		all[name] = all[name] or {}
		table.insert(all[name], tonumber(value))
	end
	for _, name in ipairs(order) do
		assert(name == "walk" or all[name] and #all[name] == rounds, name .. ": " .. text)
	end
	return all
end

local function ours(shared)
	local vm <close> = assert(lab.image("busybox"):boot { memory_mib = memory_mib, timeout_ms = 120000, mounts = {
		{ host = shared, guest = "/mnt/plain", cache = "auto", dax = false },
		{ host = shared, guest = "/mnt/dax", cache = "auto" },
	} })
	local function load(folder, tree)
		local work = folder .. "/work"
		return samples(lab.shell(vm, ("mkdir %s && /mnt/plain/fs_load %s %d %d %d %s && rmdir %s"):format(work, work,
			rounds, mib, files, tree or "", work), { timeout_ms = 600000 }))
	end
	return load("/mnt/plain", "/mnt/plain/tree"), load("/mnt/dax"), load "/dev/shm"
end

local function theirs(folder, shared)
	return samples(scratch.run(("python3 spec/perf/qemu_fs.py %s %s %s %d %s %s auto %d,%d,%d,/fs/tree"):format(
		scratch.run "vendor/testhost/qemu x86_64", assert(paths.kernel()), program, memory_mib, folder.path, shared,
		rounds, mib, files)))
end

return {
	tier = "lab",
	run = function(report)
		if core.plan({}).arch ~= "x86_64" then return end
		local folder <close> = folders.new()
		local shared = folder:join "shared"
		scratch.run(("mkdir -p %s/tree && cp %s %s/fs_load"):format(shared, program, shared))
		scratch.run(("cd %s/tree && for i in $(seq %d); do mkdir $i && (cd $i && seq %d | xargs touch); done"):format(shared,
			tree_folders, tree_files))
		local plain, dax, memory = ours(shared)
		local qemu = theirs(folder, shared)
		for _, name in ipairs(order) do
			report { name = "fs." .. name, unit = "us", samples = plain[name], against = "qemu virtiofsd",
				against_samples = qemu[name] }
			if memory[name] then
				report { name = "fs." .. name .. ".tmpfs", unit = "us", samples = plain[name],
					against = "the guest's tmpfs", against_samples = memory[name] }
			end
			if mapped[name] then
				report { name = "fs." .. name .. ".dax", unit = "us", samples = dax[name], against = "fs." .. name,
					against_samples = plain[name] }
			end
		end
	end,
}
