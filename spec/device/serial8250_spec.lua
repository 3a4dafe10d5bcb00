-- A 16550A as Linux' 8250 driver looks at it, without a machine.
local core = require "supermachine.core"

local RBR, THR, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 0, 1, 2, 2, 3, 4, 5, 6, 7
local DLAB = 0x80

describe("a serial port", function()
	local port
	before_each(function() port = assert(core.serial8250()) end)
	after_each(function() port:close() end)

	it("passes the driver's search for a 16550A", function()
		port:set(IER, 0)
		assert.are.equal(0, port:get(IER))
		port:set(IER, 0xff)
		assert.are.equal(0x0f, port:get(IER))
		port:set(IER, 0)
		for _, byte in ipairs { 0x5a, 0xa5 } do
			port:set(SCR, byte)
			assert.are.equal(byte, port:get(SCR))
		end
		port:set(MCR, 0x1a) -- loopback, OUT2, RTS
		assert.are.equal(0x90, port:get(MSR) & 0xf0)
		port:set(MCR, 0x10 | 0x01 | 0x04)
		assert.are.equal(0x60, port:get(MSR) & 0xf0)
		port:set(MCR, 0x08)
		assert.are.equal(0xb0, port:get(MSR))
		assert.are.equal(0x01, port:get(IIR))
		port:set(FCR, 0x01)
		assert.are.equal(0xc1, port:get(IIR))
		port:set(FCR, 0x21) -- a 16750 would turn on 64-byte FIFOs
		assert.are.equal(0xc1, port:get(IIR))
		assert.are.equal(0x60, port:get(LSR))
	end)

	it("keeps its divisor apart from data and interrupt registers", function()
		port:set(IER, 5)
		port:set(LCR, DLAB | 3)
		port:set(0, 0x0c)
		port:set(1, 0x01)
		assert.are.same({ 0x0c, 0x01 }, { port:get(0), port:get(1) })
		port:set(LCR, 3)
		assert.are.same({ 0, 5, 3 }, { port:get(RBR), port:get(IER), port:get(LCR) })
		assert.are.equal("", (port:output()))
	end)

	it("sends what is written, and says at once that it could take more", function()
		for byte in ("hello"):gmatch "." do
			assert.are.equal(0x60, port:get(LSR))
			port:set(THR, byte:byte())
		end
		assert.are.equal("hello", (port:output()))
		assert.are.equal(0, port:interrupts())
	end)

	it("interrupts when the transmitter is empty", function()
		port:set(FCR, 1)
		-- The driver's test for a chip that forgets it: asked twice, told twice.
		for _ = 1, 2 do
			port:set(IER, 2)
			assert.are.equal(1, port:interrupts())
			assert.are.equal(0xc2, port:get(IIR))
			assert.are.equal(0xc1, port:get(IIR))
			port:set(IER, 0)
		end
		port:set(IER, 2)
		port:get(IIR)
		port:interrupts()
		port:set(THR, 65)
		port:set(THR, 66) -- one edge while the line is up
		assert.are.equal(1, port:interrupts())
		assert.are.equal(0xc2, port:get(IIR))
		port:set(THR, 67)
		assert.are.equal(1, port:interrupts())
	end)

	it("interrupts for input, which goes first", function()
		port:set(IER, 3)
		assert.are.equal(1, port:interrupts())
		assert.are.equal(2, port:type "ab")
		assert.are.equal(0x61, port:get(LSR))
		assert.are.equal(0x04, port:get(IIR))
		assert.are.equal(("a"):byte(), port:get(RBR))
		assert.are.equal(0x04, port:get(IIR))
		assert.are.equal(("b"):byte(), port:get(RBR))
		assert.are.equal(0x02, port:get(IIR))
		assert.are.equal(0x01, port:get(IIR))
		assert.are.same({ 0x60, 0 }, { port:get(LSR), port:get(RBR) })
		assert.are.equal(0, port:interrupts()) -- the line was up all the time
		port:type "c"
		assert.are.equal(1, port:interrupts())
	end)

	it("takes as much input as its FIFO holds", function()
		assert.are.equal(64, port:type(("x"):rep(100)))
		assert.are.equal(0, port:type "y")
		for _ = 1, 10 do port:get(RBR) end
		assert.are.equal(10, port:type(("y"):rep(100)))
		local got = {}
		while port:get(LSR) & 1 == 1 do got[#got + 1] = string.char(port:get(RBR)) end
		assert.are.equal(("x"):rep(54) .. ("y"):rep(10), table.concat(got))
		port:set(FCR, 1)
		port:type "z"
		port:set(FCR, 3) -- clear the receiver
		assert.are.equal(0x60, port:get(LSR))
	end)

	it("hears itself in loopback, and nobody else", function()
		port:set(MCR, 0x10)
		assert.are.equal(0, port:type "outside")
		for _ = 1, 65 do port:set(THR, 33) end
		assert.are.equal("", (port:output()))
		assert.are.equal(0x63, port:get(LSR)) -- an overrun, once
		assert.are.equal(0x61, port:get(LSR))
		assert.are.equal(33, port:get(RBR))
	end)

	it("ignores what no 16550A has", function()
		port:set(LSR, 0xff)
		port:set(MSR, 0xff)
		assert.are.same({ 0x60, 0xb0 }, { port:get(LSR), port:get(MSR) })
		port:set(8, 1)
		assert.are.equal(0xff, port:get(8))
	end)

	it("goes on where it was saved, and raises its interrupt again", function()
		port:set(FCR, 1)
		port:set(LCR, 0x13)
		port:set(SCR, 0x42)
		port:type "left over"
		port:get(RBR)
		port:set(IER, 1)
		local state = port:save()
		local other <close> = assert(core.serial8250())
		assert.is_true(other:load(state))
		assert.are.equal(1, other:interrupts())
		assert.are.equal(state, other:save())
		assert.are.same({ 0x13, 0x42, 1, 0xc4, ("e"):byte() },
			{ other:get(LCR), other:get(SCR), other:get(IER), other:get(IIR), other:get(RBR) })
	end)

	it("refuses a bad record and stays as it was", function()
		port:type "abc"
		local state = port:save()
		port:set(SCR, 7)
		for length = 0, #state - 1 do assert.are.equal("EBADMSG", select(3, port:load(state:sub(1, length)))) end
		for at = 1, #state do
			local bad = state:sub(1, at - 1) .. string.char(state:byte(at) ~ 0x80) .. state:sub(at + 1)
			assert.are.equal("EBADMSG", select(3, port:load(bad)))
		end
		assert.are.equal(7, port:get(SCR))
	end)
end)

describe("a console ring", function()
	it("gives what was written since a cursor, and counts what it lost", function()
		local port <close> = assert(core.serial8250(16))
		assert.are.same({ "", 0, 0 }, { port:output(0) })
		port:print "0123456789"
		assert.are.same({ "0123456789", 10, 0 }, { port:output(0) })
		assert.are.same({ "789", 10, 0 }, { port:output(7) })
		assert.are.same({ "", 10, 0 }, { port:output(10) })
		port:print "abcdefghij"
		assert.are.same({ "abcdefghij", 20, 0 }, { port:output(10) })
		assert.are.same({ "456789abcdefghij", 20, 4 }, { port:output(0) })
		assert.are.same({ "j", 20, 0 }, { port:output(19) })
		assert.are.same({ "", 20, 0 }, { port:output(1000) })
		assert.are.same({ "", 20, 0 }, { port:output(-1) })
		port:print(("z"):rep(100) .. "end")
		assert.are.same({ ("z"):rep(13) .. "end", 123, 87 }, { port:output(20) })
	end)

	it("gives its tail", function()
		local port <close> = assert(core.serial8250(8))
		assert.are.equal("", port:tail(5))
		port:print "abc"
		assert.are.same({ "abc", "bc", "" }, { port:tail(5), port:tail(2), port:tail(0) })
		port:print "defghij"
		assert.are.same({ "cdefghij", "hij" }, { port:tail(100), port:tail(3) })
	end)

	it("finds the last line that says something", function()
		local port <close> = assert(core.serial8250(64))
		local panic = "Kernel panic - not syncing:"
		assert.is_nil(port:last_line(panic))
		port:print("[    0.1] " .. panic .. " first\r\nrest\n")
		assert.are.equal(panic .. " first", port:last_line(panic))
		port:print("x" .. panic .. " second")
		assert.are.equal(panic .. " second", port:last_line(panic))
		assert.are.equal("Kernel", port:last_line(panic, 6))
		port:print "\n"
		assert.are.equal(panic .. " second", port:last_line(panic))
		port:print(("-"):rep(40)) -- its start is overwritten
		assert.is_nil(port:last_line(panic))
		assert.are.equal("second", port:last_line "second")
		assert.is_nil(port:last_line "")
		assert.is_nil(port:last_line(("-"):rep(65)))
	end)
end)
