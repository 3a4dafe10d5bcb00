-- Exits and interrupts as aarch64 alone has them.
local asm = require "spec.support.microguest"
local bare = require "spec.support.bare_guest"
local irq = require "spec.support.guest_irq_aarch64"

local mmio = asm.mmio_base
local start, mmio_exit, told = bare.start, bare.mmio_exit, bare.told

describe("a memory access outside RAM #kvm", function()
	it("is handed out with size, address and value", function()
		local guest <close> = start(asm.mov(10, mmio + 8) .. asm.mov(11, 0x1122334455667788)
			.. asm.strb(11, 10) .. irq.strh(11, 10) .. asm.str(11, 10) .. irq.strx(11, 10))
		assert.are.same(mmio_exit(true, 1, mmio + 8, 0x88), guest:run())
		assert.are.same(mmio_exit(true, 2, mmio + 8, 0x7788), guest:run())
		assert.are.same(mmio_exit(true, 4, mmio + 8, 0x55667788), guest:run())
		assert.are.same(mmio_exit(true, 8, mmio + 8, 0x1122334455667788), guest:run())
	end)

	it("is answered", function()
		local code, cases = asm.mov(10, mmio), {
			{ 1, irq.ldrb(9, 10), 0xa5 }, { 2, irq.ldrh(9, 10), 0x1234 }, { 4, asm.ldr(9, 10), 0xfedcba98 },
			{ 8, irq.ldrx(9, 10), -2 },
		}
		for _, case in ipairs(cases) do code = code .. case[2] .. irq.strx(9, 10) end
		local guest <close> = start(code)
		for _, case in ipairs(cases) do
			local size, _, value = table.unpack(case)
			assert.are.same(mmio_exit(false, size, mmio, 0), guest:run())
			-- What lies above the access is not taken.
			local answer = size == 8 and value or value | 0x77 << 8 * size
			assert.are.same(mmio_exit(true, 8, mmio, value), guest:run(0, answer))
		end
	end)

	it("by an instruction that KVM cannot take apart is an error that says so", function()
		local guest <close> = start(asm.mov(10, mmio) .. irq.ldp(8, 9, 10))
		local exit = guest:run()
		assert.are.same({ "error", "ENOSYS" }, { exit.kind, exit.error })
		assert.truthy(exit.detail:find("cannot take apart", 1, true), exit.detail)
	end)
end)

describe("a guest that ends #kvm", function()
	it("by a call of the firmware says how", function()
		for kind, code in pairs {
			poweroff = asm.poweroff(), reset = asm.reset(),
		} do
			local guest <close> = start(code)
			assert.are.same({ kind = kind }, guest:run())
		end
		local guest <close> = start(asm.psci(0xc4000012, 0, 0) .. asm.spin()) -- SYSTEM_RESET2
		assert.are.same({ kind = "reset" }, guest:run())
	end)

	it("by sleeping is not, whatever is masked", function()
		for _, unmask in ipairs { "", irq.unmask() } do
			local guest <close> = start(unmask .. asm.sleep())
			guest:start()
			assert.is_nil((guest:wait(0, 50)))
			guest:kick()
			assert.are.equal("kick", guest:wait().kind)
			assert.is_false(guest:halted())
		end
	end)
end)

describe("another vCPU #kvm", function()
	local cpu_on = 0xc4000003

	it("is started by a call of the firmware, with what it is given", function()
		local there = asm.bare + 0x1000
		local guest <close> = start { vcpus = 3, code = asm.psci(cpu_on, 2, there, 0x123456789)
			.. irq.storex(mmio, 0) .. asm.spin() }
		assert(guest:write(there, irq.storex(mmio + 8, 0) .. asm.mrs(9, 0, 0, 0, 5) .. irq.storex(mmio + 16, 9)))
		guest:start(2)
		assert.are.same(mmio_exit(true, 8, mmio, 0), guest:run(0)) -- PSCI: success
		assert.are.same(mmio_exit(true, 8, mmio + 8, 0x123456789), guest:wait(2))
		assert.are.equal(2, guest:run(2).data & 0xff) -- MPIDR_EL1
		assert.is_true(guest:halted(1))
		assert.is_false(guest:halted(2))
	end)

	it("that is not there is not started", function()
		local guest <close> = start { vcpus = 2, code = asm.psci(cpu_on, 2, asm.bare, 0) .. irq.storex(mmio, 0) }
		assert.are.same(mmio_exit(true, 8, mmio, -2), guest:run()) -- PSCI: invalid parameters
	end)
end)

describe("settling #kvm", function()
	-- x9 and PC out of a vCPU's records.
	local function x9_and_pc(guest)
		local values = {}
		local records = guest:save_vcpu()
		for i, id in ipairs { 0x6030000000100012, 0x6030000000100040 } do
			local at = assert(records:find(string.pack("<I8", id), 1, true))
			values[i] = string.unpack("<I8", records, at + 8)
		end
		return values
	end

	it("finishes a read with its answer and runs no further", function()
		local code = asm.mov(10, mmio) .. asm.ldr(9, 10)
		local guest <close> = start(code .. asm.tell(1))
		assert.is_false(guest:run().write)
		assert.is_true(guest:settle(0, 0xcafe))
		assert.are.same({ 0xcafe, asm.bare + #code }, x9_and_pc(guest))
		assert.are.same(told(1), guest:run())
	end)

	it("finishes a write", function()
		local code = asm.mov(10, mmio) .. asm.str(9, 10)
		local guest <close> = start(code .. asm.tell(1))
		assert.are.equal("mmio", guest:run().kind)
		assert.is_true(guest:settle())
		assert.is_true(guest:settle())
		assert.are.same({ 0, asm.bare + #code }, x9_and_pc(guest))
		assert.are.same(told(1), guest:run())
	end)
end)

describe("a doorbell #kvm", function()
	it("is for 4 bytes alone", function()
		local guest <close> = start(asm.mov(10, mmio + 0x50) .. asm.mov(11, 7) .. irq.strh(11, 10) .. irq.strx(11, 10))
		local fd = assert(guest:ioeventfd(mmio + 0x50))
		assert.are.same(mmio_exit(true, 2, mmio + 0x50, 7), guest:run())
		assert.are.same(mmio_exit(true, 8, mmio + 0x50, 7), guest:run())
		assert.are.equal(0, guest:count(fd))
	end)
end)

describe("an interrupt #kvm", function()
	-- A guest whose interrupt handler does `before` and then says which one it was.
	local function sleeper(id, before)
		local guest = start { code = irq.code(id) }
		irq.write(guest, (before or "") .. asm.mov(10, asm.nothing) .. asm.str(20, 10))
		return guest
	end

	it("wakes a sleeping vCPU, each edge of its line anew", function()
		for _, id in ipairs { 32, 33, 160, 191 } do
			local guest <close> = sleeper(id, asm.store(mmio + 0x50, 7))
			local bell = assert(guest:ioeventfd(mmio + 0x50))
			assert.are.same(told(1), guest:run())
			for _ = 1, 3 do
				guest:start()
				assert.is_nil((guest:wait(0, 50)))
				assert(guest:irq(id, true))
				assert(guest:irq(id, false))
				assert.are.same(told(id), guest:wait())
				assert.are.equal(1, guest:count(bell))
			end
		end
	end)

	it("past the last one is refused", function()
		local guest <close> = start ""
		assert(guest:irq(191, false))
		local ok, _, code = guest:irq(192, true)
		assert.are.same({ nil, "EINVAL" }, { ok, code })
	end)

	it("that is pending travels with the state, and so does its way", function()
		local first <close> = sleeper(77)
		first:run()
		assert.is_true(first:settle())
		assert(first:irq(77, true))
		assert(first:irq(77, false))
		local second <close> = bare.empty(1)
		bare.move(first, second, 1)
		assert.are.equal(first:save_vm(), second:save_vm())
		assert.are.same(told(77), second:run())
		-- Its way came along too.
		second:start()
		assert.is_nil((second:wait(0, 50)))
		assert(second:irq(77, true))
		assert.are.same(told(77), second:wait())
	end)

	it("that is being served travels with the state", function()
		local first <close> = sleeper(50)
		first:run()
		first:start()
		assert(first:irq(50, true))
		assert(first:irq(50, false))
		assert.are.same(told(50), first:wait()) -- active: not yet at its end
		assert.is_true(first:settle())
		assert(first:irq(50, true))
		assert(first:irq(50, false)) -- and pending again
		local second <close> = bare.empty(1)
		bare.move(first, second, 1)
		assert.are.same(told(50), second:run())
		second:start()
		assert.is_nil((second:wait(0, 50))) -- once
	end)
end)

