-- Microguests whose code is made from a seed: they set up two virtio devices, wait for a sign, and then do things at
-- random: they write to RAM, have devices write to it, change registers, leave interrupts pending, start a processor,
-- halt.  The sign is the balloon's wish for pages, so that what was saved before it stands still.
-- Source: Intel SDM vol. 2 for the encodings, vol. 3 for the local APIC; 82093AA I/O APIC datasheet; virtio 1.2.
local core = require "supermachine.core"
local guest = require "spec.support.microguest_x86_64"

local workload = {}

workload.memory_mib, workload.vcpus, workload.disk_bytes = 16, 2, 1 << 20

local MIB <const>, PAGE <const> = 1 << 20, 4096
local BLOCK <const>, BLOCKS <const> = 1024, 16 -- bytes of one thing to do, and how many there are
local NUM <const> = 16 -- descriptors of a queue
local queues = { block = 0x200000, rng = 0x201000 } -- what the driver keeps, a page each
local fuse, cpu_code, cpu_word = 0x202000, 0x8000, 0x9000
local guest_pages, device_pages = 4 * MIB, 10 * MIB -- 6 MiB each: what vCPUs write to, and what only devices do
local area = 6 * MIB
local ioapic_select, ioapic_window = 0xfec00000, 0xfec00010
local lapic = { id = 0x20, tpr = 0x80, svr = 0xf0, icr = 0x300, icr_high = 0x310, timer = 0x320, count = 0x380 }

local plan = core.plan { arch = "x86_64", memory_mib = workload.memory_mib, vcpus = workload.vcpus, blocks = 1 }
local slots = {}
for _, slot in ipairs(plan.slots) do slots[slot.kind] = slot end

local random = math.random
local function le32(value) return string.pack("<I4", value & 0xffffffff) end
local function set_lapic(register, value) return guest.store(0xfee00000 + lapic[register], value) end

-- ---- devices -----------------------------------------------------------------------------------------------------

local function register(kind, offset, value) return guest.store(slots[kind].base + offset, value) end

-- Where only devices write; short of the end by what one request may fill.
local function buffer() return device_pages + random(0, area - 4 * PAGE) end

local function descriptor(kind, index, gpa, len, flags, following)
	local at = queues[kind] + 16 * index
	return guest.store(at, gpa) .. guest.store(at + 4, 0) .. guest.store(at + 8, len)
		.. guest.store(at + 12, flags | following << 16)
end

-- Negotiation, one queue, and a ring that offers the chains that begin at these descriptors again and again.
local function start(kind, heads)
	local page, code = queues[kind], {}
	for _, step in ipairs { { 0x70, 0 }, { 0x70, 3 }, { 0x24, 1 }, { 0x20, 1 }, { 0x70, 11 }, { 0x30, 0 }, { 0x38, NUM },
		{ 0x80, page }, { 0x90, page + 0x100 }, { 0xa0, page + 0x200 }, { 0x44, 1 }, { 0x70, 15 } } do
		code[#code + 1] = register(kind, step[1], step[2])
	end
	for i = 0, NUM - 1, 2 do
		code[#code + 1] = guest.store(page + 0x104 + 2 * i, heads[i % #heads + 1] | heads[(i + 1) % #heads + 1] << 16)
	end
	return table.concat(code)
end

local function rng_request(index) return descriptor("rng", index, buffer(), random(1, 3 * PAGE), 2, 0) end

local function blk_request(chain)
	local head, request = 3 * chain, queues.block + 0x800 + 16 * chain
	local len = 512 * random(1, 16)
	return guest.store(request, 0) .. guest.store(request + 8, random(0, workload.disk_bytes // 512 - 16))
		.. descriptor("block", head, request, 16, 1, head + 1)
		.. descriptor("block", head + 1, buffer(), len, 3, head + 2)
		.. descriptor("block", head + 2, buffer(), 1, 2, 0)
end

-- One more chain; then the device is told.
local function offer(kind)
	return "\x66\xff\x05" .. le32(queues[kind] + 0x102) .. register(kind, 0x50, 0) -- inc word [available index]
end

-- Until the device has done what it was offered, but not for ever: it may have been reset, and then does nothing.
local function wait(kind)
	return "\xb9" .. le32(3000) .. "\x66\xa1" .. le32(queues[kind] + 0x102) -- mov ecx; again: mov ax, [available]
		.. "\x66\x3b\x05" .. le32(queues[kind] + 0x202) .. "\x74\x03\x49\x75\xee" -- cmp ax, [used]; je; dec ecx; jnz again
end

-- The same, before anything can have reset it; the interrupt is acknowledged, or a restore would raise it again.
local function done(kind)
	return "\x66\xa1" .. le32(queues[kind] + 0x102) .. "\x66\x3b\x05" .. le32(queues[kind] + 0x202) .. "\x75\xf1"
		.. register(kind, 0x64, 1)
end

-- ---- things to do ------------------------------------------------------------------------------------------------

local function wrmsr(index, low, high)
	return "\xb9" .. le32(index) .. "\xb8" .. le32(low) .. "\xba" .. le32(high) .. "\x0f\x30"
end

local things = {}

function things.pages() -- a word each, to pages that the seed has chosen
	local code = { guest.counter() }
	for i = 1, random(1, 60) do code[i + 1] = guest.store_word(guest_pages + (random(0, area - 4) & ~3)) end
	return table.concat(code)
end

function things.page_of_the_moment() -- imul eax; and eax; add eax; mov [eax], edx
	local code = guest.counter() .. "\x69\xc0" .. le32(0x9e3779b1) .. "\x25" .. le32(4 * MIB - 4)
		.. "\x05" .. le32(guest_pages) .. "\x89\x10"
	return code:rep(random(1, 8))
end

function things.run_of_pages() -- cld; mov edi; mov ecx; rep stosd
	local words = random(1, 3 * PAGE)
	return "\xfc\xbf" .. le32(guest_pages + random(0, area - 4 * words)) .. "\xb9" .. le32(words) .. "\xf3\xab"
end

function things.zeros() return "\x31\xc0" .. things.run_of_pages() end

function things.rng()
	return wait "rng" .. rng_request(random(0, 7)) .. offer "rng" .. (random(2) == 1 and wait "rng" or "")
end

function things.block()
	return wait "block" .. blk_request(random(0, 4)) .. offer "block" .. (random(2) == 1 and wait "block" or "")
end

function things.device_interrupts() -- acknowledged, or let through to the local APIC, where they stay pending
	local kind = random(2) == 1 and "rng" or "block"
	local pin = slots[kind].irq
	return register(kind, 0x64, 1) .. guest.store(ioapic_select, 0x11 + 2 * pin) .. guest.store(ioapic_window, 0)
		.. guest.store(ioapic_select, 0x10 + 2 * pin)
		.. guest.store(ioapic_window, random(0, 1) << 16 | random(0x30, 0xef))
end

function things.device_reset() return register(random(2) == 1 and "rng" or "block", 0x70, 0) end

function things.interrupt() -- to itself
	return set_lapic("svr", 0x1ff) .. set_lapic("tpr", random(0, 15) << 4) .. set_lapic("icr_high", 0)
		.. set_lapic("icr", 0x44000 | random(0x30, 0xef))
end

function things.timer()
	return set_lapic("timer", 0x10000 | random(0x30, 0xef)) .. set_lapic("count", random(1, 1 << 31))
end

function things.legacy_interrupts()
	local code = {}
	for _, port in ipairs { 0x20, 0xa0 } do
		code[#code + 1] = guest.out8(port, 0x11) .. guest.out8(port + 1, random(4, 31) << 3)
			.. guest.out8(port + 1, port == 0x20 and 4 or 2) .. guest.out8(port + 1, 1)
			.. guest.out8(port + 1, random(0, 255))
	end
	return table.concat(code)
end

function things.serial() -- interrupt enable, modem control, scratch
	local base = plan.serial.base
	return guest.out8(base + 1, random(0, 15)) .. guest.out8(base + 4, random(0, 15))
		.. guest.out8(base + 7, random(0, 255))
end

function things.registers() -- ebx, esp, ebp, esi; flags; debug registers, CR2; an xmm
	local code = {}
	for _, opcode in ipairs { "\xbb", "\xbc", "\xbd", "\xbe" } do code[#code + 1] = opcode .. le32(random(0, 1 << 31)) end
	for _, list in ipairs { { "\xf9", "\xf8", "\xfd", "" }, { "\x0f\x23\xc0", "\x0f\x23\xd0", "\x0f\x22\xd0", "" } } do
		code[#code + 1] = list[random(#list)]
	end
	return table.concat(code) .. "\x0f\x10" .. string.char(random(0, 7) << 3 | 5) .. le32(guest.entry + random(0, PAGE))
end

function things.msrs() -- SYSENTER, PAT, a variable MTRR
	return wrmsr(0x174 + random(0, 2), random(0, 1 << 31), 0)
		.. wrmsr(0x277, 0x06060606, random(2) == 1 and 0 or 0x00070406)
		.. wrmsr(0x200 + 2 * random(0, 7), random(0, 15) << 20 | 6, 0)
end

-- The other processor, with INIT and a start-up interrupt: it counts in a word of its own, in real mode, for ever.
function things.processor()
	return set_lapic("icr_high", 1 << 24) .. set_lapic("icr", 0x4500) .. set_lapic("icr", 0x4600 | cpu_code >> 12)
end

-- Devices more often than the rest.
local names = { "rng", "rng", "block", "block" }
for name in pairs(things) do names[#names + 1] = name end
table.sort(names)

-- ---- the guest ---------------------------------------------------------------------------------------------------

local function prepared()
	local code = {
		"\xb8" .. le32(0x600) .. "\x0f\x22\xe0", -- CR4: there are xmm registers
		guest.store(cpu_code, 0x0006ff | cpu_word << 16), guest.store(cpu_code + 4, 0xfaeb), -- inc word [..]; jmp
		guest.store(fuse, random(1, 60)),
		start("rng", { 0, 1, 2, 3, 4, 5, 6, 7 }), start("block", { 0, 3, 6, 9, 12 }),
	}
	for i = 0, 7 do code[#code + 1] = rng_request(i) end
	for i = 0, 4 do code[#code + 1] = blk_request(i) end
	return table.concat(code)
end

-- `.` for each thing, `h` and a halt when the fuse has burnt down; the counter says which is next.
local function endless(base)
	local dispatch = guest.print "." .. "\xff\x0d" .. le32(fuse) -- dec dword [fuse]
	local halt = guest.print "h" .. guest.halt()
	dispatch = dispatch .. "\x75" .. string.char(#halt) .. halt -- jnz
	local blocks_at = base + (#dispatch + 64)
	dispatch = dispatch .. guest.counter() .. "\x69\xc0" .. le32(0x9e3779b1) .. "\xc1\xe8\x1c" -- imul eax; shr eax, 28
		.. "\x69\xc0" .. le32(BLOCK) .. "\x05" .. le32(blocks_at) .. "\xff\xe0" -- imul eax; add eax; jmp eax
	local code = { dispatch .. guest.nop():rep(blocks_at - base - #dispatch) }
	for i = 0, BLOCKS - 1 do
		local body = things[names[random(#names)]]()
		local back = base - (blocks_at + i * BLOCK + #body + 5)
		assert(#body + 5 <= BLOCK, "a thing too long for its block")
		code[#code + 1] = body .. "\xe9" .. le32(back) .. guest.nop():rep(BLOCK - #body - 5)
	end
	return table.concat(code)
end

--- The code of `seed`: says `ready`, waits for the balloon to be asked for pages, and goes on until it halts.
function workload.code(seed)
	math.randomseed(seed)
	local first = prepared()
	for _ = 1, random(0, 2) do first = first .. offer "rng" .. done "rng" .. offer "block" .. done "block" end
	for _ = 1, random(0, 3) do first = first .. things[({ "interrupt", "timer", "registers", "msrs" })[random(4)]]() end
	local config = "\x83\x3d" .. le32(slots.balloon.base + 0x100) .. "\0" -- cmp dword [..], 0
	first = first .. guest.print "ready" .. config .. "\x74" .. string.char(-(#config + 2) & 0xff) -- je
	return first .. endless(guest.entry + #first)
end

return workload
