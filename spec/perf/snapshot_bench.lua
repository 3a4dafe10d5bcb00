-- Microguests saved: as fast as cp copies the same RAM file, as small as what the guest touched, how long a running one
-- stands still, and by how many pages a diff snapshot has.
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lfs = require "lfs"
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local runs <const> = 8
local MIB <const> = 1 << 20
local PAGE <const> = 4096
local first <const> = guest.ram_base + 8 * MIB

-- A word of the counter to each of `pages` pages, `step` bytes apart.
local function writes(pages, step)
	local list = {}
	for i = 1, pages do list[i] = guest.store_word(first + (i - 1) * step) end
	return guest.counter() .. table.concat(list)
end

-- A machine that has said "x"; it goes on with `body`, again and again.
local function machine(folder, memory_mib, before, body)
	local kernel = guest.write(folder:join "kernel", before .. guest.print "x" .. guest.loop(body))
	local vm = assert(sm.vm.new { kernel = kernel, memory_mib = memory_mib })
	assert(vm:resume())
	while vm:console() == "" do end
	return vm
end

local function milliseconds(command)
	local start = core.now_ms()
	scratch.run(command)
	return core.now_ms() - start
end

-- 4,096 pages of 256 MiB.
local function whole(report)
	local folder <close> = folders.new()
	local vm <close> = machine(folder, 256, writes(4096, 2 * PAGE), guest.nop())
	assert(vm:pause())
	local path, copy = folder:join "snapshot", folder:join "copy"
	local save, total, copied, copied_synced, bytes, touched = {}, {}, {}, {}, {}, {}
	-- Without a process that does nothing, which takes its time, too.
	local nothing = milliseconds "true"
	for i = 1, runs do
		local times = assert(vm:snapshot(path))
		local mib = times.ram_bytes / MIB
		save[i], total[i] = times.capture_us / 1000 / mib, times.total_us / 1000 / mib
		bytes[i] = lfs.attributes(path .. "/ram", "blocks") * 512 / MIB
		touched[i] = 4096 * PAGE / MIB
		copied[i] = (milliseconds(("cp --sparse=always %s/ram %s"):format(path, copy)) - nothing) / mib
		scratch.run("rm " .. copy)
		copied_synced[i] = (milliseconds(("cp --sparse=always %s/ram %s && sync %s"):format(path, copy, copy)) - nothing)
			/ mib
		scratch.run(("rm -r %s %s"):format(path, copy))
	end
	report { name = "snapshot.save.mib", unit = "ms", samples = save, against = "cp", against_samples = copied }
	report {
		name = "snapshot.save-hash-sync.mib", unit = "ms", samples = total, against = "cp and sync",
		against_samples = copied_synced,
	}
	report {
		name = "snapshot.bytes.4096-pages", unit = "MiB", samples = bytes, against = "touched pages",
		against_samples = touched,
	}
end

-- A restored machine that wrote nothing: what is a hole in its file is not read.
local function restored(report, memory_mib)
	local folder <close> = folders.new()
	do
		local vm <close> = machine(folder, memory_mib, writes(256, PAGE), guest.nop())
		assert(vm:snapshot(folder:join "parent"))
	end
	local parent <close> = assert(sm.snapshot.open(folder:join "parent"))
	local vm <close> = assert(parent:restore { paused = true })
	local path, save, copied = folder:join "snapshot", {}, {}
	local nothing = milliseconds "true"
	for i = 1, runs do
		save[i] = assert(vm:snapshot(path)).capture_us / 1000
		copied[i] = milliseconds(("cp --sparse=always %s/ram %s"):format(path, folder:join "copy")) - nothing
		scratch.run(("rm -r %s %s"):format(path, folder:join "copy"))
	end
	report {
		name = ("snapshot.save.restored.%d-mib"):format(memory_mib), unit = "ms", samples = save, against = "cp",
		against_samples = copied,
	}
end

-- Writes to 256 pages all the time; as much again lies still.
local function pause(report)
	local folder <close> = folders.new()
	local vm <close> = machine(folder, 256, writes(4096, 2 * PAGE), writes(256, 2 * PAGE))
	local path, live, stopped = folder:join "snapshot", {}, {}
	for i = 1, runs do
		live[i] = assert(vm:snapshot(path)).pause_us / 1000
		scratch.run("rm -r " .. path)
		local start = core.now_ms()
		assert(vm:pause())
		local times = assert(vm:snapshot(path))
		local saved = core.now_ms()
		assert(vm:resume())
		-- Hash and sync could wait until it runs again.
		stopped[i] = core.now_ms() - start - (saved - start) + times.capture_us / 1000
		scratch.run("rm -r " .. path)
	end
	report {
		name = "snapshot.pause", unit = "ms", samples = live, against = "stopped for all of it", against_samples = stopped,
	}
end

local function difference(report, pages)
	local folder <close> = folders.new()
	do
		local vm <close> = machine(folder, 256, writes(4096, 2 * PAGE),
			guest.print "y" .. writes(pages, 2 * PAGE))
		assert(vm:snapshot(folder:join "parent"))
	end
	local parent <close> = assert(sm.snapshot.open(folder:join "parent"))
	local total, path = {}, folder:join "child"
	for i = 1, runs do
		local vm <close> = assert(parent:restore { paused = true })
		assert(vm:resume())
		while not vm:console():find "yy" do end
		assert(vm:pause())
		local times = assert(vm:snapshot(path, {}, { diff = true }))
		total[i] = times.capture_us / 1000
		assert(times.ram_bytes >= pages * PAGE, times.ram_bytes)
		scratch.run("rm -r " .. path)
	end
	report { name = ("snapshot.diff.%d-pages"):format(pages), unit = "ms", samples = total }
end

return {
	tier = "direct",
	run = function(report)
		whole(report)
		restored(report, 1024)
		pause(report)
		for _, pages in ipairs { 16, 256, 1024, 4096 } do difference(report, pages) end
	end,
}
