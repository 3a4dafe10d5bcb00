-- Kernels of a few dozen bytes for the host's architecture, hand-assembled: microguest_ARCH.lua has the instructions.
--
-- What every architecture gives, as strings to be put one behind the other:
--   print(text), print_word(): on the console; the word is the last one loaded, its four bytes, lowest first
--   load(gpa), store(gpa, value), store_word(gpa): 32 bits; the last stores the word
--   increment(): the word; unless(gpa, body): body is run unless the word is what is at gpa
--   await(gpa, value): until the word at gpa is that
--   tell(value): 32 bits to where nothing is, which a bare guest's owner sees
--   counter(): the low half of a counter that never stands still becomes the word
--   nop(), spin(), loop(body), times(count, body)
--   poweroff(), reset(), halt(): how it ends; halt sleeps for good, sleep() until an interrupt, again and again
--   kernel(code): the file that a machine boots; entry: the address of its first instruction
local core = require "supermachine.core"

local plan = core.plan {}
local guest = require("spec.support.microguest_" .. plan.arch)

guest.arch = plan.arch
guest.ram_base = plan.ram[1].gpa
guest.mmio_base, guest.mmio_stride = plan.mmio_base, plan.mmio_stride
guest.nothing = plan.mmio_base + 0xff0000 -- past every slot a plan can have
guest.bare = guest.ram_base + 0x100000 -- where core.microguest starts, without a kernel's file
guest.scratch = guest.entry + 0x100000 -- RAM that no code reaches into

function guest.tell(value) return guest.store(guest.nothing, value) end

--- Write the kernel of `code` to `path`; returns path.
function guest.write(path, code)
	local file = assert(io.open(path, "wb"))
	assert(file:write(guest.kernel(code)))
	assert(file:close())
	return path
end

return guest
