-- Every example runs, as a user would run it.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lab = require "spec.support.lab"
local lfs = require "lfs"
local scratch = require "spec.support.scratch"
local stores = require "spec.support.store"

local expected = {
	["01_run.lua"] = "^Linux",
	["02_pool.lua"] = "6 %* 7 = 42",
	["03_stream.lua"] = "^got one\ngot two\nbye\nended by signal 15",
	["04_files.lua"] = "^1\n2\n3",
	["05_snapshot.lua"] = "^stood still for [%d.]+ ms\nremembered\nremembered",
	["06_microguest.lua"] = "poweroff.*hello",
	["07_store.lua"] = "linux.*2 references.*unique",
	["08_service.lua"] = "^served from memory\nserved from memory",
	["09_mounts.lua"] = "^who is in one%?\na guest\nwho is in two%?\na guest",
	["10_volume.lua"] = "^visit 1\nvisit 1\nvisit 2\n?$",
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
		if pattern and name ~= "06_microguest.lua" and name ~= "07_store.lua" then
			it(name .. " works #lab", function() assert.matches(pattern, run(name, lab.reference "busybox")) end)
		end
	end

	it("07_store.lua works", function()
		local store <close> = stores.new()
		local host = scratch.run "uname -m" == "aarch64" and "arm64" or "amd64"
		local name = store:make("a", { "one", "two" }, { architecture = host })
		assert.matches(expected["07_store.lua"], run("07_store.lua", name))
	end)

	it("06_microguest.lua works #kvm", function()
		local folder <close> = folders.new()
		local kernel = guest.write(folder:join "kernel", guest.print "hello\n" .. guest.poweroff())
		assert.matches(expected["06_microguest.lua"], run("06_microguest.lua", kernel))
	end)
end)
