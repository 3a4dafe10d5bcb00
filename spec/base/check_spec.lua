-- What Lua cannot reach of the ground floor is checked by C programs over the same objects.
local build = require "spec.support.build"
local folder = require "spec.support.folder"

describe("the ground floor", function()
	local function check(program, name, argument)
		local command = ("'%s/spec/base/%s' %s %s 2>&1"):format(build.dir, program, name, argument or "")
		local pipe = assert(io.popen(command))
		local output = pipe:read "a"
		local ok, how, status = pipe:close()
		assert(ok, ("%s %s: %s %s\n%s"):format(program, name, how, status, output))
		assert.are.equal("", output)
	end

	for _, name in ipairs { "error", "buf", "codec", "fd", "json", "sha256" } do
		it("keeps the promises of " .. name, function() check("check", name) end)
	end

	for _, name in ipairs { "op", "thread", "loop", "loop-wait", "loop-stress" } do
		it("keeps the promises of " .. name, function() check("check_loop", name) end)
	end

	it("keeps the promises of path", function()
		local temporary <close> = folder.new()
		check("check", "path", "'" .. temporary.path .. "'")
	end)

	it("notices a check that fails", function()
		assert.has_error(function() check("check", "no-such-check") end)
		assert.has_error(function() check("check_loop", "no-such-check") end)
	end)
end)
