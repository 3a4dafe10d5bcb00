-- What a machine's process answers, which may be a guest's by now: a C program over the same objects.
local build = require "spec.support.build"

describe("the reply to a control request", function()
	local function check(name)
		local pipe = assert(io.popen(("'%s/spec/machine/check_call' %s 2>&1"):format(build.dir, name)))
		local output = pipe:read "a"
		local ok, how, status = pipe:close()
		assert(ok, ("check_call %s: %s %s\n%s"):format(name, how, status, output))
		assert.are.equal("", output)
	end

	it("is refused when it is short", function() check "short" end)
	it("leaves no descriptor but those that were taken", function() check "descriptors" end)
	it("is refused when it names a descriptor that is not there", function() check "no-descriptor" end)
	it("is checked at all", function() assert.has_error(function() check "no-such-check" end) end)
end)
