-- What Lua cannot reach of the ground floor is checked by C programs over the same objects.
local folder = require "spec.support.folder"
local program = require "spec.support.program"

describe("the ground floor", function()
	local function check(name, ...) program.check("spec/base/" .. name, ...) end

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
