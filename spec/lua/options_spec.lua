-- Option tables: what is misuse, and what it is told.
local options = require "supermachine.options"

describe("an option that is one of some words", function()
	local types <const> = { policy = { "boot", "all", "none" }, count = "integer" }

	it("takes these", function()
		for _, word in ipairs(types.policy) do
			assert.are.same({ policy = word, count = 1 }, options.check(types, { policy = word, count = 1.0 }))
		end
		assert.are.same({}, options.check(types))
	end)

	it("refuses others, and names these", function()
		for value, message in pairs {
			some = "option 'policy': boot, all or none, not 'some'", [true] = "option 'policy': string expected, got boolean",
			[1] = "option 'policy': string expected, got integer",
		} do
			assert.has_error(function() options.check(types, { policy = value }, -1) end, message)
		end
	end)
end)
