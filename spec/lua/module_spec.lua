-- The module as stock lua5.4 sees it: what a host program's process is like before and after `require`.
local build = require "spec.support.build"
local folder = require "spec.support.folder"

local module = build.dir .. "/lib/supermachine/core.so"

local function output_of(command)
	local pipe = assert(io.popen(command .. " 2>&1"))
	local text = pipe:read "a"
	local ok = pipe:close()
	return text, ok
end

-- A sanitized module only loads into a sanitized process.
local function needs_plain_build()
	if output_of(("nm -D --undefined-only '%s'"):format(module)):find "__[at]san_" then
		pending "the build is sanitized: stock lua5.4 cannot load it"
	end
end

local function run_lua(code)
	local temporary <close> = folder.new()
	local script = temporary:write("script.lua", code)
	local paths = ("LUA_PATH='./lua/?.lua;./lua/?/init.lua;;' LUA_CPATH='%s/lib/?.so;;'"):format(build.dir)
	return output_of(("%s lua5.4 '%s'"):format(paths, script))
end

describe("supermachine.core as a shared object", function()
	it("exports its opener and nothing else", function()
		local symbols = output_of(("nm -D --defined-only '%s'"):format(module))
		local names = {}
		for name in symbols:gmatch "%x+ %a (%S+)" do
			-- What a sanitizer adds to every object is not ours.
			if not name:find "^_" then names[#names + 1] = name end
		end
		assert.are.same({ "luaopen_supermachine_core" }, names)
	end)

	it("loads into stock lua5.4", function()
		needs_plain_build()
		assert.are.equal("string\n", (run_lua [[print(type(require "supermachine.core".version))]]))
	end)

	it("leaves signals, locale, threads and descriptors as they were", function()
		needs_plain_build()
		local text, ok = run_lua [[
			local lfs = require "lfs"
			local function state()
				local lines = { os.setlocale(nil) }
				for line in io.lines "/proc/self/status" do
					if line:find "^Sig[BIC]" or line:find "^Shd" or line:find "^Threads" or line:find "^Umask" then
						lines[#lines + 1] = line
					end
				end
				for name in lfs.dir "/proc/self/fd" do
					lines[#lines + 1] = name
				end
				return table.concat(lines, "\n")
			end
			local before = state()
			require "supermachine.core"
			pcall(require, "supermachine")
			collectgarbage()
			local after = state()
			assert(before:find "Threads:%s+1\n" and before:find "SigCgt")
			assert(before == after, before .. "\n\n" .. after)
			print "same"
		]]
		assert.is_true(ok, text)
		assert.are.equal("same\n", text)
	end)
end)
