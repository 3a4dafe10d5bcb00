-- A running microguest brought back to its snapshot in place, by how many pages it had written to and by the size of
-- its RAM, against a bare C program that stops such a guest, sets the same state and copies as many pages
-- (floor_ARCH.c).
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lfs = require "lfs"
local sm = require "supermachine"

local batches, runs = 8, 8
local MIB <const> = 1 << 20

local floor_program = build.dir .. "/spec/perf/floor_" .. guest.arch
local has_floor = lfs.attributes(floor_program) ~= nil

local function floor_median(pages)
	local pipe = assert(io.popen(("%s 1 %d 128 %d"):format(floor_program, runs, pages * 4)))
	local text = pipe:read "a"
	assert(pipe:close())
	local us = 0
	for _, stage in ipairs { "stop", "again", "copy" } do us = us + tonumber(text:match(stage .. "%s+([%d.]+)")) end
	return us / 1000
end

-- Says x, then writes to every other page again and again, and says y after each round.
local function snapshot_of(folder, memory_mib, pages)
	local writes = {}
	for i = 1, pages do writes[i] = guest.store_word(guest.ram_base + 8 * MIB + i * 8192) end
	local code = guest.print "x" .. guest.loop(guest.print "y" .. guest.counter() .. table.concat(writes))
	local vm <close> = assert(sm.vm.new { kernel = guest.write(folder:join "kernel", code), memory_mib = memory_mib })
	assert(vm:snapshot(folder:join "snapshot"))
	return assert(sm.snapshot.open(folder:join "snapshot"))
end

local function measure(report, memory_mib, pages)
	local folder <close> = folders.new()
	local snapshot <close> = snapshot_of(folder, memory_mib, pages)
	local vm <close> = assert(snapshot:restore { paused = true })
	local total, floor, bytes = {}, {}, 0
	for batch = 1, batches do
		for _ = 1, runs do
			assert(vm:resume())
			while not vm:console():find "xyy" do end
			local result = assert(vm:reset { paused = true })
			total[#total + 1], bytes = result.total_us / 1000, math.max(bytes, result.copied_bytes + result.dropped_bytes)
		end
		if has_floor then floor[batch] = floor_median(pages) end
	end
	assert(bytes >= pages * 4096)
	report {
		name = ("recycle.reset.%d-pages.%d-mib"):format(pages, memory_mib), unit = "ms", samples = total,
		against = has_floor and "floor" or nil, against_samples = has_floor and floor or nil,
	}
end

return {
	tier = "direct",
	run = function(report)
		for _, memory_mib in ipairs { 128, 4096 } do
			for _, pages in ipairs { 16, 256, 1024, 2048 } do measure(report, memory_mib, pages) end
		end
	end,
}
