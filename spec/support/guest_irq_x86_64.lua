-- A microguest with interrupts: 64-bit code at 1 MiB that routes one IOAPIC pin to a handler, says so, and sleeps.
-- Source: Intel SDM vol. 3, "Interrupt and Exception Handling", "Paging" and "Local APIC"; 82093AA I/O APIC datasheet.
local asm = require "spec.support.microguest_x86_64"

local irq = {}

irq.page_table = 0x10000
irq.ready_port = 0x11
irq.vector = 0x30

local gdtr_at, idtr_at, gdt_at, idt_at = 0x180000, 0x180010, 0x180100, 0x181000
local handler_at, stack = 0x170000, 0x190000
local ioapic_select, ioapic_window = 0xfec00000, 0xfec00010
local lapic_svr, lapic_eoi = 0xfee000f0, 0xfee000b0
local code_selector = 0x10

local function edi(value) return "\xbf" .. string.pack("<I4", value) end -- mov edi, value

--- Store 32 bits; an absolute address would be sign-extended.
function irq.store(gpa, value) return edi(gpa) .. "\xc7\x07" .. string.pack("<I4", value) end

--- The code of a guest that sleeps until interrupt `pin`.
function irq.code(pin)
	return "\xbc" .. string.pack("<I4", stack) -- mov esp, stack
		.. edi(gdtr_at) .. "\x0f\x01\x17" -- lgdt [rdi]
		.. edi(idtr_at) .. "\x0f\x01\x1f" -- lidt [rdi]
		.. asm.out8(0x21, 0xff) .. asm.out8(0xa1, 0xff) -- the PICs, which see the same lines, keep quiet
		.. irq.store(lapic_svr, 0x1ff)
		.. irq.store(ioapic_select, 0x11 + 2 * pin) .. irq.store(ioapic_window, 0) -- to APIC 0
		.. irq.store(ioapic_select, 0x10 + 2 * pin) .. irq.store(ioapic_window, irq.vector) -- edge, unmasked
		.. asm.out8(irq.ready_port, 1)
		.. "\xfb\xf4\xeb\xfc" -- again: sti; hlt; jmp again
end

--- Put page tables (the first 4 GiB), descriptor tables and the handler around `body` into the guest's RAM.
function irq.write(guest, body)
	local pml4, pdpt, pd = irq.page_table, irq.page_table + 0x1000, irq.page_table + 0x2000
	assert(guest:write(pml4, string.pack("<I8", pdpt | 3)))
	local large = {}
	for gib = 0, 3 do
		assert(guest:write(pdpt + 8 * gib, string.pack("<I8", pd + 0x1000 * gib | 3)))
		for i = 0, 511 do large[#large + 1] = string.pack("<I8", gib << 30 | i << 21 | 0x83) end
	end
	assert(guest:write(pd, table.concat(large)))
	assert(guest:write(gdtr_at, string.pack("<I2I8", 31, gdt_at)))
	assert(guest:write(idtr_at, string.pack("<I2I8", 4095, idt_at)))
	assert(guest:write(gdt_at, string.pack("<I8I8I8I8", 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff)))
	assert(guest:write(idt_at + 16 * irq.vector,
		string.pack("<I2I2I2I2I8", handler_at & 0xffff, code_selector, 0x8e00, handler_at >> 16, 0)))
	assert(guest:write(handler_at, irq.store(lapic_eoi, 0) .. body .. "\x48\xcf")) -- iretq
end

return irq
