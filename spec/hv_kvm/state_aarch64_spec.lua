-- State as aarch64 alone has it: what travels, what is refused, and what time does meanwhile.
local asm = require "spec.support.microguest"
local bare = require "spec.support.bare_guest"
local core = require "supermachine.core"
local irq = require "spec.support.guest_irq_aarch64"
local records = require "spec.support.records"

local function le32(value) return string.pack("<I4", value) end
local function le64(value) return string.pack("<I8", value) end

local header = records.header
local ram = asm.ram_base
local source, target = ram + 0x150000, ram + 0x150010

-- Sets registers and Q0, stops; then stores them and stops again.
local code = asm.mov(11, 3 << 20) .. asm.msr(11, 0, 1, 0, 2) .. irq.isb() -- CPACR_EL1: no trap of vectors
	.. asm.mov(10, source) .. irq.ldrq(0, 10)
	.. asm.mov(21, 0x1122334455667788) .. asm.mov(22, 0x99aabbccddeeff00) .. asm.msr(22, 3, 13, 0, 2) -- TPIDR_EL0
	.. asm.tell(1)
	.. asm.mov(10, target) .. irq.strq(0, 10)
	.. irq.storex(target + 16, 21) .. asm.mrs(23, 3, 13, 0, 2) .. irq.storex(target + 24, 23)
	.. asm.tell(2)
local pattern = "sixteen bytes..."

local new, empty = bare.start, bare.empty
local function stopped() return bare.stopped(code, source, pattern) end

local function sysreg(op0, op1, crn, crm, op2)
	return 0x6030000000130000 | op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
end
local midr, pfr0, vls = sysreg(3, 0, 0, 0, 0), sysreg(3, 0, 0, 4, 0), 0x606000000015ffff
-- As the uapi has them: the names of the second and the third have each other's encodings.
local counters = { sysreg(3, 3, 14, 3, 2), sysreg(3, 3, 14, 0, 1) }

-- {id = value's bytes} and the number of them.
local function registers(payload)
	local count, at, values = string.unpack("<I4", payload), 5, {}
	for _ = 1, count do
		local id = string.unpack("<I8", payload, at)
		local bytes = 1 << (id >> 52 & 15)
		values[id] = payload:sub(at + 8, at + 7 + bytes)
		at = at + 8 + bytes
	end
	assert(at == #payload + 1)
	return values, count
end

local function with_register(id, value)
	return function(payload)
		local at = payload:find(le64(id), 1, true)
		if at then return records.replace(payload, at + 8, value) end
		return records.replace(payload, 1, le32(string.unpack("<I4", payload) + 1)) .. le64(id) .. value
	end
end

local function counter_of(guest) return (string.unpack("<I8", guest:save_clock(), header + 1)) end
local function frequency_of(guest) return (string.unpack("<I4", guest:save_clock(), header + 9)) end

-- Everything of `first` into `second`; the counter as it was saved.
local function move(first, second, vcpus)
	return (string.unpack("<I8", bare.move(first, second, vcpus), header + 1))
end

describe("saved state #kvm", function()
	it("goes on in a second machine", function()
		local first <close> = stopped()
		local second <close> = empty()
		move(first, second, 2)
		second:resumed(0)
		assert.are.equal(2, second:run().data)
		assert.are.equal(pattern, second:read(target, 16))
		assert.are.same({ 0x1122334455667788, 0x99aabbccddeeff00 },
			{ string.unpack("<i8", second:read(target + 16, 8)), (string.unpack("<i8", second:read(target + 24, 8))) })
		second:start(1)
		second:kick(1)
		assert.are.equal("kick", second:wait(1).kind)
		assert.is_true(second:halted(1))
		assert.is_false(second:halted(0))
	end)

	it("is the same after a load", function()
		local first <close> = stopped()
		local second <close> = empty()
		for vcpu = 0, 1 do
			local saved = first:save_vcpu(vcpu)
			assert(second:load_vcpu(vcpu, saved))
			assert.are.equal(saved, second:save_vcpu(vcpu))
		end
		local vm = first:save_vm()
		assert(second:load_vm(vm))
		assert.are.equal(vm, second:save_vm())
		assert(second:load_vm(vm))
		assert.are.equal(vm, second:save_vm())
	end)

	it("holds what a processor is, and no counter", function()
		local guest <close> = stopped()
		local values, count = registers(records.parse(guest:save_vcpu(0))[1].payload)
		assert.is_true(count > 100)
		for _, id in ipairs { midr, pfr0, sysreg(3, 3, 14, 0, 2), sysreg(3, 3, 14, 3, 1) } do assert.truthy(values[id]) end
		for _, id in ipairs(counters) do assert.is_nil(values[id]) end
	end)

	it("of a start by another vCPU that has not happened yet is not lost", function()
		local there = asm.bare + 0x1000
		local first <close> = new { vcpus = 2, code = asm.psci(0xc4000003, 1, there, 0x1234) .. asm.tell(1) }
		assert(first:write(there, asm.mov(10, asm.nothing) .. asm.str(0, 10)))
		assert.are.equal(1, first:run().data)
		assert.is_true(first:settle())
		local second <close> = empty()
		move(first, second, 2)
		assert.are.equal(0x1234, second:run(1).data)
	end)
end)

describe("the guest's clock #kvm", function()
	it("goes on from where it stopped", function()
		local first <close> = stopped()
		local second <close> = empty()
		local hz = frequency_of(first)
		local hour = 3600 * hz
		assert(second:load_clock(core.record_write("CNTR", 1, string.pack("<I8I4", hour, hz))))
		local now = counter_of(second)
		assert.is_true(now >= hour and now < 2 * hour)
		assert.is_true(counter_of(second) >= now)
		-- And back again.
		assert(second:load_clock(core.record_write("CNTR", 1, string.pack("<I8I4", 5, hz))))
		now = counter_of(second)
		assert.is_true(now >= 5 and now < hour)
	end)

	it("of another frequency is refused", function()
		local guest <close> = stopped()
		local hz = frequency_of(guest)
		local ok, message, name = guest:load_clock(core.record_write("CNTR", 1, string.pack("<I8I4", 5, hz + 1)))
		assert.are.same({ nil, "EOPNOTSUPP" }, { ok, name })
		assert.are.equal(("guest clock: saved at %d Hz, this host's counter has %d Hz"):format(hz + 1, hz), message)
	end)

	-- How much of the host's time, in the counter's ticks, went by since `since` (milliseconds).
	local function ticks_since(since, hz) return math.ceil((core.now_ms() - since) * hz / 1000) end

	local vcpus = 4
	local wrong, turns = ram + 0x200000, ram + 0x201000 -- 8 bytes a vCPU, 64 apart
	local last = ram + 0x202000

	-- Every vCPU reads the counter for ever; where it is below what any of them had read before, it goes to `wrong`.
	local function watch(vcpu)
		return asm.mov(13, wrong + 64 * vcpu) .. asm.mov(14, last) .. asm.mov(15, turns + 64 * vcpu)
			.. asm.loop(irq.ldrx(2, 14) .. irq.counter(1)
				.. irq.compare(1, 2) .. irq.skip_unless_lower() .. irq.strx(1, 13)
				.. irq.strx(1, 14)
				.. irq.ldrx(5, 15) .. irq.add_number(5, 5, 1) .. irq.strx(5, 15))
	end
	local function latest_of(guest) return (string.unpack("<i8", guest:read(last, 8))) end

	-- Values below 2^63, from vCPU 0 on.
	local function words(guest, at)
		local list = {}
		for vcpu = 0, vcpus - 1 do list[#list + 1] = (string.unpack("<i8", guest:read(at + 64 * vcpu, 8))) end
		return list
	end

	-- Let all run until each went round some times more, then stop them.
	local function run_all(guest)
		local before = words(guest, turns)
		for vcpu = 0, vcpus - 1 do guest:start(vcpu) end
		local function is_behind()
			for i, now in ipairs(words(guest, turns)) do
				if now < before[i] + 1000 then return true end
			end
		end
		while is_behind() do core.poll({}, 5) end
		for vcpu = 0, vcpus - 1 do guest:kick(vcpu) end
		for vcpu = 0, vcpus - 1 do assert.are.equal("kick", guest:wait(vcpu).kind) end
	end

	it("never goes back on any of four vCPUs, and stands still in between", function()
		local start = {}
		for vcpu = 1, vcpus - 1 do start[vcpu] = asm.psci(0xc4000003, vcpu, asm.bare + 0x1000 * vcpu, 0) end
		local guest = new { vcpus = vcpus, code = table.concat(start) .. watch(0) }
		for vcpu = 1, vcpus - 1 do assert(guest:write(asm.bare + 0x1000 * vcpu, watch(vcpu))) end
		run_all(guest)
		local hz = frequency_of(guest)
		for _ = 1, 3 do
			local latest = latest_of(guest)
			local second = empty(vcpus)
			local saved = move(guest, second, vcpus)
			assert.is_true(saved >= latest)
			core.poll({}, 100)
			-- Loaded once more: what went by meanwhile is the host's.
			local since = core.now_ms()
			assert(second:load_clock(core.record_write("CNTR", 1, string.pack("<I8I4", saved, hz))))
			assert.is_true(counter_of(second) - saved <= ticks_since(since, hz))
			guest:close()
			guest = second
			run_all(guest)
			assert.are.same({ 0, 0, 0, 0 }, words(guest, wrong))
			assert.is_true(latest_of(guest) > saved)
			assert.is_true(latest_of(guest) - saved <= ticks_since(since, hz))
		end
		guest:close()
	end)
end)

describe("a timer #kvm", function()
	local deadline_at = ram + 0x200000
	local delay_ms = 500

	-- A guest that has armed its timer and stopped; its handler says when it ran and does `after`, the deadline in x3.
	local function armed(delay, after)
		local hz
		do
			local any <close> = new {}
			hz = frequency_of(any)
		end
		local guest = new { code = irq.enable({ irq.timer }, {})
			.. irq.counter(1) .. asm.mov(2, delay * hz // 1000) .. irq.add(3, 1, 2)
			.. irq.deadline(3) .. irq.storex(deadline_at, 3) .. irq.timer_control(1)
			.. asm.tell(1) .. irq.unmask() .. asm.sleep() }
		irq.write(guest, irq.counter(1) .. irq.read_deadline(3) .. after .. irq.storex(asm.nothing, 1))
		assert.are.equal(1, guest:run().data)
		assert.is_true(guest:settle())
		return guest, (string.unpack("<I8", guest:read(deadline_at, 8))), hz
	end

	it("that runs when it is saved fires after the restore, once and not early", function()
		local first <close>, deadline, hz = armed(delay_ms, irq.timer_control(0))
		local second <close> = empty(1)
		local saved = move(first, second, 1)
		core.poll({}, delay_ms) -- the host's time: the guest's stands still
		local since = core.now_ms()
		assert(second:load_clock(core.record_write("CNTR", 1, string.pack("<I8I4", saved, hz))))
		local exit = second:run()
		assert.is_true(exit.data >= deadline)
		assert.is_true(exit.data - saved <= math.ceil((core.now_ms() - since) * hz / 1000))
		second:start()
		assert.is_nil((second:wait(0, 100)))
	end)

	it("that has expired fires at once, and once", function()
		local first <close> = armed(0, irq.timer_control(0))
		local second <close> = empty(1)
		move(first, second, 1)
		assert.are.equal(8, second:run().size)
		second:start()
		assert.is_nil((second:wait(0, 100)))
	end)

	it("whose interrupt is being served when the state is loaded over it fires again", function()
		local guest <close> = armed(0, irq.timer_control(0))
		local vcpu, vm, clock = guest:save_vcpu(0), guest:save_vm(), guest:save_clock()
		for _ = 1, 3 do
			guest:start()
			local exit = assert(guest:wait(0, 5000), "the interrupt never came again")
			assert.are.equal(8, exit.size)
			assert(guest:settle())
			assert(guest:load_vcpu(0, vcpu))
			assert(guest:load_vm(vm))
			assert(guest:load_clock(clock))
		end
	end)

	it("that is set again and again keeps its pace", function()
		local period_ms = 20
		local first <close>, deadline, hz = armed(delay_ms, irq.again(period_ms))
		local second <close> = empty(1)
		move(first, second, 1)
		for i = 0, 9 do
			local exit = second:run()
			assert.is_true(exit.data >= deadline + i * (period_ms * hz // 1000))
		end
	end)
end)

describe("foreign state #kvm", function()
	local guest, other, saved
	setup(function()
		guest, other = stopped(), empty()
		saved = guest:save_vcpu(0)
	end)
	teardown(function()
		guest:close()
		other:close()
	end)

	local function refused(bytes, words, why) bare.refused(words, why or "EBADMSG", other:load_vcpu(0, bytes)) end

	it("of another architecture is refused", function()
		refused(core.record_write("CPID", 1, saved), "registers: record 'REGS' expected, found 'CPID'")
		bare.refused("GIC distributor: record 'GICD' expected, found 'IRQC'", "EBADMSG",
			other:load_vm(core.record_write("IRQC", 1, "")))
		bare.refused("guest clock: record 'CNTR' expected, found 'KCLK'", "EBADMSG",
			other:load_clock(core.record_write("KCLK", 1, le64(0))))
	end)

	it("with counts out of range is refused", function()
		refused(records.changed(saved, "REGS", function(payload) return records.replace(payload, 1, le32(0xffffffff)) end),
			"registers: 4294967295, 2048 is the most")
		refused(records.changed(saved, "REGS", function(payload) return records.replace(payload, 1, le32(2048)) end),
			"registers")
	end)

	it("with registers that are none of a vCPU's is refused by name", function()
		for id, name in pairs {
			[counters[1]] = "CNTVCT_EL0", [counters[2]] = "CNTPCT_EL0",
			[0x2030000000000000] = "0x2030000000000000", [0x60f0000000000000] = "0x60f0000000000000",
		} do
			refused(records.changed(saved, "REGS", with_register(id, le64(5))), "registers: " .. name .. " is none of a vCPU's")
		end
	end)

	it("with what this host lacks is refused by name", function()
		local function lacks(id, value, words)
			refused(records.changed(saved, "REGS", with_register(id, value)), words, "EOPNOTSUPP")
		end
		lacks(sysreg(3, 7, 15, 15, 7), le64(1), "registers: this host lacks S3_7_C15_C15_7")
		lacks(0x603000000014ff00, le64(1), "registers: this host lacks 0x603000000014ff00")
		local has = registers(records.parse(saved)[1].payload)
		if not has[vls] then lacks(vls, ("\1"):rep(64), "registers: this host lacks SVE vector lengths") end
	end)

	it("of a processor with features this host lacks is refused by name", function()
		local has = registers(records.parse(saved)[1].payload)
		refused(records.changed(saved, "REGS", with_register(pfr0, ("\255"):rep(8))),
			("registers: this host refuses ID_AA64PFR0_EL1 = 0xffffffffffffffff, it has 0x%x"):format(
				string.unpack("<I8", has[pfr0])), "EOPNOTSUPP")
		local model = string.unpack("<I8", has[midr])
		refused(records.changed(saved, "REGS", with_register(midr, le64(model ~ 0x10))),
			("registers: this host refuses MIDR_EL1 = 0x%x, it has 0x%x"):format(model ~ 0x10, model), "EOPNOTSUPP")
		assert(other:load_vcpu(0, saved))
	end)

	it("with values the processor cannot hold is refused", function()
		refused(records.changed(saved, "MPST", function() return le32(1000) end), "set the run state", "EINVAL")
		refused(records.changed(saved, "REGS", with_register(0x6030000000100042, le64(0x3cd))),
			"registers: this host refuses 0x6030000000100042 = 0x3cd", "EOPNOTSUPP") -- PSTATE: EL3
	end)

	it("of a GIC this host does not have is refused by name", function()
		local vm = guest:save_vm()
		local function refused_vm(tag, change, words, why)
			bare.refused(words, why or "EOPNOTSUPP", other:load_vm(records.changed(vm, tag, change)))
		end
		-- Each begins with a vCPU's number.
		refused_vm("GICD", function(payload) return records.replace(payload, 5, le32(0)) end,
			"GIC distributor 0: this host refuses 0x0 at 0x8")
		refused_vm("GICC", function(payload)
			local ctlr = string.unpack("<I8", payload, 13)
			return records.replace(payload, 13, le64(ctlr ~ 1 << 15)) -- A3V
		end, "GIC CPU interface 0: this host refuses ICC_CTLR_EL1")
		refused_vm("GICR", function(payload) return records.replace(payload, 1, le32(1)) end,
			"GIC redistributor: number 1 is out of order", "EBADMSG")
		refused_vm("GICC", function(payload) return records.replace(payload, 1, le32(7)) end,
			"GIC CPU interface: number 7 is out of order", "EBADMSG")
		assert(other:load_vm(vm))
	end)
end)
