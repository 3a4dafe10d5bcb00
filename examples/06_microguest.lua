-- A machine without an image: any kernel, its console, and why it ended.
--   supermachine examples/06_microguest.lua KERNEL
local sm = require "supermachine"

local vm <close> = assert(sm.vm.new { kernel = assert(arg[1], "a kernel is expected"), memory_mib = 64 })
for _, device in ipairs(assert(vm:devices())) do
	print(("%-8s at 0x%x, interrupt %d"):format(device.kind, device.mmio_base, device.irq))
end
assert(vm:resume())
print(vm:wait { timeout_ms = 30000 })
io.write(assert(vm:console()))
