-- From a device's line to the guest's interrupt controller.
local program = require "spec.support.program"

describe("a machine's interrupt line", function()
	it("rises and falls at each edge", function() program.check("spec/machine/check_line", "edges") end)
end)
