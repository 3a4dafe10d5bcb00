-- Which pages a machine touches, recorded beside its snapshot, and read ahead by who restores it next.
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local records = require "spec.support.records"
local resources = require "spec.support.resources"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local MIB <const> = 1 << 20
local PAGE <const> = 4096
local data <const> = guest.entry + 2 * MIB
local step <const> = 97 -- pages between two that are read
local reads <const> = 40

-- Offsets in the RAM file of the pages that the guest reads: one in `step` of 16 MiB that are all full; and of those
-- that it writes to.
local wanted, stored = {}, {}
for i = 1, reads do
	wanted[i] = data - guest.ram_base + (i - 1) * step * PAGE
	stored[i] = wanted[i] + 40 * PAGE
end

local function snapshot_of(folder)
	local code = {}
	for i, offset in ipairs(wanted) do code[i] = guest.load(guest.ram_base + offset) end
	for _, offset in ipairs(stored) do code[#code + 1] = guest.store(guest.ram_base + offset, 0x7a7a7a7a) end
	code = table.concat(code) .. guest.print "y" .. guest.spin()
	local kernel = guest.write(folder:join "kernel", code .. ("x"):rep(18 * MIB - #code))
	local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = 64 })
	assert(vm:snapshot(folder:join "snapshot"))
	return folder:join "snapshot"
end

-- A machine that has read and written them.
local function run(snapshot, transport)
	local vm = assert(snapshot:restore { transport = transport, learn = true })
	while vm:console() == "" do end
	return vm
end

local function learned(folder, transport)
	local path = snapshot_of(folder)
	local snapshot <close> = assert(sm.snapshot.open(path))
	local vm <close> = run(snapshot, transport)
	assert.is_true(vm:learn())
	return path
end

local function set_of(path)
	local snapshot <close> = assert(sm.snapshot.open(path))
	return snapshot:working_set()
end

local function has(set, offset)
	for _, extent in ipairs(set) do
		if offset >= extent.offset and offset < extent.offset + extent.bytes then return true end
	end
	return false
end

local function pages(set)
	local count = 0
	for _, extent in ipairs(set) do count = count + extent.bytes // PAGE end
	return count
end

-- Linux tells single pages apart from 6.7 on, where userfaultfd(2) is allowed.
local function is_exact()
	local major, minor = scratch.run "uname -r":match "^(%d+)%.(%d+)"
	return tonumber(major) * 1000 + tonumber(minor) >= 6007
end

describe("the working set of a snapshot #kvm", function()
	for _, transport in ipairs { "direct", "worker" } do
		it("has what the guest touched (" .. transport .. ")", function()
			local folder <close> = folders.new()
			local set = assert(set_of(learned(folder, transport)))
			for i, offset in ipairs(wanted) do
				assert.is_true(has(set, offset), offset)
				assert.is_true(has(set, stored[i]) and has(set.written, stored[i]), stored[i])
				assert.is_false(has(set.written, offset), offset)
			end
			local last = 0
			for _, extent in ipairs(set) do
				assert.is_true(extent.offset >= last and extent.bytes > 0)
				last = extent.offset + extent.bytes
			end
			assert.is_true(last <= 64 * MIB)
			if is_exact() then
				assert.is_true(pages(set) < 2 * reads + 16, pages(set))
				assert.is_true(pages(set.written) < reads + 16, pages(set.written))
				for _, offset in ipairs(wanted) do assert.is_false(has(set, offset + step // 2 * PAGE)) end
			end
		end)

		it("is the machine's own where it will write, before its guest runs (" .. transport .. ")", function()
			local folder <close> = folders.new()
			local path = learned(folder, transport)
			-- KiB of RAM that are copies of the file's.
			local function own(vm)
				local ours, sum = false, 0
				for line in io.lines(("/proc/%s/smaps"):format(vm:pid() or "self")) do
					if line:match "^%x+%-%x+ " then ours = line:find(path .. "/ram", 1, true) end
					sum = sum + (ours and tonumber(line:match "^Anonymous: +(%d+)") or 0)
				end
				return sum
			end
			do
				local snapshot <close> = assert(sm.snapshot.open(path, { prefetch = false }))
				local vm <close> = assert(snapshot:restore { transport = transport, paused = true })
				assert.is_true(own(vm) < reads * PAGE // 1024)
			end
			local snapshot <close> = assert(sm.snapshot.open(path))
			local vm <close> = assert(snapshot:restore { transport = transport, paused = true })
			local until_ms = core.now_ms() + 60000
			while own(vm) < reads * PAGE // 1024 do assert.is_true(core.now_ms() < until_ms, own(vm)) end
			-- What it holds is what it held.
			assert(vm:snapshot(folder:join "again"))
			assert.are.equal("", scratch.run(("cmp %s/ram %s/ram"):format(path, folder:join "again")))
		end)
	end

	it("is not there until somebody has learned it, and a booted machine has none", function()
		local folder <close> = folders.new()
		local set, message, code = set_of(snapshot_of(folder))
		assert.are.same({ nil, "ENOENT" }, { set, code })
		assert.matches("working set of snapshot .*/snapshot: ", message)
		local vm <close> = assert(sm.vm.new { kernel = folder:join "kernel", memory_mib = 64 })
		local done
		done, message, code = vm:learn()
		assert.are.same({ nil, "EINVAL" }, { done, code })
		assert.matches("was booted", message)
	end)

	it("of a machine that leans on others is found in their files", function()
		local folder <close> = folders.new()
		local path = snapshot_of(folder)
		local parent <close> = assert(sm.snapshot.open(path))
		do
			local vm <close> = run(parent)
			assert(vm:pause())
			assert(vm:snapshot(folder:join "child", nil, { diff = true }))
		end
		local child <close> = assert(sm.snapshot.open(folder:join "child"))
		do
			local vm <close> = assert(child:restore { paused = true })
			assert.is_true(vm:learn())
		end
		assert.is_truthy(set_of(folder:join "child"))
		local again <close> = assert(sm.snapshot.open(folder:join "child"))
		local vm <close> = assert(again:restore())
		assert.is_truthy(vm)
	end)

	it("is ignored when it is damaged, hostile or of another snapshot, which says so", function()
		local folder <close> = folders.new()
		local path = learned(folder)
		local file = path .. "/working-set"
		local sound = scratch.read(file)
		local payload = records.parse(sound)[1].payload
		local sha256 = payload:sub(1, 4 + 64)
		local function extents(...)
			local list = { ... }
			local body = ("<I4"):pack(#list // 2)
			for _, word in ipairs(list) do body = body .. ("<I8"):pack(word) end
			return core.record_write("EXTS", 1, body)
		end
		local function file_of(all, written) return core.record_write("WSET", 2, sha256 .. all .. written) end
		local none = extents()
		local many = {}
		for i = 0, 1024 do many[2 * i + 1], many[2 * i + 2] = 2 * i * PAGE, PAGE end
		local machines = 0
		for name, bytes in pairs {
			empty = "", cut = sound:sub(1, -2), longer = sound .. "x", large = ("x"):rep(1 << 17),
			flipped = sound:sub(1, 100) .. string.char(sound:byte(101) ~ 1) .. sound:sub(102),
			["another version"] = core.record_write("WSET", 3, payload),
			["the version before"] = core.record_write("WSET", 1, sha256 .. none),
			["another snapshot"] = core.record_write("WSET", 2, ("<s4"):pack(("0"):rep(64)) .. payload:sub(69)),
			["past RAM"] = file_of(extents(64 * MIB - PAGE, 2 * PAGE), none),
			["far past RAM"] = file_of(extents(-PAGE, 2 * PAGE), none),
			["out of order"] = file_of(extents(8 * PAGE, PAGE, 0, PAGE), none),
			["no pages"] = file_of(extents(1, PAGE), none), ["too many"] = file_of(extents(table.unpack(many)), none),
			["written past RAM"] = file_of(none, extents(64 * MIB, PAGE)),
			["written, no pages"] = file_of(none, extents(1, PAGE)),
		} do
			scratch.write(file, bytes)
			local snapshot <close> = assert(sm.snapshot.open(path))
			local set, message, code = snapshot:working_set()
			assert.is_nil(set, name)
			assert.is_truthy(code == "EBADMSG" or name == "large", name .. ": " .. tostring(message))
			local vm <close> = assert(snapshot:restore { paused = true })
			machines = machines + (vm and 1 or 0)
		end
		assert.are.equal(15, machines)
		-- A name that is no file, and one that somebody else may have put there.
		scratch.run(("rm %s && mkfifo %s"):format(file, file))
		assert.is_nil((set_of(path)))
		scratch.run("rm " .. file)
		scratch.write(file, file_of(extents(0, 2 * PAGE), extents(PAGE, PAGE)))
		assert.are.same({ { offset = 0, bytes = 2 * PAGE }, written = { { offset = PAGE, bytes = PAGE } } }, set_of(path))
	end)

	it("is no business of a sealed snapshot, and moves with a copy", function()
		local folder <close> = folders.new()
		local path = learned(folder)
		local sealed <close> = assert(sm.snapshot.open(path, { sealed = true }))
		assert.are.same({ nil, "ENOENT" }, { sealed:working_set(), select(3, sealed:working_set()) })
		local vm <close> = assert(sealed:restore { paused = true })
		assert.is_truthy(vm)
		scratch.run(("cp -r %s %s"):format(path, folder:join "copy"))
		assert.are.same(set_of(path), set_of(folder:join "copy"))
	end)

	it("that cannot be written is an error of learn alone, and leaves nothing", function()
		if not scratch.is_root() then return pending "needs root, to mount a small file system" end
		local folder <close> = folders.new()
		local path, small = snapshot_of(folder), folder:join "small"
		scratch.run(("mkdir %s && mount -t tmpfs -o size=32m none %s && cp -r --sparse=always %s %s"):format(small, small,
			path, small))
		scratch.run("mount -o remount,ro " .. small)
		local done, message, code
		do
			local snapshot <close> = assert(sm.snapshot.open(small .. "/snapshot"))
			local vm <close> = run(snapshot)
			done, message, code = vm:learn()
		end
		local left = scratch.files(small)
		scratch.run("umount " .. small)
		assert.are.same({ nil, "EROFS" }, { done, code })
		assert.matches("working set of snapshot " .. small, message, 1, true)
		assert.are.same({ "snapshot/manifest.json", "snapshot/meta", "snapshot/ram", "snapshot/state" }, left)
	end)

	it("is read ahead by the first restore, without a guest that runs", function()
		local folder <close> = folders.new()
		local path = learned(folder)
		local tool = "python3 spec/support/page_cache.py "
		local function resident(option)
			local set = {}
			for page in scratch.run(tool .. option .. scratch.quote(path .. "/ram")):gmatch "%d+" do
				set[tonumber(page) * PAGE] = true
			end
			return set
		end
		local function how_many(set)
			local count = 0
			for _, offset in ipairs(wanted) do count = count + (set[offset] and 1 or 0) end
			return count
		end
		local in_memory = how_many(resident "--drop ") > 0 -- a tmpfs, of which nothing can be dropped
		if not in_memory then
			local snapshot <close> = assert(sm.snapshot.open(path, { prefetch = false }))
			local vm <close> = assert(snapshot:restore { paused = true })
			assert.are.equal(0, how_many(resident ""))
			assert.is_truthy(vm)
		end
		local snapshot <close> = assert(sm.snapshot.open(path))
		assert.are.equal(in_memory and reads or 0, how_many(resident "--drop "))
		local machines = assert(snapshot:restore_many(4, { paused = true }))
		local until_ms = core.now_ms() + 60000
		-- An emulated host's file systems take no advice.
		local target = os.getenv "TESTHOST" and 0 or reads
		while how_many(resident "") < target do assert.is_true(core.now_ms() < until_ms, "not read ahead") end
		for _, vm in ipairs(machines) do vm:close() end
	end)

	it("leaves no thread and no descriptor behind, however soon all is closed", function()
		local folder <close> = folders.new()
		local path = learned(folder)
		local before, after
		for i = 1, 20 do
			do
				local snapshot <close> = assert(sm.snapshot.open(path))
				local vm <close> = assert(snapshot:restore { paused = true })
				assert.is_truthy(vm)
			end
			after = resources.now()
			if i == 3 then before = after end
		end
		assert.are.same({ before.descriptors, before.threads }, { after.descriptors, after.threads })
	end)
end)
