-- Kernels of a few dozen bytes for x86_64: an ELF with a PVH note around hand-assembled 32-bit code at 1 MiB.
-- Source: Intel SDM vol. 2 for the encodings; ELF-64 object file format; Xen docs/misc/pvh.pandoc.
local core = require "supermachine.core"

local plan = core.plan { arch = "x86_64" }
local guest = {}

guest.entry = 0x100000
local u8, u16, u32 = "<I1", "<I2", "<I4"

local function le32(value) return string.pack(u32, value & 0xffffffff) end

-- One instruction or a short run of them each; all clobber eax and edx at most.
function guest.out8(port, value)
	return "\x66\xba" .. string.pack(u16, port) .. "\xb0" .. string.pack(u8, value) .. "\xee"
end
function guest.load(gpa) return "\xa1" .. le32(gpa) end -- mov eax, [gpa]
function guest.store(gpa, value) return "\xc7\x05" .. le32(gpa) .. le32(value) end
function guest.store_word(gpa) return "\xa3" .. le32(gpa) end -- mov [gpa], eax
function guest.increment() return "\xff\xc0" end -- inc eax
function guest.unless(gpa, body) -- cmp eax, [gpa]; je
	assert(#body < 128, "body too long for a short jump")
	return "\x3b\x05" .. le32(gpa) .. "\x74" .. string.pack("<i1", #body) .. body
end
--- Wait, busily, until the word at gpa is this.
function guest.await(gpa, value) return "\x81\x3d" .. le32(gpa) .. le32(value) .. "\x75\xf4" end -- cmp [gpa]; jne
function guest.counter() return "\x0f\x31" end -- rdtsc
function guest.cli() return "\xfa" end
function guest.hlt() return "\xf4\xeb\xfd" end -- hlt; again
function guest.halt() return guest.cli() .. guest.hlt() end
function guest.sleep() return "\xfb" .. guest.hlt() end -- sti
-- The same, deaf to the PICs: there is no handler for what they have to say.
function guest.idle() return guest.out8(0x21, 0xff) .. guest.out8(0xa1, 0xff) .. guest.sleep() end
function guest.nop() return "\x90" end
function guest.spin() return "\xeb\xfe" end
function guest.triple_fault() -- an empty IDT, then an invalid opcode
	return guest.store(0x180000, 0) .. guest.store(0x180004, 0) .. "\x0f\x01\x1d" .. le32(0x180000) .. "\x0f\x0b"
end
function guest.print(text)
	return (text:gsub(".", function(char) return guest.out8(plan.serial.base, char:byte()) end))
end
function guest.print_word()
	local step = "\xee\xc1\xe8\x08" -- out dx, al; shr eax, 8
	return "\x66\xba" .. string.pack(u16, plan.serial.base) .. step:rep(4)
end
function guest.poweroff() return guest.out8(0x604, 0x34) .. guest.hlt() end
function guest.reset() return guest.out8(0x600, 1) .. guest.hlt() end
-- Run `body` again and again; it must be shorter than 2 GiB.
function guest.loop(body) return body .. "\xe9" .. le32(-(#body + 5)) end
-- Count ecx down from `count` around `body`.
function guest.times(count, body)
	assert(#body + 3 < 120, "body too long for a short jump")
	return "\xb9" .. le32(count) .. body .. "\x49\x75" .. string.pack("<i1", -(#body + 3)) -- dec ecx; jnz
end

--- The ELF file around `code`.
function guest.kernel(code)
	local note = string.pack("<I4I4I4", 4, 4, 18) .. "Xen\0" .. le32(guest.entry)
	local headers, phsize = 64, 56
	local note_at = headers + 2 * phsize
	local code_at = 0x1000
	local header = "\x7fELF\2\1\1" .. ("\0"):rep(9)
		.. string.pack("<I2I2I4I8I8I8I4I2I2I2I2I2I2", 2, 62, 1, guest.entry, headers, 0, 0, headers, phsize, 2, 64, 0, 0)
	local load = string.pack("<I4I4I8I8I8I8I8I8", 1, 7, code_at, guest.entry, guest.entry, #code, #code, 0x1000)
	local notes = string.pack("<I4I4I8I8I8I8I8I8", 4, 4, note_at, 0, 0, #note, #note, 4)
	local image = header .. load .. notes .. note
	return image .. ("\0"):rep(code_at - #image) .. code
end

return guest
