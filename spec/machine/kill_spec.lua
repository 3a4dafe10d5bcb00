-- A saving process that is killed leaves nothing, or a whole snapshot.  SUPERMACHINE_KILLS says how often it is tried.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lfs = require "lfs"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local kills <const> = tonumber(os.getenv "SUPERMACHINE_KILLS" or "20")

-- Saves snapshot after snapshot, every other one whole, until it is killed.
local saver <const> = [[
local sm = require "supermachine"
local snapshot = assert(sm.snapshot.open(arg[1]))
local vm = assert(snapshot:restore { paused = true })
for i = 1, math.huge do
	assert(vm:snapshot(("%s/%d"):format(arg[2], i), {}, { diff = i % 2 == 0 }))
	io.write("s")
	io.flush()
end
]]

describe("kill -9 while snapshots are saved #kvm", function()
	it("leaves each whole or not at all", function()
		local folder <close> = folders.new()
		local vm <close> = assert(sm.vm.new {
			kernel = guest.write(folder:join "kernel", guest.spin()), memory_mib = 16,
		})
		assert(vm:snapshot(folder:join "parent"))
		local script = folder:join "saver.lua"
		scratch.write(script, saver)
		local whole = 0
		for i = 1, kills do
			local place = folder:join("killed" .. i)
			assert(lfs.mkdir(place))
			-- It is killed at no moment in particular, some time after it has saved the first.
			local command = ("%s %s %s %s & pid=$!; { head -c1 >/dev/null; sleep 0.0%02d; kill -9 $pid; } <%s/pipe; wait")
			scratch.run("mkfifo " .. place .. "/pipe")
			scratch.run(command:format(build.dir .. "/supermachine", script, folder:join "parent",
				place .. " >" .. place .. "/pipe", math.random(0, 99), place))
			for name in lfs.dir(place) do
				if name:match "^%d+$" then
					assert(sm.snapshot.open(place .. "/" .. name, { verify = true })):close()
					whole = whole + 1
				else
					assert.is_truthy(name:match "^%.%.?$" or name == "pipe" or name:match "^%d+%.tmp%.%w+$", name)
				end
			end
			scratch.remove(place)
		end
		assert.is_true(whole >= kills, whole)
	end)
end)
