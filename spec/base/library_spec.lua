-- Libraries that are loaded when they are used, in processes of their own.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local scratch = require "spec.support.scratch"

-- Prints which of the two are mapped once the module is there, and after each use of one.
local SCRIPT <const> = [[
local sm = require "supermachine"
local function show(what, ...)
	local loaded, list = {}, {}
	for line in io.lines "/proc/self/maps" do
		local name = line:match "/lib(%l+)%.so[^/]*$"
		if name == "curl" or name == "archive" then loaded[name] = true end
	end
	for name in pairs(loaded) do list[#list + 1] = name end
	table.sort(list)
	print(what, table.concat(list, " "), ...)
end
show "module"
show("tar", select(2, sm.image.pull("docker-archive:" .. arg[1], { store = arg[2] })))
show("registry", select(2, sm.image.pull("127.0.0.1:1/a:b", { store = arg[2], retries = 0 })))
]]

describe("a library that is loaded when it is used", function()
	local folder
	before_each(function() folder = folders.new() end)
	after_each(function() folder:close() end)

	local function run(environment)
		folder:write("script.lua", SCRIPT)
		folder:write("not.tar", "no tar")
		local text = scratch.run(("%s '%s/supermachine' '%s' '%s' '%s'"):format(environment, build.dir,
			folder:join "script.lua", folder:join "not.tar", folder:join "store"))
		local seen = {}
		for what, loaded, message, code in (text .. "\n"):gmatch "(%l+)\t([%l ]*)\t?([^\t\n]*)\t?(%u*)\n" do
			seen[#seen + 1] = { what = what, loaded = loaded, message = message, code = code }
		end
		assert.are.equal(3, #seen, text)
		return table.unpack(seen)
	end

	it("is not there before that, and is after it", function()
		local module, tar, registry = run ""
		assert.are.same({ "", "archive", "archive curl" }, { module.loaded, tar.loaded, registry.loaded })
		assert.are.same({ "EBADMSG", "ECONNREFUSED" }, { tar.code, registry.code })
	end)

	it("is named where it cannot be loaded", function()
		folder:write("libarchive.so.13", "cut")
		folder:write("libcurl.so.4", "cut")
		local _, tar, registry = run(("LD_LIBRARY_PATH='%s'"):format(folder.path))
		assert.are.same({ "", "ELIBACC", "ELIBACC" }, { registry.loaded, tar.code, registry.code })
		assert.truthy(tar.message:find("load libarchive.so.13: ", 1, true), tar.message)
		assert.truthy(registry.message:find("load libcurl.so.4: ", 1, true), registry.message)
	end)
end)
