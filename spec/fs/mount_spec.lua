-- A guest on mounts: the POSIX suite and real programs, on three mounts of different modes at once, in a machine that
-- was booted, one that was restored, and that one reset.  The server's own part of it is judged in large numbers by
-- spec/fuse/posix_spec.lua; so a restored guest gets what the window, the transport and the session have a part in.
--
-- SUPERMACHINE_CYCLES=N: N times each.  SUPERMACHINE_LONG=1: all groups and all programs each time, these in the
-- numbers that they have on a host (an hour and a half in an emulated one).
local build = require "spec.support.build"
local file_system = require "spec.support.file_system"
local lab = require "spec.support.lab"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local cycles = math.tointeger(tonumber(os.getenv "SUPERMACHINE_CYCLES" or "1"))
local long = os.getenv "SUPERMACHINE_LONG" ~= nil
local timeout_ms <const> = long and 3600000 or 1200000

-- Those who see another's files as they are need root on the host.
local owners = scratch.is_root() and "passthrough" or "squash"
-- skip: with writeback the kernel takes what is written before the host is asked for room, and counts no blocks.
local modes = {
	{ guest = "/mnt/strict", cache = "strict" },
	{ guest = "/mnt/auto", cache = "auto", dax = false },
	{ guest = "/mnt/always", cache = "always", writeback = true, skip = { "space.used-up", "sparse.blocks" } },
}
if owners == "squash" then
	for _, mode in ipairs(modes) do
		mode.skip = table.move({ "perms", "owners", "times.who-may", "special.nodes" }, 1, 4, #(mode.skip or {}) + 1,
			mode.skip or {})
	end
end
-- What lives in the session, the window and the transport.
local session <const> = { "mmap", "data", "locks", "unlinked", "parallel" }
local workloads = long and { git = 500, tree = 10000, sqlite = 200, build = 100 }
	or { git = 10, tree = 40, sqlite = 4, build = 3 }

describe("a Linux guest on three mounts #lab", function()
	local systems, mounts = {}, {}

	setup(function()
		for i, mode in ipairs(modes) do
			local fs = file_system.new(long and 400 or 48)
			systems[i] = fs
			mounts[i] = {
				host = fs.path, guest = mode.guest, cache = mode.cache, dax = mode.dax, writeback = mode.writeback,
				owners = owners,
			}
			scratch.run(("cp %s/spec/fs/posix spec/fs/workloads/*.sh %s"):format(build.dir, fs.path))
			scratch.run(("chmod 755 %s/posix"):format(fs.path))
		end
	end)
	teardown(function()
		for _, fs in ipairs(systems) do fs:close() end
	end)

	local function suite(vm, mode, groups)
		local argv = { mode.guest .. "/posix" }
		local function add(...) table.move({ ... }, 1, select("#", ...), #argv + 1, argv) end
		for _, name in ipairs(mode.skip or {}) do add("--skip", name) end
		for _, name in ipairs(groups or {}) do add("--only", name) end
		add("--entries", "30", "--rounds", "3", "--workers", "2", "--full", tostring(512 << 20))
		add(mode.guest)
		local result = assert(vm:exec(argv, { timeout_ms = timeout_ms }))
		assert.are.equal("", (result.stdout:gsub("[^\n]+\n$", "")), mode.guest)
		assert.matches("^[1-9]%d+ passed, 0 failed, 0 cannot run\n$", result.stdout, nil, result.stderr)
	end

	local function work(vm, mode, names)
		for _, name in ipairs(names) do
			local folder = mode.guest .. "/" .. name
			local said = lab.shell(vm, ("mkdir %s && sh %s/%s.sh %s %d 2>&1 && rm -r %s"):format(folder, mode.guest, name,
				folder, workloads[name], folder), { timeout_ms = timeout_ms })
			assert.are.equal("ok", said:match "[^\n]*$", name)
		end
	end

	-- At once: the suite on one mount, programs on the others; each turn another has the suite.
	local turn = 2
	local function all(vm, groups, first, second)
		if long then groups, first, second = nil, { "git", "build" }, { "tree", "sqlite" } end
		for _ = 1, cycles do
			turn = turn + 1
			local function at(i) return modes[(turn + i) % 3 + 1] end
			sm.run(function()
				sm.go(function() suite(vm, at(0), groups) end)
				sm.go(function() work(vm, at(1), first) end)
				sm.go(function() work(vm, at(2), second) end)
			end)
		end
		-- Nothing is left, for the guest or for the host.
		for i, fs in ipairs(systems) do
			assert.are.equal(scratch.run("ls -A " .. fs.path), lab.shell(vm, "ls -A " .. modes[i].guest))
			assert.is_nil(scratch.run("ls -A " .. fs.path):find("posix-", 1, true))
		end
	end

	it("passes the POSIX suite when booted", function()
		local vm <close> = assert(lab.image("tools"):boot { memory_mib = 256, mounts = mounts, timeout_ms = 120000 })
		all(vm, nil, {}, {})
	end)

	it("does so when restored and when reset, and git, sqlite, a build and a package tree work", function()
		local snapshot <close> = assert(lab.image("tools"):bake { memory_mib = 256, mounts = mounts, timeout_ms = 120000 })
		local vm <close> = assert(snapshot:restore { timeout_ms = 120000 })
		all(vm, session, { "git" }, { "sqlite" })
		assert(vm:reset { timeout_ms = 120000 })
		all(vm, session, { "build" }, { "tree" })
	end)
end)
