-- How an x86_64 vCPU starts, and what it is told about itself.
local core = require "supermachine.core"
local irq = require "spec.support.guest_irq_x86_64"

local function le32(value) return string.pack("<I4", value) end

describe("the KVM back end of x86_64", function()
	it("starts a vCPU in 32-bit mode with EBX #kvm", function()
		-- mov eax, ebx; out eax; mov eax, cr0; out eax
		local guest <close> = assert(core.microguest {
			code = "\x66\xba\x10\x00\x89\xd8\xef\x0f\x20\xc0\xef", arg = 0x12345678,
		})
		assert.are.equal(0x12345678, guest:run().data)
		local cr0 = guest:run().data
		assert.are.equal(1, cr0 & 0x80000001)
	end)

	it("starts a vCPU in 64-bit mode with RSI #kvm", function()
		-- mov eax, esi; out; mov rax, rsi; shr rax, 32; out
		local guest <close> = assert(core.microguest {
			code = "\x66\xba\x10\x00\x89\xf0\xef\x48\x89\xf0\x48\xc1\xe8\x20\xef",
			arg = 0x123456789, boot = "long64", page_table = irq.page_table,
		})
		irq.write(guest, "")
		assert.are.equal(0x23456789, guest:run().data)
		assert.are.equal(1, guest:run().data)
	end)

	it("gives each of 16 vCPUs its APIC ID #kvm", function()
		local guest <close> = assert(core.microguest { vcpus = 16 })
		for vcpu = 0, 15 do
			local records = guest:save_vcpu(vcpu)
			-- The local APIC's page: ID at 0x20, in the highest byte.
			local page = records:find("LAPC", 1, true) + 16 + 4
			assert.are.equal(vcpu, records:byte(page + 0x20 + 3))
		end
	end)

	it("shows the CPUID it was told to #kvm", function()
		-- mov eax, 1; xor ecx, ecx; cpuid; mov eax, ecx; out eax
		local code = "\xb8" .. le32(1) .. "\x31\xc9\x0f\xa2\x89\xc8\x66\xba\x10\x00\xef"
		local with <close> = assert(core.microguest { code = code })
		local without <close> = assert(core.microguest { code = code, cpu_disable = "cx16" })
		local cx16, tsc_deadline, hypervisor = 1 << 13, 1 << 24, 1 << 31
		local ecx = with:run().data
		assert.are.equal(cx16 | tsc_deadline | hypervisor, ecx & (cx16 | tsc_deadline | hypervisor))
		assert.are.equal(tsc_deadline | hypervisor, without:run().data & (cx16 | tsc_deadline | hypervisor))
		local none, message, name = core.microguest { code = code, cpu_disable = "no_such_feature" }
		assert.are.same({ nil, "EINVAL" }, { none, name })
		assert.truthy(message:find("no_such_feature", 1, true), message)
	end)
end)
