-- What a machine's process answers, which may be a guest's by now.
local program = require "spec.support.program"

describe("the reply to a control request", function()
	local function check(name) program.check("spec/machine/check_call", name) end

	it("is refused when it is short", function() check "short" end)
	it("leaves no descriptor but those that were taken", function() check "descriptors" end)
	it("is refused when it names a descriptor that is not there", function() check "no-descriptor" end)
	it("is checked at all", function() assert.has_error(function() check "no-such-check" end) end)
end)
