-- How an aarch64 vCPU starts, what it is told about itself, and what is refused before there is one.
local asm = require "spec.support.microguest"
local core = require "supermachine.core"
local refusing = require "spec.support.refusing"
local irq = require "spec.support.guest_irq_aarch64"

local vcpus = 16

-- A register of vCPU 0 as the guest reads it.
local function read(register, options)
	options = options or {}
	options.code = asm.mrs(9, table.unpack(register)) .. irq.storex(asm.nothing, 9)
	local guest <close> = assert(core.microguest(options))
	return guest:run().data
end

describe("the KVM back end of aarch64", function()
	it("starts a vCPU at EL1, all masked, with X0 #kvm", function()
		local guest <close> = assert(core.microguest {
			arg = 0x123456789abcdef0, code = irq.storex(asm.nothing, 0)
				.. asm.mrs(9, 0, 4, 2, 2) .. irq.storex(asm.nothing, 9) -- CurrentEL
				.. asm.mrs(9, 3, 4, 2, 1) .. irq.storex(asm.nothing, 9) -- DAIF
				.. asm.mrs(9, 0, 1, 0, 0) .. irq.storex(asm.nothing, 9), -- SCTLR_EL1
		})
		assert.are.equal(0x123456789abcdef0, guest:run().data)
		assert.are.equal(1 << 2, guest:run().data)
		assert.are.equal(0xf << 6, guest:run().data)
		assert.are.equal(0, guest:run().data & (1 << 12 | 1 << 2 | 1)) -- MMU and caches are off
	end)

	it("gives each of 16 vCPUs its own number and redistributor, in order #kvm", function()
		-- Affinity and last bit of GICR_TYPER, one after the other.
		local code = {}
		for vcpu = 0, vcpus - 1 do
			code[#code + 1] = asm.mov(10, irq.redistributors + irq.redistributor_bytes * vcpu + 8) .. irq.ldrx(9, 10)
				.. irq.storex(asm.nothing, 9)
		end
		for _ = 1, 5 do
			local guest <close> = assert(core.microguest { vcpus = vcpus, code = table.concat(code) })
			for vcpu = 0, vcpus - 1 do
				local typer = guest:run().data
				assert.are.equal(vcpu, typer >> 32)
				assert.are.equal(vcpu == vcpus - 1, typer & 1 << 4 ~= 0)
			end
		end
	end)

	it("has the interrupts that a plan can ask for #kvm", function()
		local guest <close> = assert(core.microguest { code = asm.load(irq.distributor + 4) .. asm.store_word(asm.nothing) })
		assert.are.equal(192 // 32 - 1, guest:run().data & 0x1f) -- GICD_TYPER.ITLinesNumber
	end)

	it("hides the CPU features it is told to #kvm", function()
		local pfr0, isar1, dfr0 = { 0, 0, 4, 0 }, { 0, 0, 6, 1 }, { 0, 0, 5, 0 }
		local has = core.kvm_probe("/dev/kvm").capabilities
		local function sve(options) return read(pfr0, options) >> 32 & 0xf end
		local function pauth(options) return read(isar1, options) >> 4 & 0xff end -- APA, API
		assert.are.equal(has.KVM_CAP_ARM_SVE > 0, sve() ~= 0)
		assert.are.equal(has.KVM_CAP_ARM_PTRAUTH_ADDRESS > 0, pauth() ~= 0)
		assert.are.equal(0, sve { cpu_disable = "sve" })
		assert.are.equal(0, pauth { cpu_disable = "sve, pauth" })
		assert.are.equal(0, read(dfr0) >> 8 & 0xf) -- PMUVer: for none
		local none, message, name = core.microguest { cpu_disable = "sve,no_such_feature" }
		assert.are.same({ nil, "EINVAL" }, { none, name })
		assert.are.equal("cpu_disable: 'no_such_feature' is not a CPU feature that can be hidden (sve, pauth)", message)
	end)

	it("says when the host's guests have too few address bits #kvm", function()
		local bits = core.hv_caps("/dev/kvm").gpa_bits
		local most = 1024 * 1024
		local guest, message, name = core.microguest { memory_mib = most }
		local last = asm.ram_base + (most << 20)
		if last <= 1 << bits then
			assert(guest, message)
			guest:close()
		else
			assert.are.same({ nil, "EOPNOTSUPP" }, { guest, name })
			assert.are.equal(("memory_mib: RAM and DAX end at 0x%x, which takes 41 bits of guest address, and KVM here has %d")
				:format(last, bits), message)
		end
	end)

	it("names what a host's KVM does not give #kvm", function()
		local gicv2, gicv3, ipa_size = 5, 7, 165
		local function microguest(refused, options)
			return refusing.run(refused, ("core.microguest { %s }"):format(options or ""))
		end
		local function refused(words) return "nil\t" .. words .. "\tEOPNOTSUPP" end
		assert.are.equal(refused "this host's interrupt controller is a GICv2, and guests here need a GICv3",
			microguest(("device=%d has=%d"):format(gicv3, gicv2)))
		assert.are.equal(refused "this host's KVM has no GICv3 for guests",
			microguest(("device=%d device=%d"):format(gicv3, gicv2)))
		for group, part in pairs { [1] = "distributor", [5] = "redistributors", [6] = "CPU interfaces", [7] = "lines" } do
			assert.are.equal(refused("this host's KVM can neither save nor restore a GICv3's " .. part),
				microguest("attribute=" .. group))
		end
		assert.are.equal(refused("memory_mib: RAM and DAX end at 0x140000000, which takes 33 bits of guest address, "
			.. "and KVM here has 32"), microguest(("capability=%d:32"):format(ipa_size), "memory_mib = 4096"))
	end)

	it("lets the physical counter show what the virtual one does, where KVM can set it #kvm", function()
		local guest <close> = assert(core.microguest {
			code = irq.isb() .. asm.mrs(1, 3, 14, 0, 2) .. irq.isb() .. asm.mrs(2, 3, 14, 0, 1) .. irq.counter(3)
				.. irq.storex(asm.nothing, 1) .. irq.storex(asm.nothing, 2) .. irq.storex(asm.nothing, 3),
		})
		local before, physical, after = guest:run().data, guest:run().data, guest:run().data
		assert.is_true(before <= physical)
		local can_set = core.kvm_probe("/dev/kvm").capabilities.KVM_CAP_COUNTER_OFFSET > 0
		assert.are.equal(can_set, physical <= after)
	end)
end)
