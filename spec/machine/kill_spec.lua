-- A saving process that is killed leaves nothing, or a whole snapshot.  SUPERMACHINE_CYCLES says how often it is tried.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lfs = require "lfs"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local kills <const> = math.tointeger(tonumber(os.getenv "SUPERMACHINE_CYCLES" or "20"))

-- Saves snapshot after snapshot, whole or not, of a machine that now runs and now does not, until it is killed.
local saver <const> = [[
local sm = require "supermachine"
local snapshot = assert(sm.snapshot.open(arg[1]))
local transports = { "direct", "worker" }
local vm = assert(snapshot:restore { paused = true, transport = transports[tonumber(arg[3])] })
for i = 1, math.huge do
	assert(i % 4 < 2 and vm:resume() or vm:pause())
	assert(vm:snapshot(("%s/%d"):format(arg[2], i), {}, { diff = i % 2 == 0 }))
	io.write("s")
	io.flush()
end
]]

-- Writes to a few pages, again and again.
local busy = guest.loop(guest.counter() .. guest.store_word(guest.scratch) .. guest.store_word(guest.scratch + 65536)
	.. guest.store_word(guest.scratch + 2 * 65536))

describe("kill -9 while snapshots are saved #kvm", function()
	it("leaves each whole or not at all", function()
		local folder <close> = folders.new()
		local vm <close> = assert(sm.vm.new {
			kernel = guest.write(folder:join "kernel", busy), memory_mib = 16,
		})
		assert(vm:snapshot(folder:join "parent"))
		local script = folder:join "saver.lua"
		scratch.write(script, saver)
		local whole, leftovers = 0, 0
		for i = 1, kills do
			local place = folder:join("killed" .. i)
			assert(lfs.mkdir(place))
			-- It is killed at no moment in particular, some time after it has saved the first.
			local command = ("%s %s %s %s & pid=$!; { head -c1 >/dev/null; sleep 0.0%02d; kill -9 $pid; } <%s/pipe; wait")
			scratch.run("mkfifo " .. place .. "/pipe")
			scratch.run(command:format(build.dir .. "/supermachine", script, folder:join "parent",
				place .. " " .. 1 + i % 2 .. " >" .. place .. "/pipe", math.random(0, 99), place))
			local cut = {}
			for name in lfs.dir(place) do
				if name:match "^%d+$" then
					assert(sm.snapshot.open(place .. "/" .. name, { verify = true })):close()
					whole = whole + 1
				elseif not name:match "^%.%.?$" and name ~= "pipe" then
					cut[#cut + 1] = assert.is_truthy(name:match "^(%d+)%.tmp%.%w+$", name)
				end
			end
			-- The next save to the same path takes away what is left.
			for _, name in ipairs(cut) do
				leftovers = leftovers + 1
				vm:snapshot(place .. "/" .. name)
				assert.are.equal("ok", scratch.run(("ls -d %s/%s.tmp.* 2>/dev/null || echo ok"):format(place, name)))
			end
			scratch.remove(place)
		end
		assert.is_true(whole >= kills, whole)
		assert.is_true(leftovers > 0)
	end)
end)
