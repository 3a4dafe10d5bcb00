-- Kernels of a few dozen bytes for aarch64: an Image header and hand-assembled code that runs wherever it is put, at
-- EL1, with the MMU off.
-- Source: ARM DDI 0487, C6.2 for the encodings; Linux Documentation/arch/arm64/booting.rst for the header; ARM DEN 0022
-- (PSCI) for the calls.
local core = require "supermachine.core"

local plan = core.plan { arch = "aarch64" }
local guest = {}

local header = 64
guest.entry = plan.firmware.gpa + plan.firmware.bytes + header

-- x0: a call's number.  x9: the word.  x10: an address.  x11: a value.  x12: the count of `times`.
local call, word, address, value, left = 0, 9, 10, 11, 12

local function op(code) return string.pack("<I4", code) end

-- A branch's distance in bytes, as `bits` bits of instructions.
local function distance(bytes, bits) return bytes // 4 & (1 << bits) - 1 end

--- Xd = number: MOVZ, and a MOVK for each further 16 bits that are not zero.
function guest.mov(register, number)
	local code = op(0xd2800000 | (number & 0xffff) << 5 | register)
	for half = 1, 3 do
		local bits = number >> 16 * half & 0xffff
		if bits ~= 0 then code = code .. op(0xf2800000 | half << 21 | bits << 5 | register) end
	end
	return code
end
function guest.ldr(register, base) return op(0xb9400000 | base << 5 | register) end -- LDR Wt, [Xn]
function guest.str(register, base) return op(0xb9000000 | base << 5 | register) end -- STR Wt, [Xn]
function guest.strb(register, base) return op(0x39000000 | base << 5 | register) end -- STRB Wt, [Xn]
function guest.b(bytes) return op(0x14000000 | distance(bytes, 26)) end -- from here
function guest.cbnz(register, bytes) return op(0x35000000 | distance(bytes, 19) << 5 | register) end -- CBNZ Wt
-- MRS Xt and MSR from Xt of the register that op0, op1, CRn, CRm, op2 name (op0: 3).
local function system(code, op1, crn, crm, op2, register)
	return op(code | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | register)
end
function guest.mrs(register, op1, crn, crm, op2) return system(0xd5380000, op1, crn, crm, op2, register) end
function guest.msr(register, op1, crn, crm, op2) return system(0xd5180000, op1, crn, crm, op2, register) end
function guest.hvc() return op(0xd4000002) end
function guest.wfi() return op(0xd503207f) end
function guest.nop() return op(0xd503201f) end
function guest.spin() return guest.b(0) end
function guest.sleep() return guest.wfi() .. guest.b(-4) end
guest.idle = guest.sleep

--- PSCI: the call's number to x0, what it takes to x1 and on.
function guest.psci(number, ...)
	local code = {}
	for i, argument in ipairs { ... } do code[i] = guest.mov(i, argument) end
	return table.concat(code) .. guest.mov(call, number) .. guest.hvc()
end
function guest.halt() return guest.psci(0x84000002) .. guest.spin() end -- CPU_OFF
function guest.poweroff() return guest.psci(0x84000008) .. guest.spin() end -- SYSTEM_OFF
function guest.reset() return guest.psci(0x84000009) .. guest.spin() end -- SYSTEM_RESET

function guest.load(gpa) return guest.mov(address, gpa) .. guest.ldr(word, address) end
function guest.store(gpa, number)
	return guest.mov(address, gpa) .. guest.mov(value, number) .. guest.str(value, address)
end
function guest.store_word(gpa) return guest.mov(address, gpa) .. guest.str(word, address) end
function guest.increment() return op(0x11000400 | word << 5 | word) end -- ADD Wd, Wn, #1
function guest.unless(gpa, body)
	return guest.mov(address, gpa) .. guest.ldr(value, address)
		.. op(0x4b000000 | word << 16 | value << 5 | value) -- SUB Wd, Wn, Wm
		.. op(0x34000000 | distance(#body + 4, 19) << 5 | value) .. body -- CBZ Wt
end
--- Wait, busily, until the word at gpa is this.
function guest.await(gpa, number)
	local again = guest.ldr(word, address) .. op(0x4b000000 | value << 16 | word << 5 | word) -- SUB Wd, Wn, Wm
	return guest.mov(address, gpa) .. guest.mov(value, number) .. again .. guest.cbnz(word, -#again)
end
function guest.counter() return guest.mrs(word, 3, 14, 0, 2) end -- CNTVCT_EL0

function guest.print(text)
	return guest.mov(address, plan.serial.base) .. text:gsub(".", function(char)
		return guest.mov(value, char:byte()) .. guest.strb(value, address)
	end)
end
function guest.print_word()
	local step = guest.strb(word, address) .. op(0x53087c00 | word << 5 | word) -- LSR Wd, Wn, #8
	return guest.mov(address, plan.serial.base) .. step:rep(4)
end

-- Run `body` again and again.
function guest.loop(body) return body .. guest.b(-#body) end
-- Count down from `count` around `body`.
function guest.times(count, body)
	body = body .. op(0x51000400 | left << 5 | left) -- SUB Wd, Wn, #1
	return guest.mov(left, count) .. body .. guest.cbnz(left, -#body)
end

--- The Image around `code`: anywhere in RAM, 4 KiB pages, little-endian.
function guest.kernel(code)
	local size = header + #code
	return guest.b(header) .. op(0) .. string.pack("<I8I8I8I8I8I8c4I4", 0, size, 0xa, 0, 0, 0, "ARM\x64", 0) .. code
end

return guest
