-- Making machines and vCPUs on the back end, and what it says where it cannot.
local core = require "supermachine.core"
local asm = require "spec.support.microguest"
local irq = require "spec.support.guest_irq"

local function le32(value) return string.pack("<I4", value) end

local function descriptors()
	local lfs = require "lfs"
	local count = 0
	for _ in lfs.dir "/proc/self/fd" do count = count + 1 end
	return count
end

describe("the KVM back end", function()
	it("names what is not a KVM device", function()
		local caps, message, code = core.hv_caps "/dev/null"
		assert.are.same({ nil, "EOPNOTSUPP" }, { caps, code })
		assert.truthy(message:find("not a KVM device", 1, true), message)
		assert.are.same({ nil, "open /no/such/device: No such file or directory", "ENOENT" },
			{ core.hv_caps "/no/such/device" })
		local guest
		guest, message = core.microguest { path = "/dev/null" }
		assert.is_nil(guest)
		assert.truthy(message:find("not a KVM device", 1, true), message)
	end)

	it("says what it can do #kvm", function()
		local caps = assert(core.hv_caps "/dev/kvm")
		assert.are.equal("kvm", caps.name)
		assert.is_true(caps.irqfd and caps.ioeventfd)
		assert.is_true(caps.max_vcpus >= 16)
		assert.is_true(caps.gpa_bits >= 36 and caps.gpa_bits <= 52)
	end)

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

	it("lets a first vCPU wait #kvm", function()
		local guest <close> = assert(core.microguest { boot = "wait" })
		guest:start()
		assert.is_nil((guest:wait(0, 20)))
		guest:kick()
		assert.are.equal("kick", guest:wait().kind)
		assert.is_true(guest:halted())
	end)

	it("refuses another architecture's start #kvm", function()
		local guest, message, code = core.microguest { boot = "arm64" }
		assert.are.same({ nil, "EINVAL" }, { guest, code })
		assert.truthy(message:find("boot kind", 1, true), message)
	end)

	it("has 16 vCPUs, each with its APIC ID #kvm", function()
		local guest <close> = assert(core.microguest { vcpus = 16, code = asm.out8(0x10, 1) })
		assert.are.equal(1, guest:run().data)
		for vcpu = 0, 15 do
			local records = guest:save_vcpu(vcpu)
			-- The local APIC's page: ID at 0x20, in the highest byte.
			local page = records:find("LAPC", 1, true) + 16 + 4
			assert.are.equal(vcpu, records:byte(page + 0x20 + 3))
			assert.are.equal(vcpu ~= 0, guest:halted(vcpu))
		end
		local none, _, code = core.microguest { vcpus = 17 }
		assert.are.same({ nil, "EINVAL" }, { none, code })
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

	it("leaves no descriptor behind #kvm", function()
		assert(core.microguest {}):close()
		local before = descriptors()
		for _ = 1, 5 do
			local guest <close> = assert(core.microguest { vcpus = 4, code = asm.spin() })
			guest:irqfd(5)
			guest:ioeventfd(0xd0000000)
			guest:start(0) -- closed while it runs
		end
		assert.is_nil((core.microguest { path = "/dev/null" }))
		assert.is_nil((core.microguest { boot = "arm64" }))
		assert.are.equal(before, descriptors())
	end)
end)
