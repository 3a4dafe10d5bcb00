-- What a guest's CPUID says, from hosts of our own making.
local core = require "supermachine.core"

local INDEXED = 1

local function bits(...)
	local value = 0
	for _, bit in ipairs { ... } do value = value | 1 << bit end
	return value
end

-- {leaf, subleaf, flags, eax, ebx, ecx, edx}
local function intel()
	return {
		{ 0, 0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69 }, -- GenuineIntel
		-- vmx, fma, cx16, pdcm, xsave, osxsave, avx, f16c; a package of 64, on APIC 5
		{ 1, 0, 0, 0x806f8, 0x05400800, bits(0, 5, 12, 13, 15, 26, 27, 28, 29), bits(0, 4, 19, 28) },
		{ 4, 0, INDEXED, 0xfc004121, 0x02c0003f, 63, 0 }, -- L1d, 2 threads
		{ 4, 1, INDEXED, 0xfc004122, 0x01c0003f, 63, 0 }, -- L1i
		{ 4, 2, INDEXED, 0xfc004143, 0x03c0003f, 2047, 0 }, -- L2
		{ 4, 3, INDEXED, 0xfc1fc163, 0x0380003f, 73727, 4 }, -- L3, 128 threads
		{ 4, 4, INDEXED, 0, 0, 0, 0 },
		{ 6, 0, 0, 4, 0, 0, 0 },
		-- sgx, avx2, mpx, avx512f, avx512dq, smap, intel_pt, avx512vl; pku, ospke, vaes; avx512_fp16, amx_tile, amx_int8
		{ 7, 0, INDEXED, 1, bits(2, 5, 14, 16, 17, 20, 25, 31), bits(3, 4, 9), bits(23, 24, 25) },
		{ 7, 1, INDEXED, bits(4, 5), 0, 0, 0 }, -- avx_vnni, avx512_bf16
		{ 0xa, 0, 0, 0x08300802, 0, 0, 0x603 },
		{ 0xb, 0, INDEXED, 1, 2, 0x100, 5 },
		{ 0xb, 1, INDEXED, 7, 128, 0x201, 5 },
		{ 0xd, 0, INDEXED, bits(0, 1, 2, 5, 6, 7, 9, 17, 18), 0x2b00, 0x2b00, 0 },
		{ 0xd, 1, INDEXED, 0xf, 0, 0, 0 },
		{ 0xd, 2, INDEXED, 0x100, 0x240, 0, 0 },
		{ 0xd, 5, INDEXED, 0x40, 0x440, 0, 0 },
		{ 0xd, 6, INDEXED, 0x200, 0x480, 0, 0 },
		{ 0xd, 7, INDEXED, 0x400, 0x680, 0, 0 },
		{ 0xd, 9, INDEXED, 8, 0xa80, 0, 0 },
		{ 0xd, 17, INDEXED, 0x40, 0xac0, 2, 0 },
		{ 0xd, 18, INDEXED, 0x2000, 0xb00, 2, 0 },
		{ 0x12, 0, INDEXED, 3, 0, 0, 0 },
		{ 0x14, 0, INDEXED, 1, 0, 0, 0 },
		{ 0x1f, 0, INDEXED, 1, 2, 0x100, 5 },
		{ 0x40000000, 0, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d }, -- KVMKVMKVM
		{ 0x40000001, 0, 0, 0x01007efb, 0, 0, 0 },
		{ 0x80000000, 0, 0, 0x80000008, 0, 0, 0 },
		{ 0x80000001, 0, 0, 0, 0, bits(0, 5), bits(20, 26, 27, 29) },
		{ 0x80000007, 0, 0, 0, 0, 0, bits(8) },
		{ 0x80000008, 0, 0, 0x302e, 0, 0, 0 },
	}
end

local function amd()
	return {
		{ 0, 0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65 }, -- AuthenticAMD
		{ 1, 0, 0, 0xa00f11, 0x07200800, bits(12, 13, 26, 28), bits(0, 4, 28) },
		{ 0xd, 0, INDEXED, 7, 0x340, 0x340, 0 },
		{ 0xd, 1, INDEXED, 0xf, 0, 0, 0 },
		{ 0xd, 2, INDEXED, 0x100, 0x240, 0, 0 },
		{ 0xd, 11, INDEXED, 0x10, 0, 1, 0 }, -- a supervisor component
		{ 0x80000001, 0, 0, 0, 0, bits(0, 1, 2, 22, 23, 24), bits(20) },
		{ 0x80000008, 0, 0, 0x3030, 0, 0x0000703f, 0 },
		{ 0x8000000a, 0, 0, 1, 8, 0, 0 },
		{ 0x8000001d, 0, INDEXED, 0x00004121, 0, 63, 0 },
		{ 0x8000001d, 3, INDEXED, 0x0003c163, 0, 0, 0 },
		{ 0x8000001e, 0, INDEXED, 7, 0x0103, 0x200, 0 },
		{ 0x8000001f, 0, 0, 0x3f, 0, 0, 0 },
	}
end

local names = { [4] = "eax", [5] = "ebx", [6] = "ecx", [7] = "edx" }

local function find(entries, leaf, subleaf)
	for _, entry in ipairs(entries) do
		if entry[1] == leaf and entry[2] == (subleaf or 0) then
			local found = { flags = entry[3] }
			for index, name in pairs(names) do found[name] = entry[index] end
			return found
		end
	end
end

local function shape(host, options) return assert(core.x86_cpuid_shape(host, options)) end

describe("CPUID", function()
	it("tells each vCPU of its place among the others", function()
		for vcpus, core_bits in pairs { [1] = 0, [2] = 1, [3] = 2, [4] = 2, [16] = 4 } do
			for vcpu = 0, vcpus - 1, 3 do
				local entries = shape(intel(), { vcpus = vcpus, vcpu = vcpu })
				local one = find(entries, 1)
				assert.are.equal(vcpu << 24 | 1 << core_bits << 16 | 0x0800, one.ebx)
				assert.are.equal(vcpus > 1, one.edx & bits(28) ~= 0)
				assert.are.same({ eax = 0, ebx = 1, ecx = 0x100, edx = vcpu, flags = INDEXED }, find(entries, 0xb, 0))
				assert.are.same({ eax = core_bits, ebx = vcpus, ecx = 0x201, edx = vcpu, flags = INDEXED },
					find(entries, 0xb, 1))
				assert.are.same({ eax = 0, ebx = 0, ecx = 2, edx = vcpu, flags = INDEXED }, find(entries, 0xb, 2))
				local span = (1 << core_bits) - 1
				for level, shared in pairs { [0] = 0, [1] = 0, [2] = 0, [3] = span } do
					local cache = find(entries, 4, level).eax
					assert.are.same({ span, shared }, { cache >> 26, cache >> 14 & 0xfff })
				end
				assert.are.equal(0, find(entries, 4, 4).eax)
			end
		end
	end)

	it("tells it the AMD way", function()
		local entries = shape(amd(), { vcpus = 3, vcpu = 2 })
		assert.are.equal(2 << 12 | 2, find(entries, 0x80000008).ecx)
		assert.are.equal(0x3030, find(entries, 0x80000008).eax)
		assert.are.same({ eax = 2, ebx = 2, ecx = 0, edx = 0, flags = INDEXED }, find(entries, 0x8000001e))
		assert.are.equal(0, find(entries, 0x8000001d, 0).eax >> 14)
		assert.are.equal(3, find(entries, 0x8000001d, 3).eax >> 14)
		assert.are.equal(bits(0, 1, 22), find(entries, 0x80000001).ecx) -- no svm, no counters
		assert.are.equal(bits(0, 22), find(shape(amd()), 0x80000001).ecx) -- nor CMP_LEGACY when alone
	end)

	it("has what the in-kernel LAPIC adds", function()
		local ecx = find(shape(intel()), 1).ecx
		assert.are.equal(bits(21, 24, 31), ecx & bits(21, 24, 27, 31)) -- x2apic, tsc-deadline, no osxsave, hypervisor
		assert.are.equal(0, find(shape(intel(), { tsc_deadline = false }), 1).ecx & bits(24))
		assert.are.equal(0, find(shape(intel(), { cpu_disable = "x2apic,tsc_deadline_timer" }), 1).ecx & bits(21, 24))
	end)

	it("keeps KVM's leaves", function()
		local entries, host = shape(intel()), intel()
		assert.are.same(find(host, 0x40000000), find(entries, 0x40000000))
		assert.are.same(find(host, 0x40000001), find(entries, 0x40000001))
	end)

	it("hides what a snapshot cannot carry", function()
		local entries = shape(intel())
		for _, leaf in ipairs { 0xa, 0x12, 0x14, 0x1f } do assert.is_nil(find(entries, leaf)) end
		assert.are.equal(0, find(entries, 1).ecx & bits(5, 15)) -- vmx, pdcm
		assert.are.equal(0, find(entries, 7).ebx & bits(2, 25)) -- sgx, intel_pt
		assert.are.equal(0, find(entries, 7).ecx & bits(4)) -- ospke
		assert.are.equal(0, find(entries, 0x80000007).edx) -- invariant tsc
		entries = shape(amd())
		for _, leaf in ipairs { 0x8000000a, 0x8000001f } do assert.is_nil(find(entries, leaf)) end
	end)

	it("hides what it is told to", function()
		local before = find(shape(intel()), 1).ecx
		assert.are.equal(before & ~bits(13), find(shape(intel(), { cpu_disable = "cx16" }), 1).ecx)
		assert.are.equal(0, find(shape(intel(), { cpu_disable = "smap" }), 7).ebx & bits(20))
		assert.are.equal(bits(20, 29), find(shape(intel(), { cpu_disable = "pdpe1gb,rdtscp" }), 0x80000001).edx)
		assert.are.same(shape(intel()), shape(intel(), { cpu_disable = "" }))
		assert.are.same(shape(intel(), { cpu_disable = "cx16,avx512" }),
			shape(intel(), { cpu_disable = ", avx512f , cx16,," }))
	end)

	it("hides what depends on it too", function()
		local entries = shape(intel(), { cpu_disable = "avx2" })
		assert.are.equal(bits(12, 28, 29), find(entries, 1).ecx & bits(12, 28, 29)) -- fma, avx and f16c stay
		assert.are.equal(0, find(entries, 7).ebx & bits(5, 16, 17, 31))
		assert.are.equal(0, find(entries, 7).edx & bits(23))
		assert.are.equal(bits(4), find(entries, 7, 1).eax) -- avx512_bf16 goes, avx_vnni stays
		entries = shape(intel(), { cpu_disable = "avx" })
		assert.are.equal(0, find(entries, 1).ecx & bits(12, 28, 29))
		assert.are.equal(0, find(entries, 7).ecx & bits(9))
		assert.are.equal(0, find(entries, 7, 1).eax)
		entries = shape(intel(), { cpu_disable = "xsave" })
		for _, entry in ipairs(entries) do assert.are_not.equal(0xd, entry[1]) end
		assert.are.equal(0, find(entries, 1).ecx & bits(26, 28))
		assert.are.equal(0, find(entries, 7).ecx & bits(3))
		assert.are.equal(0, find(entries, 7).edx & bits(24, 25))
	end)

	it("has state components for the features that are left", function()
		local function components(disable)
			local entries, list = shape(intel(), { cpu_disable = disable }), {}
			for _, entry in ipairs(entries) do
				if entry[1] == 0xd and entry[2] >= 2 then list[#list + 1] = entry[2] end
			end
			local first = find(entries, 0xd)
			assert.are.equal(first.ecx, first.ebx)
			return { first.eax, first.ecx, table.concat(list, " ") }
		end
		assert.are.same({ bits(0, 1, 2, 5, 6, 7, 9, 17, 18), 0x2b00, "2 5 6 7 9 17 18" }, components "")
		assert.are.same({ bits(0, 1, 2, 5, 6, 7, 9), 0xa88, "2 5 6 7 9" }, components "amx")
		assert.are.same({ bits(0, 1, 2, 9), 0xa88, "2 9" }, components "avx512,amx")
		assert.are.same({ bits(0, 1, 2), 0x340, "2" }, components "avx512,amx,pku")
		assert.are.same({ bits(0, 1), 576, "" }, components "avx,amx,pku")
		assert.are.equal(0x10, find(shape(amd()), 0xd, 11).eax) -- supervisor state is not of XCR0
	end)

	it("refuses an unknown feature by name", function()
		for list, name in pairs { ["cx16,flux"] = "flux", ["CX16"] = "CX16", ["avx512*"] = "avx512*", ["cx1"] = "cx1" } do
			local entries, message, code = core.x86_cpuid_shape(intel(), { cpu_disable = list })
			assert.are.same({ nil, "EINVAL" }, { entries, code })
			assert.are.equal(("cpu_disable: '%s' is not a CPU feature that can be hidden"):format(name), message)
		end
	end)

	it("has room for as many entries as KVM gives, and no more", function()
		local many = {}
		for index = 1, 256 do many[index] = { 0x40000000 + index, 0, 0, 0, 0, 0, 0 } end
		local entries, message, code = core.x86_cpuid_shape(many)
		assert.are.same({ nil, "CPUID: more than 256 entries", "ENOSPC" }, { entries, message, code })
	end)
end)

describe("a saved CPUID", function()
	local function check(saved, host, deadline) return core.x86_cpuid_covered(saved, host, deadline ~= false) end

	it("is covered by the host it came from", function()
		for _, host in ipairs { intel(), amd() } do
			for vcpu = 0, 3, 3 do assert.is_true(check(shape(host, { vcpus = 4, vcpu = vcpu }), host)) end
		end
	end)

	it("is not by one that lacks a feature, which is named", function()
		local saved = shape(intel(), { vcpus = 4 })
		local function without(leaf, subleaf, register, bit)
			local host = intel()
			for _, entry in ipairs(host) do
				if entry[1] == leaf and entry[2] == subleaf then entry[register] = entry[register] & ~bits(bit) end
			end
			local fine, message, code = check(saved, host)
			assert.are.same({ nil, "EOPNOTSUPP" }, { fine, code })
			return message
		end
		assert.are.equal("this host lacks CPU feature cx16 (CPUID leaf 0x1.0, ECX bit 13), which the guest was given",
			without(1, 0, 6, 13))
		assert.is_truthy(without(7, 0, 5, 16):find "avx512f %(CPUID leaf 0x7%.0, EBX bit 16%)")
		assert.is_truthy(without(7, 1, 4, 5):find "avx512_bf16")
		assert.is_truthy(without(0x80000001, 0, 7, 20):find "feature nx ")
		assert.is_truthy(without(0x40000001, 0, 4, 3):find "leaf 0x40000001%.0, EAX bit 3")
		-- What it was not given, it does not miss.
		saved = shape(intel(), { cpu_disable = "cx16" })
		local host = intel()
		host[2][6] = host[2][6] & ~bits(13, 5, 27)
		assert.is_true(check(saved, host))
	end)

	it("is not where the TSC-deadline timer, the vendor, the address width or the XSAVE layout differ", function()
		local saved = shape(intel())
		assert.is_truthy(select(2, check(saved, intel(), false)):find "tsc_deadline_timer")
		assert.is_true(check(shape(intel(), { tsc_deadline = false }), intel(), false))
		assert.are.equal("the guest was given a GenuineIntel processor, this host has AuthenticAMD",
			select(2, check(saved, amd())))
		local host = intel()
		host[#host][4] = 0x3027
		assert.are.equal("the guest was given 46 physical address bits, this host has 39", select(2, check(saved, host)))
		host = intel()
		for _, entry in ipairs(host) do if entry[1] == 0xd and entry[2] == 9 then entry[5] = 0x980 end end
		assert.is_truthy(select(2, check(saved, host)):find "component 9 lies elsewhere")
		assert.is_truthy(select(2, check({}, intel())):find "no leaf 0")
		assert.is_truthy(select(2, check(saved, {})):find "no leaf 0")
	end)
end)
