-- Which range an access goes to.
local core = require "supermachine.core"

describe("a bus", function()
	local bus
	before_each(function() bus = core.bus() end)
	after_each(function() bus:close() end)

	it("sends an access to the range that holds it", function()
		local bases = {}
		for number = 1, 100 do bases[number] = 0xd0000000 + (number * 37 % 101) * 0x1000 end
		for number, base in ipairs(bases) do assert(bus:add(base, 0x1000, number)) end
		for number, base in ipairs(bases) do
			assert.are.same({ 0x50, true }, { bus:read(base + 0x50, 4) })
			assert.are.same({ number << 32 | 0xff8, true }, { bus:read(base + 0xff8, 8) })
		end
	end)

	it("answers all ones where nothing is", function()
		assert.are.same({ 0xff, false }, { bus:read(0, 1) })
		assert(bus:add(0x3f8, 8, 1))
		assert(bus:add(0x600, 1, 2))
		assert.are.same({ 0xff, false }, { bus:read(0x3f7, 1) })
		assert.are.same({ 0, true }, { bus:read(0x3f8, 1) })
		assert.are.same({ 7, true }, { bus:read(0x3ff, 1) })
		assert.are.same({ 0xffff, false }, { bus:read(0x3ff, 2) }) -- half out of it
		assert.are.same({ 0xff, false }, { bus:read(0x400, 1) })
		assert.are.same({ 0xffffffff, false }, { bus:read(0x600, 4) })
		assert.are.same({ -1, false }, { bus:read(-1, 8) })
	end)

	it("refuses ranges that overlap, are empty or wrap", function()
		assert(bus:add(0x1000, 0x1000, 1))
		for _, range in ipairs { { 0x1000, 1 }, { 0x1fff, 1 }, { 0xfff, 2 }, { 0, 0x10000 }, { 0x1800, 0x1000 } } do
			local nothing, message, code = bus:add(range[1], range[2], 2)
			assert.are.same({ nil, "EEXIST" }, { nothing, code })
			assert.are.equal(("address range 0x%x + 0x%x overlaps 0x1000 + 0x1000"):format(range[1], range[2]), message)
		end
		assert.are.equal("EINVAL", select(3, bus:add(0, 0, 2)))
		assert.are.equal("EINVAL", select(3, bus:add(-1, 2, 2)))
		assert(bus:add(0xfff, 1, 2))
		assert(bus:add(0x2000, 1, 3))
		assert(bus:add(-1, 1, 4))
		assert.are.same({ 0xff & 0, true }, { bus:read(-1, 1) })
	end)
end)
