-- The benchmarks: spec/perf/NAME_bench.lua, each timed against a peer or a floor in the same run.
-- Usage: build/supermachine spec/perf/run.lua [--tier=direct|lab] [--only=PATTERN] [--out=FILE] [--merge=FILE]...
--
-- A bench file returns { tier = "direct" or "lab", run = function(report) }; report{ name =, unit =, samples =,
-- against =, against_samples = } adds a row: medians, the 99th percentile, and ratio = our median over theirs.
-- Machines are noisy: no time passes or fails here; a bench that could not run fails, once the others have run.
-- --merge adds the rows of another run's --out; --only runs the files whose names match.
local core = require "supermachine.core"
local lfs = require "lfs"

local options = { tier = "direct", merge = {} }
for _, word in ipairs(arg) do
	local key, value = word:match "^%-%-(%l+)=(.*)$"
	if key == "merge" then
		table.insert(options.merge, value)
	elseif key == "tier" or key == "out" or key == "only" then
		options[key] = value
	else
		io.stderr:write("spec/perf/run.lua: unknown option ", word, "\n")
		os.exit(2)
	end
end

local function quantile(samples, q)
	local sorted = table.move(samples, 1, #samples, 1, {})
	table.sort(sorted)
	return sorted[math.max(1, math.ceil(q * #sorted))]
end

local rows = {}

local function say(row)
	print(("%-34s %-6s %7.3f %-2s %7.3f %-2s %5d  %-26s %8s"):format(row.name, row.tier, row.median, row.unit, row.p99,
		row.unit, row.runs, row.against or "-", row.ratio and ("%.2f"):format(row.ratio) or "-"))
	io.stdout:flush()
end

local function report(row)
	local median = quantile(row.samples, 0.5)
	local theirs = row.against_samples and quantile(row.against_samples, 0.5)
	rows[#rows + 1] = {
		name = row.name, unit = row.unit, tier = options.tier, median = median, p99 = quantile(row.samples, 0.99),
		runs = #row.samples, against = row.against, against_median = theirs, ratio = theirs and median / theirs,
	}
	say(rows[#rows])
end

print(("%-34s %-6s %10s %10s %5s  %-26s %8s"):format("name", "tier", "median", "p99", "runs", "against", "ratio"))
for _, path in ipairs(options.merge) do
	local file = io.open(path, "rb")
	if file then
		for _, row in ipairs(assert(core.json_decode(file:read "a"))) do
			rows[#rows + 1] = row
			say(row)
		end
		file:close()
	end
end

local here = arg[0]:match "^(.*)/[^/]*$"
local names = {}
for name in lfs.dir(here) do
	if name:match "_bench%.lua$" and (not options.only or name:find(options.only)) then names[#names + 1] = name end
end
table.sort(names)
local failed = false
for _, name in ipairs(names) do
	local bench = assert(dofile(here .. "/" .. name))
	if bench.tier == options.tier then
		io.stderr:write("bench: ", name, "\n")
		-- What the others measure is not lost with one.
		local fine, message = xpcall(bench.run, debug.traceback, report)
		if not fine then
			io.stderr:write("bench: ", name, ": ", message, "\n")
			failed = true
		end
	end
end

if options.out then
	local temporary = options.out .. ".tmp"
	local file = assert(io.open(temporary, "wb"))
	assert(file:write(assert(core.json_encode(rows)), "\n"))
	assert(file:close())
	assert(os.rename(temporary, options.out))
end
if failed then os.exit(1) end
