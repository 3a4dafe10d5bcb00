-- Every example runs, as a user would run it.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lab = require "spec.support.lab"
local lfs = require "lfs"
local scratch = require "spec.support.scratch"

local expected = {
	["01_run.lua"] = "^Linux",
	["02_pool.lua"] = "6 %* 7 = 42",
	["03_stream.lua"] = "^got one\ngot two\nbye\nended by signal 15",
	["04_files.lua"] = "^1\n2\n3",
	["05_snapshot.lua"] = "^remembered\nremembered",
	["06_microguest.lua"] = "poweroff.*hello",
	["demo.lua"] = false, -- `make demo` runs it
}

local function run(name, argument)
	return scratch.run(("XDG_DATA_HOME=%s %s/supermachine examples/%s %s"):format(scratch.quote(lab.store()), build.dir,
		name, scratch.quote(argument)))
end

describe("examples", function()
	it("are all known here", function()
		for name in lfs.dir "examples" do
			if name:match "%.lua$" then assert.is_not_nil(expected[name], name) end
		end
	end)

	for name, pattern in pairs(expected) do
		if pattern and name ~= "06_microguest.lua" then
			it(name .. " works #lab", function() assert.matches(pattern, run(name, lab.reference "busybox")) end)
		end
	end

	it("06_microguest.lua works #kvm", function()
		local folder <close> = folders.new()
		local kernel = guest.write(folder:join "kernel", guest.print "hello\n" .. guest.poweroff())
		assert.matches(expected["06_microguest.lua"], run("06_microguest.lua", kernel))
	end)
end)
