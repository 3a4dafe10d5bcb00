-- No memory, wherever the module asks for some: an error that says so, nothing left behind, others unharmed.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local scratch = require "spec.support.scratch"

-- For each stage: let the first request for memory fail, then the second, and so on until there was none to fail.
local script = [[
local sm = require "supermachine"
local lfs = require "lfs"
local resources = require "spec.support.resources"
local library, folder, kernel, transport = ...
local scarce = assert(package.loadlib(library, "scarce"))

local function held()
	local now = resources.now()
	local children <close> = assert(io.open("/proc/self/task/" .. assert(lfs.symlinkattributes("/proc/self")).target
		.. "/children"))
	return { now.descriptors, now.threads, children:read "a" }
end

-- An emulated machine takes a hundred times as long for each, and does not look at all of them.
local step = os.getenv "TESTHOST" and 13 or 1

-- prepare() gives what run(it) takes; run returns nil and the message, or what is to be closed.
local function stage(name, run, prepare)
	local n, refused, quiet = 1 - step, 0, 0
	while true do
		n = n + step
		local subject = prepare and prepare()
		scarce(n)
		local result, message, code = run(subject)
		local reached = scarce(0)
		if type(result) == "userdata" or type(result) == "table" and getmetatable(result) then result:close() end
		if subject then subject:close() end
		if not result then
			assert(reached, ("%s: failed without a cause: %s"):format(name, message))
			assert(message:lower():find "memory" or message:find "EAGAIN" or message:find "temporarily unavailable"
				or message:find "worker", ("%s, request %d: %s (%s)"):format(name, n, message, code))
			refused = refused + 1
		elseif reached then
			quiet = quiet + 1
		else
			break
		end
		assert(n < 2000, name .. " does not come to its end")
	end
	print(name, refused, quiet)
end

local function booted() return sm.vm.new { kernel = kernel, memory_mib = 16, vcpus = 2, transport = transport } end
local path = folder .. "/snapshot"
do
	local vm <close> = assert(booted())
	assert(vm:resume())
	while assert(vm:console()) == "" do end
	assert(vm:pause())
	assert(vm:snapshot(path))
end
local snapshot <close> = assert(sm.snapshot.open(path))
local other <close> = assert(snapshot:restore { transport = transport })
local function restored() return snapshot:restore { transport = transport, paused = true } end
assert(restored()):close()
local before = held()

stage("boot", booted)
stage("open", function() return sm.snapshot.open(path) end)
stage("restore", restored)
local saves = 0
local function save(vm, options)
	saves = saves + 1
	local to = folder .. "/save" .. saves
	local ok, message, code = vm:snapshot(to, {}, options)
	assert(ok or not lfs.attributes(to), "a snapshot that failed is there")
	return ok, message, code
end
stage("save", save, function() return assert(restored()) end)
stage("save of what differs", function(vm) return save(vm, { diff = true }) end,
	function() return assert(restored()) end)
stage("pool", function()
	local pool, message, code = sm.pool.new(snapshot, { min = 1, max = 2 })
	if not pool then return nil, message, code end
	local vm
	vm, message, code = pool:acquire { timeout_ms = 5000 }
	if vm then vm:close() end
	pool:close()
	return vm and true, message, code
end)
stage("reset", function(vm) return vm:reset { paused = true } end, function() return assert(restored()) end)

local after = held()
for i = 1, #before do assert(before[i] == after[i], ("%s before, %s after"):format(before[i], after[i])) end
for name in lfs.dir(folder) do assert(not name:find ".tmp.", "left behind: " .. name) end
assert(other:console() == "" or other:console())
assert(other:pause() and other:resume() and other:reset { paused = true })
print "unharmed"
]]

for _, transport in ipairs { "direct", "worker" } do
	describe("a request for memory that is refused (" .. transport .. ") #kvm", function()
		it("is an error wherever it happens, and nothing stays", function()
			if build.dir:match "/address$" or build.dir:match "/thread$" then
				return pending "the build is sanitized: stock lua5.4 cannot load it"
			end
			if not scratch.has "lua5.4" then return pending "lua5.4 is not installed" end
			local folder <close> = folders.new()
			local kernel = guest.write(folder:join "kernel", guest.print "x" .. guest.spin())
			folder:write("script.lua", script)
			local library = build.dir .. "/spec/machine/scarce_preload.so"
			local output = scratch.run(("LUA_PATH='./lua/?.lua;./lua/?/init.lua;./?.lua;;' LUA_CPATH='%s/lib/?.so;;' "
				.. "LD_PRELOAD='%s' lua5.4 '%s' '%s' '%s' '%s' %s"):format(build.dir, library, folder:join "script.lua", library,
				folder.path, kernel, transport))
			assert.matches("unharmed", output)
			for _, name in ipairs { "boot", "open", "restore", "save", "save of what differs", "pool", "reset" } do
				local refused = tonumber(output:match("%f[%w]" .. name .. "\t(%d+)"))
				assert.is_true(refused > 0, output)
			end
		end)
	end)
end
