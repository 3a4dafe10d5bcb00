-- Snapshots that have only what differs from their parent.
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lfs = require "lfs"
local records = require "spec.support.records"
local scheduler = require "supermachine.scheduler"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local MIB <const> = 1 << 20
local PAGE <const> = 4096
local data <const> = guest.ram_base + 8 * MIB -- where the guests below write

-- Draws a nonce into RAM, says "boot", and prints the nonce again and again, as it runs `body`.
local function nonce_guest(body)
	return guest.print "boot" .. guest.counter() .. guest.store_word(guest.scratch)
		.. guest.loop(guest.load(guest.scratch) .. guest.print_word() .. body)
end

-- A word of the counter to each of `pages` pages, `step` pages apart.
local function writes(pages, step)
	local list = { guest.counter() }
	for i = 1, pages do list[#list + 1] = guest.store_word(data + i * step * PAGE) end
	return table.concat(list)
end

local function console(vm, bytes)
	local text, cursor = "", 0
	while #text < bytes do
		local chunk
		chunk, cursor = assert(vm:console_from(cursor))
		text = text .. chunk
	end
	return text
end

-- A running machine is let run for a while, and paused.
local function run(vm)
	assert(vm:resume())
	local text = console(vm, 16)
	assert(vm:pause())
	return text
end

-- A whole snapshot `name`, and its nonce.
local function saved(folder, name, body, vcpus)
	local vm <close> = assert(sm.vm.new {
		kernel = guest.write(folder:join(name .. "-kernel"), nonce_guest(body or "")), memory_mib = 32, vcpus = vcpus,
	})
	local text = run(vm)
	assert(vm:snapshot(folder:join(name), { name = name }))
	return assert(sm.snapshot.open(folder:join(name))), text:sub(5, 8)
end

-- A child of `parent`, of a machine that has run meanwhile, and then some milliseconds; its whole twin too when `twin`
-- is a path.
local function child_of(parent, path, twin, transport, milliseconds)
	local vm <close> = assert(parent:restore { paused = true, transport = transport })
	run(vm)
	if milliseconds then
		assert(vm:resume())
		scheduler.sleep(milliseconds)
		assert(vm:pause())
	end
	local times = assert(vm:snapshot(path, {}, { diff = true }))
	if twin then assert(vm:snapshot(twin, {})) end
	return times, assert(sm.snapshot.open(path, { verify = true }))
end

local function ram(folder) return scratch.read(folder .. "/ram") end

local function same_ram(one, two) assert.is_true(ram(one) == ram(two), one .. ", " .. two) end

local function refused(code, pattern, nothing, message, found)
	assert.is_nil(nothing)
	assert.matches(pattern, message)
	assert.are.equal(code, found, message)
end

for _, transport in ipairs { "direct", "worker" } do
	describe("a diff snapshot (" .. transport .. ") #kvm", function()
		it("stores what has changed, and is what a whole one is", function()
			local folder <close> = folders.new()
			local parent <close>, nonce = saved(folder, "parent", writes(64, 2), 2)
			assert.is_nil(parent:parent())
			local child, whole, flat = folder:join "child", folder:join "whole", folder:join "flat"
			local times, snapshot <close> = child_of(parent, child, whole, transport)
			assert.is_true(times.ram_bytes >= 64 * PAGE and times.ram_bytes < 256 * PAGE, times.ram_bytes)
			assert.is_true(lfs.attributes(child .. "/ram", "blocks") * 512 <= times.ram_bytes + 64 * 1024)
			assert.are.equal(lfs.attributes(folder:join "parent", "dev"), lfs.attributes(child, "dev"))
			assert.are.equal(scratch.run("realpath " .. folder:join "parent"), snapshot:parent())

			assert(snapshot:flatten(flat))
			same_ram(whole, flat)
			local copy <close> = assert(sm.snapshot.open(flat, { verify = true }))
			assert.is_nil(copy:parent())
			for i, from in ipairs { snapshot, copy } do
				local vm <close> = assert(from:restore { paused = true, transport = transport })
				assert(vm:snapshot(folder:join("again" .. i)))
				same_ram(whole, folder:join("again" .. i))
				assert.is_truthy(run(vm):find(nonce, 1, true))
			end
		end)

		it("is what its machines go back to", function()
			local folder <close> = folders.new()
			local parent <close> = saved(folder, "parent", writes(64, 2))
			local _, snapshot <close> = child_of(parent, folder:join "child", folder:join "whole", transport)
			local vm <close> = assert(snapshot:restore { paused = true, transport = transport })
			for round = 1, 3 do
				run(vm)
				assert(vm:reset { paused = true })
				local path = folder:join("round" .. round)
				assert(vm:snapshot(path))
				same_ram(folder:join "whole", path)
			end
		end)
	end)
end

describe("a diff snapshot #kvm", function()
	it("does not show its parent's bytes where it has zeros", function()
		local folder <close> = folders.new()
		local pause = guest.times(10000, guest.nop())
		local at = data - guest.ram_base
		local function word(path) return string.unpack("<I4", ram(path), at + 1) end
		local parent <close> = saved(folder, "first",
			guest.store(data, 0x5a5a5a5a) .. pause .. guest.print "full" .. pause .. guest.store(data, 0) .. pause)
		-- Snapshots of machines that go on from `origin`, until the word is as wanted.
		local function until_word(origin, name, wanted)
			for i = 1, 200 do
				local path, whole = folder:join(name .. i), folder:join(name .. "whole" .. i)
				-- It always has printed as much: so at another moment each time.
				local _, snapshot = child_of(origin, path, whole, nil, math.random(0, 60))
				if word(whole) == wanted then return snapshot, whole end
				snapshot:close()
				origin = i % 2 == 0 and origin or assert(sm.snapshot.open(whole))
			end
			error "the word never was as wanted"
		end
		local full, full_whole = until_word(parent, "full", 0x5a5a5a5a)
		local empty, empty_whole = until_word(full, "empty", 0)
		assert(full:flatten(folder:join "flat-full"))
		assert(empty:flatten(folder:join "flat-empty"))
		same_ram(full_whole, folder:join "flat-full")
		same_ram(empty_whole, folder:join "flat-empty")
		local vm <close> = assert(empty:restore { paused = true })
		assert(vm:snapshot(folder:join "again"))
		same_ram(empty_whole, folder:join "again")
		full:close()
		empty:close()
	end)

	it("of one of one, 20 deep, still runs; at 32 it says what to do", function()
		local folder <close> = folders.new()
		local snapshot, nonce = saved(folder, "0", writes(8, 3))
		for depth = 1, 31 do
			local vm <close> = assert(snapshot:restore { paused = true })
			if depth <= 20 then assert.is_truthy(run(vm):find(nonce, 1, true)) end
			assert(vm:snapshot(folder:join(tostring(depth)), {}, { diff = true }))
			if depth == 20 then assert(vm:snapshot(folder:join "whole", {})) end
			snapshot:close()
			snapshot = assert(sm.snapshot.open(folder:join(tostring(depth))))
		end
		local vm <close> = assert(snapshot:restore { paused = true })
		refused("E2BIG", "flatten", vm:snapshot(folder:join "32", {}, { diff = true }))
		assert(snapshot:flatten(folder:join "flat"))
		same_ram(folder:join "whole", folder:join "flat")
		assert.is_truthy(run(vm):find(nonce, 1, true))
		snapshot:close()
	end)

	it("of more runs of pages than may be mapped stores what lies between, too", function()
		local folder <close> = folders.new()
		local parent <close> = saved(folder, "parent", writes(2500, 2))
		local path = folder:join "child"
		local times, snapshot <close> = child_of(parent, path, folder:join "whole")
		assert.is_true(times.ram_bytes >= 2500 * PAGE and times.ram_bytes < 6000 * PAGE, times.ram_bytes)
		local vm <close> = assert(snapshot:restore { paused = true })
		local mapped = 0
		for line in io.lines "/proc/self/maps" do
			if line:find(path .. "/ram", 1, true) then mapped = mapped + 1 end
		end
		assert.is_true(mapped > 0 and mapped <= 1024, mapped)
		assert(vm:snapshot(folder:join "again"))
		same_ram(folder:join "whole", folder:join "again")
	end)

	it("is refused without its parent, or with another in its place", function()
		local folder <close> = folders.new()
		local parent <close> = saved(folder, "parent")
		local other <close> = saved(folder, "other")
		local _, snapshot = child_of(parent, folder:join "child")
		snapshot:close()
		local place, child = folder:join "parent", folder:join "child"
		local function open() return sm.snapshot.open(child) end

		assert(os.rename(place, folder:join "away"))
		refused("ENOENT", "child: parent .*/parent: ", open())
		assert(os.rename(other:path(), place))
		refused("EBADMSG", "parent .*/parent: meta: sha256 is .*not what the snapshot was made from", open())
		-- Its meta alone is the right one.
		scratch.run(("cp %s/meta %s/meta"):format(folder:join "away", place))
		refused("EBADMSG", "parent .*/parent: ram: sha256 is", open())
		scratch.run(("truncate -s 4096 %s/ram"):format(place))
		refused("EBADMSG", "parent .*/parent: ram: 4096 bytes", open())

		-- A machine whose parent is gone can only be stored whole.
		local vm <close> = assert(parent:restore { paused = true })
		scratch.run("rm -r " .. place)
		refused("ENOENT", "parent", vm:snapshot(folder:join "none", {}, { diff = true }))
		assert(vm:snapshot(folder:join "all", {}))
		assert(os.rename(folder:join "away", place))
		open():close()
		assert.is_nil(lfs.attributes(folder:join "none"))
	end)

	it("is refused of a machine that was booted", function()
		local folder <close> = folders.new()
		local vm <close> = assert(sm.vm.new {
			kernel = guest.write(folder:join "kernel", guest.spin()), memory_mib = 16,
		})
		refused("EINVAL", "was booted", vm:snapshot(folder:join "none", {}, { diff = true }))
	end)

	it("is refused when what it says of itself is no sense", function()
		local folder <close> = folders.new()
		local parent <close> = saved(folder, "parent")
		local path = folder:join "child"
		select(2, child_of(parent, path)):close()
		local sound = scratch.read(path .. "/meta")
		local function extents(list, count)
			local out = string.pack("<I4", count or #list // 2)
			for _, value in ipairs(list) do out = out .. string.pack("<I8", value) end
			return core.record_write("EXTS", 1, out)
		end
		local function changed(tail)
			return records.changed(sound, "SNAP", function(payload)
				return payload:sub(1, payload:find("EXTS", 1, true) - 1) .. tail
			end)
		end
		local many = {}
		for i = 0, 1024 do many[#many + 1], many[#many + 2] = i * 2 * PAGE, PAGE end
		for name, meta in pairs {
			["past the end"] = changed(extents { 32 * MIB, PAGE }),
			["over the end"] = changed(extents { 31 * MIB, 2 * MIB }),
			wraps = changed(extents { PAGE, -PAGE }),
			empty = changed(extents { PAGE, 0 }),
			odd = changed(extents { 1, PAGE }),
			["odd size"] = changed(extents { PAGE, 1 }),
			["out of order"] = changed(extents { 2 * PAGE, PAGE, 0, PAGE }),
			twice = changed(extents { 0, 2 * PAGE, PAGE, PAGE }),
			["too many"] = changed(extents(many)),
			["more than there are"] = changed(extents({ 0, PAGE }, 2)),
			["fewer than there are"] = changed(extents({ 0, PAGE, PAGE, PAGE }, 1)),
			["none said"] = changed "",
			["two records"] = changed(extents { 0, PAGE } .. extents { 0, PAGE }),
			["another version"] = changed(core.record_write("EXTS", 2, "\0\0\0\0")),
			["two metas"] = sound .. sound,
		} do
			scratch.write(path .. "/meta", meta)
			local snapshot, message, code = sm.snapshot.open(path)
			assert.are.same({ nil, "EBADMSG" }, { snapshot, code }, name .. ": " .. tostring(message))
			assert.matches("meta", message)
		end
		-- Every byte, and every length.
		for at = 1, #sound do
			scratch.write(path .. "/meta", records.flipped(sound, at, 1 << at % 8))
			assert.is_nil(sm.snapshot.open(path), at)
			scratch.write(path .. "/meta", sound:sub(1, at - 1))
			assert.is_nil(sm.snapshot.open(path), at)
		end
		scratch.write(path .. "/meta", sound)
		assert(sm.snapshot.open(path)):close()
	end)

	it("leaves nothing on a full disk", function()
		if not scratch.is_root() then return pending "needs root, to mount a small file system" end
		local folder <close> = folders.new()
		local parent <close> = saved(folder, "parent", writes(500, 2))
		local vm <close> = assert(parent:restore { paused = true })
		run(vm)
		local small = folder:join "small"
		scratch.run(("mkdir %s && mount -t tmpfs -o size=1m none %s"):format(small, small))
		local times, message, code = vm:snapshot(small .. "/child", {}, { diff = true })
		local left = scratch.files(small)
		scratch.run("umount " .. small)
		refused("ENOSPC", "small/child", times, message, code)
		assert.are.same({}, left)
		assert(vm:snapshot(folder:join "child", {}, { diff = true }))
	end)
end)
