-- The picture of the rows `recycle.reset.PAGES-pages.RAM-mib`: time against dirty pages, a line a size of RAM, and
-- one for the floor.  Usage: build/supermachine spec/perf/plot.lua BENCH.json OUT.png   (needs gnuplot)
local core = require "supermachine.core"

local input, output = table.unpack(arg)
assert(output, "usage: plot.lua BENCH.json OUT.png")

local file = assert(io.open(input, "rb"))
local rows = assert(core.json_decode(file:read "a"))
file:close()

-- lines[name] = { { pages, milliseconds }, .. }; floors are drawn as one: the size of RAM is nothing to them.
local lines, names, floors = {}, {}, {}
for _, row in ipairs(rows) do
	local pages, mib = row.name:match "^recycle%.reset%.(%d+)%-pages%.(%d+)%-mib$"
	if pages then
		local name = ("recycle, %d MiB of RAM"):format(mib)
		if not lines[name] then
			lines[name] = {}
			names[#names + 1] = name
		end
		table.insert(lines[name], { tonumber(pages), row.median })
		local floor = row.against_median
		if floor then floors[tonumber(pages)] = math.min(floor, floors[tonumber(pages)] or floor) end
	end
end
assert(#names > 0, input .. " has no row recycle.reset.PAGES-pages.RAM-mib: run make bench")
if next(floors) then
	local name = "floor: stop, memcpy of these pages, state ioctls"
	lines[name], names[#names + 1] = {}, name
	for pages, ms in pairs(floors) do table.insert(lines[name], { pages, ms }) end
end

local plots, data = {}, {}
for i, name in ipairs(names) do
	table.sort(lines[name], function(a, b) return a[1] < b[1] end)
	plots[i] = ("'-' using 1:2 with linespoints linewidth 2 title '%s'"):format(name)
	for _, point in ipairs(lines[name]) do data[#data + 1] = ("%d %.4f"):format(point[1], point[2]) end
	data[#data + 1] = "e"
end

local pipe = assert(io.popen("gnuplot", "w"))
pipe:write(([[
set terminal png size 800,480
set output '%s'
set title 'A used machine back at its snapshot'
set xlabel 'pages of 4 KiB that the guest wrote to'
set ylabel 'milliseconds, median'
set xrange [0:*]
set yrange [0:*]
set key right bottom opaque
set grid
]]):format(output), "plot ", table.concat(plots, ", "), "\n", table.concat(data, "\n"), "\n")
assert(pipe:close(), "gnuplot failed")
