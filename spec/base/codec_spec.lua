local core = require "supermachine.core"

describe("a record", function()
	local function refused(bytes, tag, version, what)
		local payload, message, code = core.record_read(bytes, tag, version)
		assert.is_nil(payload)
		assert.are.equal("EBADMSG", code)
		assert.truthy(message:find(what, 1, true), message)
	end

	it("has the documented layout", function()
		local bytes = core.record_write("PLAN", 0x0201, "abc")
		-- crc32("abc") is 0x352441c2 (zlib)
		assert.are.equal("PLAN\1\2\0\0\3\0\0\0\xc2\x41\x24\x35abc", bytes)
	end)

	it("comes back as it was written", function()
		for _, payload in ipairs { "", "x", ("\0\xff"):rep(100000) } do
			assert.are.equal(payload, core.record_read(core.record_write("TEST", 1, payload), "TEST", 1))
		end
	end)

	it("is refused under another tag or version", function()
		local bytes = core.record_write("PLAN", 2, "abc")
		refused(bytes, "VCPU", 2, "record 'VCPU' expected, found 'PLAN'")
		refused(bytes, "PLAN", 1, "record 'PLAN' has version 2, this build reads 1")
		refused("\1\2\3\4" .. bytes:sub(5), "PLAN", 2, "found '0x04030201'")
	end)

	it("is refused with any bit flipped", function()
		local bytes = core.record_write("PLAN", 1, "payload")
		for at = 1, #bytes do
			for bit = 0, 7 do
				local flipped = bytes:sub(1, at - 1) .. string.char(bytes:byte(at) ~ 1 << bit) .. bytes:sub(at + 1)
				assert.is_nil((core.record_read(flipped, "PLAN", 1)))
			end
		end
	end)

	it("is refused when it is cut short or something follows", function()
		local bytes = core.record_write("PLAN", 1, "payload")
		for len = 0, #bytes - 1 do refused(bytes:sub(1, len), "PLAN", 1, "is cut short") end
		refused(bytes .. "\0", "PLAN", 1, "1 bytes left over")
	end)
end)
