-- Making machines and vCPUs on the back end, and what it says where it cannot.
local asm = require "spec.support.microguest"
local core = require "supermachine.core"
local refusing = require "spec.support.refusing"
local scratch = require "spec.support.scratch"

local foreign = asm.arch == "x86_64" and "arm64" or "pvh" -- another architecture's way to start

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
		assert.is_true(caps.ioeventfd)
		assert.is_true(caps.max_vcpus >= 16)
		assert.is_true(caps.gpa_bits >= 36 and caps.gpa_bits <= 52)
	end)

	it("names the capability that is missing #kvm", function()
		local ioeventfd = 36
		assert.are.equal("nil\tthis host's KVM lacks KVM_CAP_IOEVENTFD\tEOPNOTSUPP",
			refusing.run("capability=" .. ioeventfd .. ":0", "core.hv_caps '/dev/kvm'"))
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
		local guest, message, code = core.microguest { boot = foreign }
		assert.are.same({ nil, "EINVAL" }, { guest, code })
		assert.truthy(message:find("boot kind", 1, true), message)
	end)

	it("has 16 vCPUs, of which the first runs #kvm", function()
		local guest <close> = assert(core.microguest { vcpus = 16, code = asm.tell(1) })
		assert.are.equal(1, guest:run().data)
		for vcpu = 0, 15 do assert.are.equal(vcpu ~= 0, guest:halted(vcpu)) end
		local none, _, code = core.microguest { vcpus = 17 }
		assert.are.same({ nil, "EINVAL" }, { none, code })
	end)

	it("leaves no descriptor behind #kvm", function()
		assert(core.microguest {}):close()
		local before = scratch.descriptors()
		for _ = 1, 5 do
			local guest <close> = assert(core.microguest { vcpus = 4, code = asm.spin() })
			assert(guest:ioeventfd(asm.mmio_base))
			guest:start(0) -- closed while it runs
		end
		assert.is_nil((core.microguest { path = "/dev/null" }))
		assert.is_nil((core.microguest { boot = foreign }))
		assert.are.equal(before, scratch.descriptors())
	end)
end)
