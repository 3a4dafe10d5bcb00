-- An x86_64 vCPU's exits: ports, wide and split accesses, triple faults, interrupts.
local asm = require "spec.support.microguest_x86_64"
local bare = require "spec.support.bare_guest"
local irq = require "spec.support.guest_irq_x86_64"

local mmio = 0xd0000000
local start, mmio_exit = bare.start, bare.mmio_exit

-- A guest that starts in 64-bit mode with the first 4 GiB mapped.
local function start64(code, options)
	options = options or {}
	options.code, options.boot, options.page_table = code, "long64", irq.page_table
	local guest = start(options)
	irq.write(guest, "")
	return guest
end

local function pio(write, size, address, data)
	return { kind = "pio", write = write, size = size, address = address, data = data }
end

local function le32(value) return string.pack("<I4", value) end

describe("a port access #kvm", function()
	it("is handed out with size, port and value", function()
		local guest <close> = start("\xb8" .. le32(0x11223344) .. "\x66\xba\x34\x12" .. "\xee\x66\xef\xef")
		assert.are.same(pio(true, 1, 0x1234, 0x44), guest:run())
		assert.are.same(pio(true, 2, 0x1234, 0x3344), guest:run())
		assert.are.same(pio(true, 4, 0x1234, 0x11223344), guest:run())
	end)

	it("is answered", function()
		-- xor eax, eax; in al; out eax; in ax; out eax; in eax; out eax
		local guest <close> = start("\x31\xc0\x66\xba\x40\x12" .. "\xec\xef" .. "\x66\xed\xef" .. "\xed\xef")
		assert.are.same(pio(false, 1, 0x1240, 0), guest:run())
		assert.are.same(pio(true, 4, 0x1240, 0xa5), guest:run(0, 0xa5))
		assert.are.same(pio(false, 2, 0x1240, 0), guest:run())
		assert.are.same(pio(true, 4, 0x1240, 0x1234), guest:run(0, 0xffff1234))
		assert.are.same(pio(false, 4, 0x1240, 0), guest:run())
		assert.are.same(pio(true, 4, 0x1240, 0xfedcba98), guest:run(0, 0xfedcba98))
	end)

	it("of a string instruction comes value by value", function()
		-- mov edi, 0x150000; mov ecx, 5; rep insb; out al
		local guest <close> = start("\xbf" .. le32(0x150000) .. "\xb9" .. le32(5) .. "\x66\xba\x40\x12\xf3\x6c\xee")
		local exit = guest:run()
		for letter in ("hello"):gmatch "." do
			assert.are.same(pio(false, 1, 0x1240, 0), exit)
			exit = guest:run(0, letter:byte())
		end
		assert.is_true(exit.write)
		assert.are.equal("hello", guest:read(0x150000, 5))
	end)
end)

describe("an x86_64 memory access outside RAM #kvm", function()
	it("is handed out with size, address and value, and answered", function()
		local guest <close> = start64("\xbf" .. le32(mmio + 8) -- mov edi, address
			.. "\x48\xb8" .. string.pack("<I8", 0x1122334455667788) -- mov rax, value
			.. "\x88\x07\x66\x89\x07\x89\x07\x48\x89\x07" -- mov [rdi], al / ax / eax / rax
			.. "\x48\x8b\x07\x48\x89\x07") -- mov rax, [rdi]; mov [rdi], rax
		assert.are.same(mmio_exit(true, 1, mmio + 8, 0x88), guest:run())
		assert.are.same(mmio_exit(true, 2, mmio + 8, 0x7788), guest:run())
		assert.are.same(mmio_exit(true, 4, mmio + 8, 0x55667788), guest:run())
		assert.are.same(mmio_exit(true, 8, mmio + 8, 0x1122334455667788), guest:run())
		assert.are.same(mmio_exit(false, 8, mmio + 8, 0), guest:run())
		assert.are.same(mmio_exit(true, 8, mmio + 8, -2), guest:run(0, -2))
	end)

	it("that crosses a page comes in sizes a device knows", function()
		local code = "\xb8" .. le32(0x44332211) .. "\xbf" .. le32(mmio + 0xffd) .. "\x89\x07" -- mov [edi], eax
		local guest <close> = start(code .. "\x8b\x07" .. "\xa3" .. le32(0x150000) .. asm.out8(0x10, 0))
		for i = 0, 3 do
			assert.are.same(mmio_exit(true, 1, mmio + 0xffd + i, 0x11 * (i + 1)), guest:run())
		end
		local exit = guest:run()
		for i = 0, 3 do
			assert.are.same(mmio_exit(false, 1, mmio + 0xffd + i, 0), exit)
			exit = guest:run(0, 0xa0 + i)
		end
		assert.are.equal("pio", exit.kind)
		assert.are.equal("\xa0\xa1\xa2\xa3", guest:read(0x150000, 4))
	end)
end)

describe("a triple fault #kvm", function()
	it("ends a guest", function()
		local guest <close> = start(asm.triple_fault())
		assert.are.same({ kind = "shutdown", detail = "triple fault" }, guest:run())
	end)
end)

describe("settling on x86_64 #kvm", function()
	-- The registers out of a vCPU's records.
	local function rax_and_rip(guest)
		local records = guest:save_vcpu()
		local values = { string.unpack("<" .. ("I8"):rep(17), records, records:find("REGS", 1, true) + 16) }
		return values[1], values[17]
	end

	it("finishes a read with its answer and runs no further", function()
		local guest <close> = start("\x66\xba\x40\x12\xed" .. asm.out8(0x10, 1))
		assert.is_false(guest:run().write)
		assert.is_true(guest:settle(0, 0xcafe))
		assert.are.same({ 0xcafe, 0x100005 }, { rax_and_rip(guest) })
		assert.are.same(pio(true, 1, 0x10, 1), guest:run())
	end)

	it("finishes a write", function()
		local guest <close> = start("\xa3" .. le32(mmio) .. asm.out8(0x10, 1))
		assert.are.equal("mmio", guest:run().kind)
		assert.is_true(guest:settle())
		assert.is_true(guest:settle())
		assert.are.equal(0x100005, select(2, rax_and_rip(guest)))
		assert.are.equal("pio", guest:run().kind)
	end)

	it("asks for what is left of an access in parts", function()
		local guest <close> = start("\xa1" .. le32(mmio + 0xffd) .. asm.out8(0x10, 1))
		local exit = guest:run()
		for i = 1, 3 do
			assert.are.equal(mmio + 0xffc + i, exit.address)
			exit = guest:settle(0, i)
		end
		assert.are.equal(mmio + 0x1000, exit.address)
		assert.is_true(guest:settle(0, 4))
		assert.are.same({ 0x04030201, 0x100005 }, { rax_and_rip(guest) })
	end)
end)

describe("a doorbell #kvm", function()
	it("rings for 4-byte writes alone", function()
		local guest <close> = start("\xc6\x05" .. le32(mmio + 0x50) .. "\x01") -- mov byte [mmio + 0x50], 1
		local fd = assert(guest:ioeventfd(mmio + 0x50))
		assert.are.same(mmio_exit(true, 1, mmio + 0x50, 1), guest:run())
		assert.are.equal(0, guest:count(fd))
	end)
end)

describe("an x86_64 interrupt #kvm", function()
	local pin = 5

	-- A guest whose interrupt handler does `before` and then says that it ran.
	local function sleeper(before)
		local guest = start { code = irq.code(pin), boot = "long64", page_table = irq.page_table }
		irq.write(guest, (before or "") .. asm.out8(0x10, 0x55))
		return guest
	end

	it("wakes a sleeping vCPU, each edge of its line anew", function()
		local guest <close> = sleeper(irq.store(mmio + 0x50, 7))
		local bell = assert(guest:ioeventfd(mmio + 0x50))
		assert.are.same(pio(true, 1, irq.ready_port, 1), guest:run())
		for _ = 1, 3 do
			guest:start()
			assert.is_nil((guest:wait(0, 50)))
			assert(guest:irq(pin, true))
			assert(guest:irq(pin, false))
			assert.are.same(pio(true, 1, 0x10, 0x55), guest:wait())
			assert.are.equal(1, guest:count(bell))
		end
	end)

	it("that is pending travels with the state, and so does its way", function()
		local first <close> = sleeper()
		first:run()
		assert.is_true(first:settle())
		assert(first:irq(pin, true))
		assert(first:irq(pin, false))
		local second <close> = bare.empty(1)
		bare.move(first, second, 1)
		assert.are.equal(first:save_vm(), second:save_vm())
		assert.are.same(pio(true, 1, 0x10, 0x55), second:run())
		-- The routing came along too.
		second:start()
		assert.is_nil((second:wait(0, 50)))
		assert(second:irq(pin, true))
		assert.are.same(pio(true, 1, 0x10, 0x55), second:wait())
	end)

	it("starts the other processors", function()
		local icr_high, icr_low = 0xfee00310, 0xfee00300
		local sipi = asm.store(icr_high, 1 << 24) .. asm.store(icr_low, 0x4500)
			.. asm.store(icr_high, 1 << 24) .. asm.store(icr_low, 0x4608) -- INIT, then start at 0x8000
		local guest <close> = start { vcpus = 2, code = asm.store(0xfee000f0, 0x1ff) .. sipi .. asm.out8(0x10, 1) }
		assert(guest:write(0x8000, "\xb0\x42\xe6\x11\xf4")) -- mov al, 0x42; out 0x11, al; hlt
		guest:start(1)
		assert.are.same(pio(true, 1, 0x10, 1), guest:run(0))
		assert.are.same(pio(true, 1, 0x11, 0x42), guest:wait(1))
	end)
end)
