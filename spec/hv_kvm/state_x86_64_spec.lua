-- An x86_64 vCPU's and machine's state as records, what is its own in them: what travels, and what is refused.
local asm = require "spec.support.microguest_x86_64"
local bare = require "spec.support.bare_guest"
local core = require "supermachine.core"
local records = require "spec.support.records"

local header, parse, changed, replace = records.header, records.parse, records.changed, records.replace

local function le32(value) return string.pack("<I4", value) end

-- Sets registers and XMM0, stops at a port; then stores them and stops again.
local source, target = 0x150000, 0x150010
local code = "\xb8" .. le32(0x600) .. "\x0f\x22\xe0" -- mov eax, OSFXSR | OSXMMEXCPT; mov cr4, eax
	.. "\x0f\x10\x05" .. le32(source) -- movups xmm0, [source]
	.. "\xbb" .. le32(0x11223344) .. "\xbe" .. le32(0x55667788) -- mov ebx; mov esi
	.. asm.out8(0x10, 1)
	.. "\x0f\x11\x05" .. le32(target) -- movups [target], xmm0
	.. "\x89\x1d" .. le32(target + 16) .. "\x89\x35" .. le32(target + 20) -- mov [..], ebx; mov [..], esi
	.. asm.out8(0x10, 2)
local pattern = "sixteen bytes..."

local function stopped() return bare.stopped(code, source, pattern) end

describe("saved state of x86_64 #kvm", function()
	it("carries general and vector registers to a second machine", function()
		local first <close> = stopped()
		local second <close> = bare.empty()
		bare.move(first, second, 2)
		second:resumed(0)
		assert.are.equal(2, second:run().data)
		assert.are.equal(pattern, second:read(target, 16))
		assert.are.equal(0x11223344, (string.unpack("<I4", second:read(target + 16, 4))))
		assert.are.equal(0x55667788, (string.unpack("<I4", second:read(target + 20, 4))))
	end)

	it("is the same after a load", function()
		local first <close> = stopped()
		local second <close> = bare.empty()
		for vcpu = 0, 1 do
			local saved = first:save_vcpu(vcpu)
			assert(second:load_vcpu(vcpu, saved))
			local before, after = parse(saved), parse(second:save_vcpu(vcpu))
			assert.are.equal(#before, #after)
			for i, record in ipairs(before) do
				assert.are.equal(record.tag, after[i].tag)
				assert.are.equal(record.payload, after[i].payload, record.tag)
			end
		end
		local vm = first:save_vm()
		assert(second:load_vm(vm))
		assert.are.equal(vm, second:save_vm())
	end)

	-- KVM's clock in nanoseconds, the first vCPU's TSC, each one's distance from it.
	local function clock_of(guest) return string.unpack("<I8I8i8i8", guest:save_clock(), header + 1) end
	local function set_clock(guest, ...)
		assert(guest:load_clock(core.record_write("KCLK", 2, string.pack("<I8I8i8i8", ...))))
	end
	local hour = 3600 * 1000000000

	it("has a clock that goes on from where it stopped", function()
		local first <close> = stopped()
		set_clock(first, hour, 0, 0, 0)
		local now = clock_of(first)
		assert.is_true(now >= hour and now < 2 * hour)
		assert.is_true(clock_of(first) >= now)
	end)

	it("has one TSC for all vCPUs, unless the guest moved one", function()
		local operation <close> = assert(core.kvm_probe_begin "/dev/kvm")
		if not operation:finish().user_mode then
			return pending "this KVM emulates guest kernel mode, and has every guest read the host's TSC"
		end
		local guest <close> = assert(core.microguest {
			vcpus = 2,
			code = asm.loop(asm.counter() .. asm.store_word(target) .. "\x89\x15" .. le32(target + 4) .. asm.out8(0x10, 1)),
		})
		-- A TSC in the future, and one in the past, as it is after a restore on a host that was just started.
		for _, tsc in ipairs { 1 << 60, 1 << 40 } do
			for _, moved in ipairs { 0, -(1 << 36), 1 << 36 } do
				set_clock(guest, hour, tsc, 0, moved)
				local _, now, own, other = clock_of(guest)
				assert.is_true(now >= tsc and now < tsc + (1 << 40), ("0x%x, set to 0x%x"):format(now, tsc))
				assert.are.same({ 0, moved }, { own, other })
				assert(guest:run())
				local seen = string.unpack("<I8", guest:read(target, 8))
				assert.is_true(seen >= now and seen < tsc + (1 << 40), ("0x%x read, set to 0x%x"):format(seen, tsc))
			end
		end
	end)
end)

describe("damaged state of x86_64 #kvm", function()
	local guest, other, saved
	setup(function()
		guest, other = stopped(), bare.empty()
		saved = guest:save_vcpu(0)
	end)
	teardown(function()
		guest:close()
		other:close()
	end)

	local function refused(bytes, words, why) bare.refused(words, why or "EBADMSG", other:load_vcpu(0, bytes)) end

	local what = {
		CPID = "CPUID", TSCR = "TSC", SREG = "control registers", XCRS = "extended control registers",
		XSAV = "XSAVE area", REGS = "registers", LAPC = "local APIC", MSRS = "MSRs", EVNT = "pending events",
		DBGR = "debug registers", MPST = "run state",
	}

	it("is refused by name", function()
		local seen = 0
		for _, record in ipairs(parse(saved)) do
			local name = assert(what[record.tag], record.tag)
			refused(records.flipped(saved, record.at + 12, 1), name .. ": record '" .. record.tag .. "'")
			for _, bytes in ipairs(records.resized(saved, record.tag)) do refused(bytes, name) end
			seen = seen + 1
		end
		assert.are.equal(11, seen)
	end)

	it("with counts out of range is refused", function()
		refused(changed(saved, "CPID", function(payload) return replace(payload, 9, le32(100000)) end),
			"CPUID: 100000 entries")
		refused(changed(saved, "MSRS", function() return le32(0xffffffff) end), "MSRs: 4294967295")
		refused(changed(saved, "XCRS", function(payload) return replace(payload, 1, le32(17)) end),
			"extended control registers")
		local huge = le32(1 << 17) .. ("\0"):rep(1 << 17)
		refused(changed(saved, "XSAV", function() return huge end), "XSAVE area: 131072 bytes saved", "EOPNOTSUPP")
	end)

	it("with values the processor cannot hold is refused", function()
		local bad_xstate = string.rep("\255", 8)
		refused(changed(saved, "XSAV", function(payload) return replace(payload, 4 + 512 + 1, bad_xstate) end),
			"set the XSAVE area", "EINVAL")
		refused(changed(saved, "MPST", function() return le32(1000) end), "set the run state", "EINVAL")
		refused(changed(saved, "XCRS", function(payload) return replace(payload, 9, bad_xstate) end),
			"set the extended control registers", "EINVAL")
	end)

	it("with a register this host does not have is refused by its number", function()
		local function add(value)
			return function(payload)
				local count = string.unpack("<I4", payload)
				return replace(payload, 1, le32(count + 1)) .. string.pack("<I4I8", 0x1234567, value)
			end
		end
		refused(changed(saved, "MSRS", add(1)), "this host refuses MSR 0x1234567 = 0x1", "EOPNOTSUPP")
		assert(other:load_vcpu(0, changed(saved, "MSRS", add(0))))
	end)

	it("of a processor with features this host lacks is refused by name", function()
		local function all_features(payload)
			local count = string.unpack("<I4", payload, 9)
			for i = 0, count - 1 do
				local at = 13 + 28 * i
				local leaf, subleaf = string.unpack("<I4I4", payload, at)
				if leaf == 7 and subleaf == 0 then payload = replace(payload, at + 16, "\255\255\255\255") end
			end
			return replace(payload, 1, string.pack("<I8", 0)) -- made on another host
		end
		local fresh <close> = bare.empty()
		local ok, message, name = fresh:load_vcpu(0, changed(saved, "CPID", all_features))
		assert.are.same({ nil, "EOPNOTSUPP" }, { ok, name })
		assert.truthy(message:lower():find "cpu" or message:find "leaf", message)
		-- The same on another host that has them all is fine.
		assert(fresh:load_vcpu(0, changed(saved, "CPID", function(payload)
			return replace(payload, 1, string.pack("<I8", 0))
		end)))
	end)

	it("with a far other TSC rate is refused, or scaled", function()
		local foreign = changed(saved, "TSCR", function(payload) return replace(payload, 1, le32(500000)) end)
		local ok, message, name = other:load_vcpu(0, foreign)
		if not ok then
			assert.are.equal("EOPNOTSUPP", name)
			assert.truthy(message:find("TSC rate: saved at 500000 kHz", 1, true), message)
		end
	end)
end)
