-- A microguest with interrupts: code at EL1 that lets some of the GIC's through, says so, and sleeps; and instructions
-- that only the back end's specs need.
-- Source: ARM DDI 0487, C6.2 and D1.10 (exceptions); ARM IHI 0069 (GICv3); the addresses are those of platform.h.
local asm = require "spec.support.microguest"
local irq = {}

irq.timer = 27
irq.distributor, irq.redistributors, irq.redistributor_bytes = 0x08000000, 0x080a0000, 0x20000

local vectors = asm.ram_base + 0x170000
local from_el1, own_stack = 0x200, 0x80 -- of the vectors: an exception at EL1 on its own stack, then the kind

local function op(code) return string.pack("<I4", code) end
irq.op = op

function irq.isb() return op(0xd5033fdf) end
function irq.unmask() return op(0xd50342ff) end -- MSR DAIFClr, #2
function irq.eret() return op(0xd69f03e0) end
function irq.strh(register, base) return op(0x79000000 | base << 5 | register) end
function irq.strx(register, base) return op(0xf9000000 | base << 5 | register) end
function irq.ldrb(register, base) return op(0x39400000 | base << 5 | register) end
function irq.ldrh(register, base) return op(0x79400000 | base << 5 | register) end
function irq.ldrx(register, base) return op(0xf9400000 | base << 5 | register) end
function irq.ldp(first, second, base) return op(0xa9400000 | second << 10 | base << 5 | first) end
function irq.ldrq(register, base) return op(0x3dc00000 | base << 5 | register) end
function irq.strq(register, base) return op(0x3d800000 | base << 5 | register) end
function irq.add(to, first, second) return op(0x8b000000 | second << 16 | first << 5 | to) end
function irq.add_number(to, from, number) return op(0x91000000 | number << 10 | from << 5 | to) end
function irq.compare(first, second) return op(0xeb00001f | second << 16 | first << 5) end
function irq.skip_unless_lower() return op(0x54000042) end -- B.HS: past the next one

-- Store 64 bits of a register; x10 is the address.
function irq.storex(gpa, register) return asm.mov(10, gpa) .. irq.strx(register, 10) end

--- The virtual counter, not before what stands before it.
function irq.counter(register) return irq.isb() .. asm.mrs(register, 3, 14, 0, 2) end
function irq.deadline(register) return asm.msr(register, 3, 14, 3, 2) end -- CNTV_CVAL_EL0
function irq.read_deadline(register) return asm.mrs(register, 3, 14, 3, 2) end
function irq.timer_control(number) return asm.mov(11, number) .. asm.msr(11, 3, 14, 3, 1) end -- CNTV_CTL_EL0

--- In a timer's handler that has its deadline in x3: the next one is `ms` later.
function irq.again(ms)
	return asm.mrs(4, 3, 14, 0, 0) .. asm.mov(5, ms) .. irq.op(0x9b057c84) -- CNTFRQ_EL0; MUL X4, X4, X5
		.. asm.mov(5, 1000) .. irq.op(0x9ac50884) -- UDIV X4, X4, X5
		.. irq.add(3, 3, 4) .. irq.deadline(3)
end

--- Let interrupts through to this vCPU: its own ones in `private`, shared ones in `shared`, by edge.
function irq.enable(private, shared)
	local code = {
		asm.mov(11, vectors), asm.msr(11, 0, 12, 0, 0), -- VBAR_EL1
		asm.store(irq.distributor, 0x12), -- affinity routing, group 1 on
		asm.mov(11, 0xff), asm.msr(11, 0, 4, 6, 0), -- ICC_PMR_EL1
		asm.mov(11, 1), asm.msr(11, 0, 12, 12, 7), -- ICC_IGRPEN1_EL1
	}
	for _, id in ipairs(private) do
		code[#code + 1] = asm.store(irq.redistributors + 0x10100, 1 << id) -- GICR_ISENABLER0
	end
	for _, id in ipairs(shared) do
		code[#code + 1] = asm.store(irq.distributor + 0xc00 + id // 16 * 4, 2 << id % 16 * 2) -- GICD_ICFGR
			.. asm.store(irq.distributor + 0x100 + id // 32 * 4, 1 << id % 32) -- GICD_ISENABLER
	end
	return table.concat(code) .. irq.isb()
end

--- The code of a guest that sleeps until shared interrupt `id`.
function irq.code(id)
	return irq.enable({}, { id }) .. asm.tell(1) .. irq.unmask() .. asm.sleep()
end

--- Put the handler around `body` into the guest's RAM; `body` finds the interrupt's number in x20.
function irq.write(guest, body)
	local code = asm.mrs(20, 0, 12, 12, 0) .. body -- ICC_IAR1_EL1
		.. asm.msr(20, 0, 12, 12, 1) .. irq.isb() .. irq.eret() -- ICC_EOIR1_EL1
	local handler = vectors + 0x800
	local at = vectors + from_el1 + own_stack
	assert(guest:write(at, asm.b(handler - at)))
	assert(guest:write(handler, code))
end

return irq
