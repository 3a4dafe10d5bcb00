-- A PL011 as Linux' amba-pl011 driver looks at it, without a machine.
local core = require "supermachine.core"

local DR, RSR, FR, ILPR, IBRD, FBRD, LCR_H, CR, IFLS = 0x00, 0x04, 0x18, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34
local IMSC, RIS, MIS, ICR, DMACR = 0x38, 0x3c, 0x40, 0x44, 0x48
local CTS, DSR, DCD, RXFE, RXFF, TXFE, RI = 0x1, 0x2, 0x4, 0x10, 0x40, 0x80, 0x100
local IDLE = CTS | DSR | DCD | RXFE | TXFE
local RX, TX, RT, OE = 0x10, 0x20, 0x40, 0x400
local FEN, LBE = 0x10, 0x80
local ON = 0x301 -- enabled, both ways

describe("a PL011", function()
	local port
	before_each(function() port = assert(core.pl011()) end)
	after_each(function() port:close() end)

	-- As the driver leaves it.
	local function started(mask)
		port:set(LCR_H, 0x60 | FEN)
		port:set(CR, ON)
		port:set(ICR, RX | RT)
		port:set(IMSC, mask or RX | RT)
	end

	it("is the primecell that the AMBA bus searches a driver for", function()
		local numbers = {}
		for i = 0, 7 do numbers[i + 1] = port:get(0xfe0 + 4 * i, 4) end
		local function whole(first)
			return numbers[first] | numbers[first + 1] << 8 | numbers[first + 2] << 16 | numbers[first + 3] << 24
		end
		assert.are.equal(0x41011, whole(1) & 0xfffff)
		assert.is_true(whole(1) >> 20 & 15 < 3) -- from revision 3 on a driver expects FIFOs of 32
		assert.are.equal(0xb105f00d, whole(5))
	end)

	it("sends earlycon's words before anybody has set it up", function()
		for byte in ("hello"):gmatch "." do
			assert.are.equal(IDLE, port:get(FR, 4))
			port:set(DR, byte:byte(), 4)
			assert.are.equal(IDLE, port:get(FR, 4)) -- neither full nor busy
		end
		assert.are.equal("hello", (port:output()))
		assert.are.equal(0, port:interrupts())
	end)

	it("has the registers of its reference, and their bits alone", function()
		for _, one in ipairs {
			{ ILPR, 0, 0xff }, { IBRD, 0, 0xffff }, { FBRD, 0, 0x3f }, { LCR_H, 0, 0xff }, { CR, 0x300, 0xff87 },
			{ IFLS, 0x12, 0x3f }, { IMSC, 0, 0x7ff }, { DMACR, 0, 7 },
		} do
			local offset, reset, mask = table.unpack(one)
			assert.are.equal(reset, port:get(offset, 4))
			port:set(offset, 0xffffffff, 4)
			assert.are.equal(mask, port:get(offset, 4))
			port:set(offset, 0, 4)
			assert.are.equal(0, port:get(offset, 4))
		end
		assert.are.equal("", (port:output()))
	end)

	it("ignores what no PL011 has", function()
		for _, offset in ipairs { FR, RIS, MIS, 0x08, 0x1c, 0x4c, 0x80, 0xfe0, 0xfff, DR + 1, CR + 2 } do
			local before = port:get(offset, 2)
			port:set(offset, 0xffff, 2)
			assert.are.equal(before, port:get(offset, 2))
		end
		assert.are.same({ 0, 0, 0 }, { port:get(0x08, 4), port:get(0xfdc, 4), port:get(0x1000, 4) })
		assert.are.equal(IDLE, port:get(FR))
		assert.are.equal("", (port:output()))
	end)

	it("interrupts when the transmitter is empty", function()
		started(RX | RT | TX)
		assert.are.equal(0, port:interrupts()) -- nothing was written yet
		port:set(DR, 65)
		assert.are.equal(1, port:interrupts())
		assert.are.equal(TX, port:get(MIS))
		port:set(DR, 66) -- one edge while the line is up
		assert.are.equal(0, port:interrupts())
		port:set(ICR, TX)
		assert.are.equal(0, port:get(RIS))
		port:set(DR, 67)
		assert.are.equal(1, port:interrupts())
		-- What the driver does when it has no more to say, and again when it has.
		port:set(IMSC, RX | RT)
		assert.are.same({ TX, 0 }, { port:get(RIS), port:get(MIS) })
		port:set(IMSC, RX | RT | TX)
		assert.are.equal(1, port:interrupts())
		assert.are.equal("ABC", (port:output()))
	end)

	it("interrupts for input until all is read", function()
		started()
		assert.are.equal(2, port:type "ab")
		assert.are.equal(1, port:interrupts())
		assert.are.equal(RT, port:get(MIS)) -- two bytes, and no more came
		assert.are.equal(IDLE & ~RXFE, port:get(FR))
		port:type "c" -- the line was up all the time
		assert.are.equal(0, port:interrupts())
		assert.are.same({ 97, 98, RT, 99 }, { port:get(DR, 2), port:get(DR, 2), port:get(MIS), port:get(DR, 2) })
		assert.are.same({ 0, IDLE, 0 }, { port:get(RIS), port:get(FR), port:get(DR) })
		port:type "d"
		assert.are.equal(1, port:interrupts())
	end)

	it("interrupts when input reaches the level that was asked for", function()
		started()
		for select, level in pairs { [0] = 2, 4, 8, 12, 14 } do
			port:set(IFLS, select << 3 | 2)
			port:type(("x"):rep(level - 1))
			assert.are.equal(RT, port:get(RIS))
			port:type "y"
			assert.are.equal(RX | RT, port:get(RIS))
			port:get(DR)
			assert.are.equal(RT, port:get(RIS))
			while port:get(FR) & RXFE == 0 do port:get(DR) end
			assert.are.equal(0, port:get(RIS))
		end
	end)

	it("raises again what was masked, and not what was cleared", function()
		started(0)
		port:type "a"
		assert.are.same({ 0, RT, 0 }, { port:interrupts(), port:get(RIS), port:get(MIS) })
		for _ = 1, 2 do
			port:set(IMSC, RT)
			assert.are.same({ 1, RT }, { port:interrupts(), port:get(MIS) })
			port:set(IMSC, 0)
		end
		port:set(ICR, RT)
		port:set(IMSC, RT)
		assert.are.equal(0, port:interrupts())
		-- The driver empties the FIFO then, lest it wait for ever.
		assert.are.equal(97, port:get(DR))
	end)

	it("takes as much input as its FIFO holds", function()
		started()
		assert.are.equal(16, port:type(("x"):rep(100)))
		assert.are.equal(IDLE & ~RXFE | RXFF, port:get(FR))
		assert.are.equal(0, port:type "y")
		for _ = 1, 10 do port:get(DR) end
		assert.are.equal(10, port:type(("y"):rep(100)))
		local got = {}
		while port:get(FR) & RXFE == 0 do got[#got + 1] = string.char(port:get(DR)) end
		assert.are.equal(("x"):rep(6) .. ("y"):rep(10), table.concat(got))
	end)

	it("holds one byte while its FIFO is off", function()
		started()
		port:type "lost"
		port:set(LCR_H, 0x60) -- that empties it
		assert.are.same({ IDLE, 0 }, { port:get(FR), port:get(RIS) })
		port:interrupts()
		assert.are.equal(1, port:type "ab")
		assert.are.same({ 1, RX }, { port:interrupts(), port:get(MIS) })
		assert.are.equal(IDLE & ~RXFE | RXFF, port:get(FR))
		assert.are.same({ 97, 0 }, { port:get(DR), port:get(RIS) })
	end)

	it("hears nobody before it is enabled", function()
		assert.are.equal(0, port:type "a")
		port:set(CR, ON & ~0x200)
		assert.are.equal(0, port:type "a")
		port:set(CR, ON)
		assert.are.equal(1, port:type "a")
	end)

	it("hears itself in loopback, and nobody else", function()
		started()
		port:set(CR, ON | LBE)
		assert.are.equal(0, port:type "outside")
		for i = 1, 17 do port:set(DR, 32 + i) end
		assert.are.equal("", (port:output()))
		assert.are.equal(OE, port:get(RIS) & OE)
		assert.are.equal(8, port:get(RSR))
		assert.are.equal(0x800 | 33, port:get(DR, 2)) -- the overrun comes with the next byte, once
		assert.are.equal(34, port:get(DR, 2))
		port:set(RSR, 0xff)
		port:set(ICR, OE)
		assert.are.same({ 0, 0 }, { port:get(RSR), port:get(RIS) & OE })
	end)

	it("has its modem lines go round in loopback, and tells of a change", function()
		port:set(CR, ON | LBE)
		port:set(ICR, 0x7ff)
		for _, one in ipairs { { 0x800, CTS, 2 }, { 0x400, DSR, 8 }, { 0x1000, DCD, 4 }, { 0x2000, RI, 1 } } do
			local output, line, interrupt = table.unpack(one)
			port:set(CR, ON | LBE | output, 2)
			assert.are.equal(line, port:get(FR, 2) & (CTS | DSR | DCD | RI))
			assert.are.equal(interrupt, port:get(RIS))
			port:set(CR, ON | LBE)
			port:set(ICR, 0x7ff)
		end
	end)

	it("goes on where it was saved, and raises its interrupt again", function()
		started()
		port:set(IBRD, 0x1234, 4)
		port:set(FBRD, 5)
		port:type "left over"
		port:get(DR)
		local state = port:save()
		local other <close> = assert(core.pl011())
		assert.is_true(other:load(state))
		assert.are.equal(1, other:interrupts())
		assert.are.equal(state, other:save())
		assert.are.same({ 0x1234, 5, 0x70, ON, RX | RT, ("e"):byte() },
			{ other:get(IBRD, 4), other:get(FBRD), other:get(LCR_H), other:get(CR), other:get(MIS), other:get(DR) })
		port:set(IMSC, 0)
		assert.is_true(other:load(port:save()))
		assert.are.equal(0, other:interrupts())
	end)

	it("refuses a bad record and stays as it was", function()
		started()
		port:type "abc"
		local state = port:save()
		port:set(IBRD, 7)
		for length = 0, #state - 1 do assert.are.equal("EBADMSG", select(3, port:load(state:sub(1, length)))) end
		for at = 1, #state do
			local bad = state:sub(1, at - 1) .. string.char(state:byte(at) ~ 0x80) .. state:sub(at + 1)
			assert.are.equal("EBADMSG", select(3, port:load(bad)))
		end
		assert.are.same({ 7, 97 }, { port:get(IBRD), port:get(DR) })
	end)

	it("refuses what no PL011 could have saved", function()
		started()
		local header, registers = 16, 10
		port:type "abc"
		local payload = port:save():sub(header + 1)
		local function refused(changed, words)
			local ok, message, code = port:load(core.record_write("PL11", 1, changed))
			assert.are.same({ nil, "EBADMSG" }, { ok, code })
			assert.truthy(message:find(words, 1, true), message)
		end
		local function with(at, format, value)
			return payload:sub(1, at) .. string.pack(format, value) .. payload:sub(at + 1 + string.packsize(format))
		end
		assert.is_true(port:load(core.record_write("PL11", 1, payload)))
		for i, bit in pairs { 0x1, 0x100, nil, 0x40, 0x170, 0x8, 0x40, 0x800, 0x80, 0x8 } do
			refused(with(2 * (i - 1), "<I2", bit), "registers that no port could have")
		end
		refused(with(2 * registers, "<I1", 1), "registers that no port could have") -- an overrun with room left
		refused(with(2 * registers, "<I1", 2), "registers that no port could have")
		refused(with(2 * registers + 1, "<I4", 17), "17 bytes in a FIFO of 16")
		refused(payload:sub(1, -2), "too short")
		refused(with(2 * registers + 1, "<I4", 0):sub(1, -4), "registers that no port could have") -- an interrupt for nothing
		local eight <close> = assert(core.serial8250())
		assert.are.equal("EBADMSG", select(3, eight:load(port:save())))
	end)
end)
