-- What Lua cannot reach of the ground floor is checked by a C program over the same objects.
local build = require "spec.support.build"
local folder = require "spec.support.folder"

describe("the ground floor", function()
	local function check(name, argument)
		local command = ("'%s/spec/base/check' %s %s 2>&1"):format(build.dir, name, argument or "")
		local pipe = assert(io.popen(command))
		local output = pipe:read "a"
		local ok, how, status = pipe:close()
		assert(ok, ("check %s: %s %s\n%s"):format(name, how, status, output))
		assert.are.equal("", output)
	end

	for _, name in ipairs { "error", "buf", "codec", "fd", "json", "sha256", "op", "loop", "loop-wait", "loop-stress" } do
		it("keeps the promises of " .. name, function() check(name) end)
	end

	it("keeps the promises of path", function()
		local temporary <close> = folder.new()
		check("path", "'" .. temporary.path .. "'")
	end)

	it("notices a check that fails", function()
		assert.has_error(function() check "no-such-check" end)
	end)
end)
