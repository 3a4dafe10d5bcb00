-- The suite's runner: busted's libraries under the interpreter that runs this file, so that the suite also runs
-- under sanitizers.
-- Usage: build/supermachine spec/run.lua [--tier=direct|lab|all] [--filter=PATTERN] [--counts=FILE] [PATH...]
--
-- direct: everything but what is tagged #lab (it needs a Linux guest); what is tagged #kvm is skipped, with the reason,
--         where /dev/kvm cannot be opened.
-- lab:    everything tagged #kvm or #lab, and a skip is a failure.
-- A file NAME_ARCH_spec.lua is for hosts of that architecture alone.
-- The last line is `N passed, N failed, N skipped`; the exit status is 0 when nothing failed.

local lfs = require "lfs"

local SLOW_SECONDS = 1

local function die(message)
	io.stderr:write("spec/run.lua: ", message, "\n")
	os.exit(2)
end

local options = { tier = "direct" }
local roots = {}
for _, word in ipairs(arg) do
	local key, value = word:match "^%-%-(%l+)=(.*)$"
	if not key then
		roots[#roots + 1] = word
	elseif key == "tier" or key == "filter" or key == "counts" then
		options[key] = value
	else
		die("unknown option " .. word)
	end
end
if #roots == 0 then roots[1] = "spec" end
if not ({ direct = true, lab = true, all = true })[options.tier] then die("unknown tier " .. options.tier) end

-- Whether a spec's file is for hosts of another architecture.
local function is_foreign(name)
	local host = require "supermachine.core".plan({}).arch
	for _, arch in ipairs { "x86_64", "aarch64" } do
		if arch ~= host and name:find("_" .. arch .. "_spec.lua", 1, true) then return true end
	end
	return false
end

-- A file, or every *_spec.lua below a folder that is for this host, sorted.
local function find_files(path, files)
	local mode = lfs.attributes(path, "mode")
	if not mode then die(path .. ": no such file or folder") end
	if mode == "file" then
		files[#files + 1] = path
		return files
	end
	local names = {}
	for name in lfs.dir(path) do
		if name:sub(1, 1) ~= "." then names[#names + 1] = name end
	end
	table.sort(names)
	for _, name in ipairs(names) do
		local child = path .. "/" .. name
		if lfs.attributes(child, "mode") == "directory" then
			find_files(child, files)
		elseif name:match "_spec%.lua$" and not is_foreign(name) then
			files[#files + 1] = child
		end
	end
	return files
end

-- nil, or why #kvm specs cannot run here.
local function kvm_trouble()
	local file, message = io.open("/dev/kvm", "r+b")
	if not file then return message end
	file:close()
end

local busted = require "busted.core"()
require "busted"(busted)
-- A block's setup runs when its first chosen test does, and not at all when a tag or a filter leaves none.
busted.register("setup", "lazy_setup")
busted.register("teardown", "lazy_teardown")

-- The full name of `name` in the block that is being read, or of an element and its ancestors.
local function full_name(name, context)
	local names = { name }
	while context and context.descriptor ~= "file" and (context.name or context.descriptor) do
		table.insert(names, 1, context.name or context.descriptor)
		context = busted.context.parent(context)
	end
	return table.concat(names, " ")
end

local skip_reasons = setmetatable({}, { __mode = "k" }) -- by the function that stands for a skipped test
local trouble = options.tier ~= "lab" and kvm_trouble() or nil

local function choose(descriptor)
	return function(name, run, ...)
		if skip_reasons[run] then return nil, true end
		local full = full_name(tostring(name), busted.context.get())
		local kvm, lab = full:find "#kvm", full:find "#lab"
		if options.tier == "direct" and lab or options.tier == "lab" and not (kvm or lab) then return nil, false end
		if options.filter and not full:find(options.filter) then return nil, false end
		if descriptor == "it" and kvm and trouble then
			local skip = function() end
			skip_reasons[skip] = trouble
			busted.publish({ "register", "pending" }, name, skip, ...)
			return nil, false
		end
		return nil, true
	end
end
for _, descriptor in ipairs { "it", "pending" } do
	busted.subscribe({ "register", descriptor }, choose(descriptor), { priority = 1 })
end

local total = { passed = 0, failed = 0, skipped = 0 }
local file_total, reasons = {}, {}

local function say(...)
	io.stdout:write(...)
	io.stdout:flush()
end

local function indent(text)
	return (tostring(text):gsub("\n", "\n      "))
end

local function count(what)
	total[what] = total[what] + 1
	file_total[what] = (file_total[what] or 0) + 1
end

local function report(element, parent, message, trace)
	say("  FAILED ", full_name(element.name or element.descriptor, parent), "\n")
	say("      ", indent(message or "no message"), "\n")
	if trace and trace.traceback then say("      ", indent(trace.traceback:gsub("^%s+", "")), "\n") end
	-- What fails in a test is counted when the test ends; the rest (setup, reading a file) has no such end.
	if element.descriptor ~= "it" then count "failed" end
	return nil, true
end
busted.subscribe({ "error" }, report)
busted.subscribe({ "failure" }, report)

busted.subscribe({ "pending" }, function(element, _, message)
	reasons[element] = message
	return nil, true
end)

busted.subscribe({ "test", "end" }, function(element, parent, status)
	if status == "success" then
		count "passed"
	elseif status == "pending" then
		count "skipped"
		local reason = reasons[element] or skip_reasons[element.run] or "pending"
		say("  skipped ", full_name(element.name, parent), ": ", tostring(reason), "\n")
	else
		count "failed"
	end
	return nil, true
end)

busted.subscribe({ "file", "start" }, function()
	file_total = {}
	return nil, true
end)

busted.subscribe({ "file", "end" }, function(file)
	if next(file_total) then
		local line = ("%-44s %3d passed"):format(file.name, file_total.passed or 0)
		if file_total.failed then line = line .. (", %d FAILED"):format(file_total.failed) end
		if file_total.skipped then line = line .. (", %d skipped"):format(file_total.skipped) end
		if file.duration and file.duration >= SLOW_SECONDS then line = line .. ("  %.1f s"):format(file.duration) end
		say(line, "\n")
	end
	return nil, true
end)

local files = {}
for _, root in ipairs(roots) do find_files((root:gsub("/+$", "")), files) end
for _, name in ipairs(files) do
	local run, message = loadfile(name)
	if run then
		local function get_trace(_, info)
			info.traceback = info.traceback:sub(1, info.traceback:find "\n%s*%[C]")
			return info
		end
		busted.executors.file(name, setmetatable({ getTrace = get_trace }, { __call = run }))
	else
		say("  FAILED ", name, ": ", message, "\n")
		total.failed = total.failed + 1
	end
end

require "busted.execute"(busted)(1, {})

if total.passed + total.failed + total.skipped == 0 then
	say "no spec was chosen\n"
	total.failed = 1
end
if options.tier == "lab" and total.skipped > 0 then
	say(("the lab tier skips nothing, but %d were skipped\n"):format(total.skipped))
end
if options.counts then
	local file = assert(io.open(options.counts, "w"))
	assert(file:write(("%d %d %d\n"):format(total.passed, total.failed, total.skipped)))
	assert(file:close())
end
say(("%d passed, %d failed, %d skipped\n"):format(total.passed, total.failed, total.skipped))
os.exit(total.failed == 0 and not (options.tier == "lab" and total.skipped > 0), true)
