-- Guests on the back end alone (core.microguest): how they start, what their exits look like, and how state moves on.
local asm = require "spec.support.microguest"
local core = require "supermachine.core"

local bare = {}

--- A guest of this code, or by these options.
function bare.start(options)
	if type(options) == "string" then options = { code = options } end
	return assert(core.microguest(options))
end

--- One whose vCPUs are all to be loaded.
function bare.empty(vcpus) return bare.start { boot = "none", vcpus = vcpus or 2 } end

--- One of two vCPUs, with `pattern` at `gpa`, which has told 1 and is settled.
function bare.stopped(code, gpa, pattern)
	local guest = bare.start { code = code, vcpus = 2 }
	assert(guest:write(gpa, pattern))
	assert(guest:run().data == 1)
	assert(guest:settle() == true)
	return guest
end

--- The exit that an access outside RAM makes, and the one that asm.tell makes.
function bare.mmio_exit(write, size, address, data)
	return { kind = "mmio", write = write, size = size, address = address, data = data }
end
function bare.told(value) return bare.mmio_exit(true, 4, asm.nothing, value) end

--- Everything of `first` into `second`, the clock last; returns the clock's record.
function bare.move(first, second, vcpus)
	for page = 0, 15 do
		local gpa = asm.ram_base + (page << 20)
		assert(second:write(gpa, first:read(gpa, 1 << 20)))
	end
	local states = {}
	for vcpu = 0, vcpus - 1 do states[vcpu] = first:save_vcpu(vcpu) end
	local vm, clock = first:save_vm(), first:save_clock()
	for vcpu = 0, vcpus - 1 do assert(second:load_vcpu(vcpu, states[vcpu])) end
	assert(second:load_vm(vm))
	assert(second:load_clock(clock))
	return clock
end

--- That a load was refused in these words: its results behind them.
function bare.refused(words, code, ok, message, name)
	assert(ok == nil, "nothing was refused")
	assert(name == code, ("%s: %s, and not %s"):format(message, name, code))
	assert(message:find(words, 1, true), message)
end

return bare
