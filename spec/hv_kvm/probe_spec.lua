-- The probe behind `supermachine doctor`.
local core = require "supermachine.core"

local function reasons(probe) return table.concat(probe.reasons, "\n") end

describe("the probe", function()
	it("says what to do without a device", function()
		local probe = core.kvm_probe "/no/such/device"
		assert.are.same({ false, false, 0 }, { probe.usable, probe.fit, probe.instructions_per_second })
		assert.truthy(reasons(probe):find("there is no /no/such/device: ", 1, true), reasons(probe))
		assert.truthy(reasons(probe):find "modprobe kvm_" or reasons(probe):find "firmware", reasons(probe))
	end)

	it("names what is not KVM", function()
		local probe = core.kvm_probe "/dev/null"
		assert.is_false(probe.usable)
		assert.truthy(reasons(probe):find("/dev/null is not a KVM device", 1, true), reasons(probe))
	end)

	it("measures #kvm", function()
		local probe = core.kvm_probe "/dev/kvm"
		assert.is_true(probe.usable, reasons(probe))
		assert.is_true(probe.instructions_per_second > 0 and probe.exit_us > 0)
		assert.is_true(probe.max_vcpus >= 1 and probe.gpa_bits >= 32)
		assert.are.equal(1, probe.capabilities.KVM_CAP_USER_MEMORY)
		assert.is_true(probe.fit == (#probe.reasons == 0))
		assert.is_true(probe.user_mode or not probe.fit)
	end)

	it("runs as an operation #kvm", function()
		local operation <close> = core.kvm_probe_begin "/dev/kvm"
		assert.is_true(operation:fd() >= 0)
		assert.is_true(operation:finish().usable)
	end)

	it("finds this host fit #lab", function()
		local probe = core.kvm_probe "/dev/kvm"
		assert.is_true(probe.fit, reasons(probe))
		assert.is_true(probe.user_mode)
	end)
end)
