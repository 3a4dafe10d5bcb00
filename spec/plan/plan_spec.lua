-- What a machine is made of, before anything is opened.  The plan is an ABI: what is golden here stays as it is, or
-- SM_PLAN_VERSION goes up.
local core = require "supermachine.core"

local MIB = 1 << 20
local GIB = 1 << 30

-- A plan as text, one fact a line.
local function dump(plan)
	local lines = {}
	local function add(...) lines[#lines + 1] = string.format(...) end
	add("%s, %d vCPUs, %d MiB", plan.arch, plan.vcpus, plan.memory_mib)
	for _, range in ipairs(plan.ram) do add("ram 0x%x + 0x%x", range.gpa, range.bytes) end
	add("firmware 0x%x + 0x%x", plan.firmware.gpa, plan.firmware.bytes)
	add("vmgenid 0x%x irq %d", plan.vmgenid.gpa, plan.vmgenid.irq)
	add("serial 0x%x irq %d", plan.serial.base, plan.serial.irq)
	add("mmio 0x%x by 0x%x", plan.mmio_base, plan.mmio_stride)
	for _, slot in ipairs(plan.slots) do
		local dax = slot.dax and (" dax 0x%x + 0x%x"):format(slot.dax.gpa, slot.dax.bytes) or ""
		add("%s %d%s 0x%x irq %d%s", slot.kind, slot.index, slot.backed and "" or " unbacked", slot.base, slot.irq, dax)
	end
	add("cmdline %s", plan.cmdline)
	if plan.cpu_disable ~= "" then add("cpu_disable %s", plan.cpu_disable) end
	return table.concat(lines, "\n")
end

local function kinds(plan)
	local list = {}
	for index, slot in ipairs(plan.slots) do list[index] = slot.kind end
	return table.concat(list, " ")
end

-- What every plan has to keep to.
local function check_slots(plan, irq_min, irq_max)
	local seen = {}
	for index, slot in ipairs(plan.slots) do
		assert.are.equal(plan.mmio_base + (index - 1) * plan.mmio_stride, slot.base)
		assert.are.equal(0, slot.base % plan.mmio_stride)
		assert.is_true(slot.irq >= irq_min and slot.irq <= irq_max)
		assert.are_not.equal(plan.serial.irq, slot.irq)
		assert.are_not.equal(plan.vmgenid.irq, slot.irq)
		assert.is_true(index == 1 or slot.irq > plan.slots[index - 1].irq)
		assert.is_nil(seen[slot.base])
		seen[slot.base] = true
	end
end

describe("a plan", function()
	it("of an x86_64 machine with everything", function()
		local plan = assert(core.plan {
			arch = "x86_64", vcpus = 4, memory_mib = 6144, blocks = 1, volumes = 1, volume_slots = 2, mounts = 1,
			mount_slots = 2, net = true, dax_mib = 1024, cmdline = "root=/dev/vda loglevel=7", cpu_disable = "cx16,avx2",
		})
		assert.are.equal([[
x86_64, 4 vCPUs, 6144 MiB
ram 0x0 + 0xc0000000
ram 0x100000000 + 0xc0000000
firmware 0xe0000 + 0x20000
vmgenid 0xff000 irq 9
serial 0x3f8 irq 4
mmio 0xd0000000 by 0x1000
vsock 0 0xd0000000 irq 5
block 0 0xd0001000 irq 6
volume 0 0xd0002000 irq 7
volume 1 unbacked 0xd0003000 irq 8
volume 2 unbacked 0xd0004000 irq 10
rng 0 0xd0005000 irq 11
balloon 0 0xd0006000 irq 12
fs 0 0xd0007000 irq 13 dax 0x1c0000000 + 0x15400000
fs 1 unbacked 0xd0008000 irq 14 dax 0x1d5400000 + 0x15400000
fs 2 unbacked 0xd0009000 irq 15 dax 0x1ea800000 + 0x15400000
net 0 0xd000a000 irq 16
cmdline console=ttyS0 quiet panic=-1 reboot=a pci=off 8250.nr_uarts=1 tsc=nowatchdog cryptomgr.notests ]] ..
			[[random.trust_cpu=on swiotlb=noforce root=/dev/vda loglevel=7
cpu_disable cx16,avx2]], dump(plan))
		check_slots(plan, 5, 23)
	end)

	it("of an aarch64 machine with everything", function()
		local plan = assert(core.plan {
			arch = "aarch64", vcpus = 2, memory_mib = 4096, blocks = 2, volume_slots = 1, mounts = 1, mount_slots = 1,
			net = true,
		})
		assert.are.equal([[
aarch64, 2 vCPUs, 4096 MiB
ram 0x40000000 + 0x100000000
firmware 0x40000000 + 0x200000
vmgenid 0x401ff000 irq 160
serial 0x9000000 irq 33
mmio 0xa000000 by 0x1000
vsock 0 0xa000000 irq 32
block 0 0xa001000 irq 34
block 1 0xa002000 irq 35
volume 0 unbacked 0xa003000 irq 36
rng 0 0xa004000 irq 37
balloon 0 0xa005000 irq 38
fs 0 0xa006000 irq 39 dax 0x140000000 + 0x80000000
fs 1 unbacked 0xa007000 irq 40 dax 0x1c0000000 + 0x80000000
net 0 0xa008000 irq 41
cmdline console=ttyAMA0 quiet panic=-1 cryptomgr.notests random.trust_cpu=on swiotlb=noforce]], dump(plan))
		check_slots(plan, 32, 159)
	end)

	it("puts devices at consecutive strides", function()
		local plan = assert(core.plan { arch = "aarch64", blocks = 2 })
		assert.are.equal("vsock block block rng balloon", kinds(plan))
		check_slots(plan, 32, 159)
		plan = assert(core.plan { arch = "aarch64", blocks = 3, mounts = 2 })
		assert.are.equal("vsock block block block rng balloon fs fs", kinds(plan))
		check_slots(plan, 32, 159)
		assert.are.equal(32, plan.slots[1].irq)
		for n = 1, 7 do assert.are.equal(32 + n + 1, plan.slots[n + 1].irq) end
	end)

	it("fills the aarch64 interrupt range exactly", function()
		local blocks = 159 - 32 - 3
		local plan = assert(core.plan { arch = "aarch64", blocks = blocks })
		check_slots(plan, 32, 159)
		local last = plan.slots[#plan.slots]
		assert.are.same({ "balloon", 159 }, { last.kind, last.irq })

		local nothing, message, code = core.plan { arch = "aarch64", blocks = blocks + 1 }
		assert.is_nil(nothing)
		assert.are.equal("ENOSPC", code)
		assert.are.equal(
			"too many devices: balloon 0 needs IRQ 160, the limit is 159 (125 block devices, 0 mounts)", message)
	end)

	it("refuses more devices than there are interrupts", function()
		local nothing, message, code = core.plan { arch = "aarch64", blocks = 120, mounts = 64 }
		assert.are.same({ nil, "ENOSPC" }, { nothing, code })
		assert.are.equal("too many devices: fs 4 needs IRQ 160, the limit is 159 (120 block devices, 64 mounts)", message)

		-- 18 pins: vsock, rng, balloon and 15 others.
		local plan = assert(core.plan { arch = "x86_64", blocks = 14, net = true })
		check_slots(plan, 5, 23)
		assert.are.same({ 18, 23 }, { #plan.slots, plan.slots[18].irq })
		nothing, message, code = core.plan { arch = "x86_64", blocks = 13, volume_slots = 2, net = true }
		assert.are.same({ nil, "ENOSPC" }, { nothing, code })
		assert.are.equal("too many devices: net 0 needs IRQ 24, the limit is 23 (15 block devices, 0 mounts, net)", message)
		for _, key in ipairs { "blocks", "volumes", "volume_slots", "mounts", "mount_slots" } do
			for _, count in ipairs { 1000, 0xffffffff, -1 } do
				assert.are.equal("ENOSPC", select(3, core.plan { [key] = count, dax_mib = 0 }))
			end
		end
	end)

	it("divides the DAX window among the mounts", function()
		for _, arch in ipairs { "x86_64", "aarch64" } do
			for mounts, mib in ipairs { 8192, 4096, 2730, 2048, 1638, 1364, 1170 } do
				local plan = assert(core.plan { arch = arch, memory_mib = 512, mounts = mounts, dax_mib = 8192 })
				local top = plan.ram[#plan.ram].gpa + plan.ram[#plan.ram].bytes
				local next_gpa
				for _, slot in ipairs(plan.slots) do
					if slot.kind == "fs" then
						assert.are.equal(mib * MIB, slot.dax.bytes)
						assert.are.equal(0, slot.dax.gpa % (2 * MIB))
						if next_gpa then
							assert.are.equal(next_gpa, slot.dax.gpa)
						else
							assert.are.equal(0, slot.dax.gpa % GIB)
							assert.is_true(slot.dax.gpa >= top)
						end
						next_gpa = slot.dax.gpa + slot.dax.bytes
					else
						assert.is_nil(slot.dax)
					end
				end
			end
		end
	end)

	it("has a DAX window of min(8192, memory_mib) if not told otherwise", function()
		local function window(config)
			local slots = assert(core.plan(config)).slots
			return slots[#slots].dax
		end
		assert.are.equal(512 * MIB, window({ memory_mib = 512, mounts = 1 }).bytes)
		assert.are.equal(8192 * MIB, window({ memory_mib = 16384, mounts = 1 }).bytes)
		assert.are.equal(64 * MIB, window({ memory_mib = 512, mounts = 1, dax_mib = 64 }).bytes)
		assert.is_nil(window { memory_mib = 512, mounts = 1, dax_mib = 0 })
		-- Mounts that a restore may back get their share too.
		assert.are.equal(128 * MIB, window({ memory_mib = 512, mounts = 1, mount_slots = 3 }).bytes)
	end)

	it("refuses slices of less than 2 MiB", function()
		assert(core.plan { mounts = 3, dax_mib = 6 })
		local nothing, message, code = core.plan { mounts = 3, dax_mib = 5 }
		assert.are.same({ nil, "EINVAL" }, { nothing, code })
		assert.are.equal("dax_mib: 5 MiB for 3 mounts leave less than 2 MiB for each", message)
		assert.are.equal("EINVAL", select(3, core.plan { mounts = 1, dax_mib = math.maxinteger }))
	end)

	it("maps nothing but whole pages of 16 KiB, for a host that has such", function()
		local page = 16384
		for _, arch in ipairs { "x86_64", "aarch64" } do
			for _, mib in ipairs { 16, 17, 333, 3071, 3073, 4099 } do
				for mounts = 1, 7 do
					local plan = assert(core.plan { arch = arch, memory_mib = mib, mounts = mounts, dax_mib = mib - 1 })
					local maps = { table.unpack(plan.ram) }
					for _, slot in ipairs(plan.slots) do maps[#maps + 1] = slot.dax end
					assert.are.equal(#plan.ram + mounts, #maps)
					for _, map in ipairs(maps) do
						assert.are.same({ 0, 0 }, { map.gpa % page, map.bytes % page })
						assert.is_true(map.bytes >= page)
					end
				end
			end
		end
	end)

	it("splits x86_64 RAM around the hole below 4 GiB", function()
		local function ram(mib) return assert(core.plan { arch = "x86_64", memory_mib = mib }).ram end
		assert.are.same({ { gpa = 0, bytes = 16 * MIB } }, ram(16))
		assert.are.same({ { gpa = 0, bytes = 3 * GIB } }, ram(3072))
		assert.are.same({ { gpa = 0, bytes = 3 * GIB }, { gpa = 4 * GIB, bytes = MIB } }, ram(3073))
	end)

	it("refuses numbers out of range, by name", function()
		for config, expected in pairs {
			[{ vcpus = 0 }] = "vcpus: 0, from 1 to 16 are possible",
			[{ vcpus = 17 }] = "vcpus: 17, from 1 to 16 are possible",
			[{ memory_mib = 3 }] = "memory_mib: 3, from 16 to 1048576 are possible",
			[{ memory_mib = 0 }] = "memory_mib: 0, from 16 to 1048576 are possible",
			[{ memory_mib = 1048577 }] = "memory_mib: 1048577, from 16 to 1048576 are possible",
		} do
			local nothing, message, code = core.plan(config)
			assert.are.same({ nil, expected, "EINVAL" }, { nothing, message, code })
		end
		assert(core.plan { vcpus = 16, memory_mib = 1048576 })
	end)

	it("refuses texts that are too long", function()
		local room = 2048 - 1 - #assert(core.plan {}).cmdline - 1
		assert.are.equal(2047, #assert(core.plan { cmdline = ("x"):rep(room) }).cmdline)
		local nothing, message, code = core.plan { cmdline = ("x"):rep(room + 1) }
		assert.are.same({ nil, "E2BIG" }, { nothing, code })
		assert.are.equal(("cmdline: %d bytes, at most %d fit"):format(room + 1, room), message)
		assert.are.equal("E2BIG", select(3, core.plan { cpu_disable = ("x"):rep(256) }))
	end)

	it("raises for misuse", function()
		assert.has_error(function() core.plan { vcpu = 1 } end, "unknown option 'vcpu'")
		assert.has_error(function() core.plan { arch = "riscv" } end)
		assert.has_error(function() core.plan { vcpus = "2" } end)
	end)
end)

describe("a plan's record", function()
	local configs = {
		{},
		{ arch = "aarch64", blocks = 124 },
		{ vcpus = 16, memory_mib = 8192, blocks = 1, volumes = 2, volume_slots = 1, mounts = 2, mount_slots = 1, net = true,
			dax_mib = 1000, cmdline = "a=b c", cpu_disable = "cx16" },
		{ mounts = 7, dax_mib = 8192 },
		{ mounts = 2, dax_mib = 0 },
	}

	it("gives the same plan back", function()
		for _, config in ipairs(configs) do
			assert.are.same(core.plan(config), assert(core.plan_decode(assert(core.plan_encode(config)))))
		end
	end)

	it("is refused when it is cut short or has more", function()
		local record = core.plan_encode(configs[3])
		for length = 0, #record - 1, 7 do
			local nothing, message, code = core.plan_decode(record:sub(1, length))
			assert.are.same({ nil, "EBADMSG" }, { nothing, code })
			assert.is_truthy(message:find "plan")
		end
		assert.are.equal("EBADMSG", select(3, core.plan_decode(record .. "\0")))
	end)

	-- With a checksum that is right for it.
	local function reseal(record, payload)
		local crc = 0xffffffff
		for index = 1, #payload do
			crc = crc ~ payload:byte(index)
			for _ = 1, 8 do crc = crc >> 1 ~ (0xedb88320 & -(crc & 1)) end
		end
		return record:sub(1, 8) .. string.pack("<I4I4", #payload, crc ~ 0xffffffff) .. payload
	end

	it("is refused when any byte of it differs, whatever the checksum says", function()
		local record = core.plan_encode(configs[3])
		local payload = record:sub(17)
		assert.are.equal(record, reseal(record, payload))
		local plan = core.plan_decode(record)
		local accepted = {}
		for at = 1, #payload do
			local changed = payload:sub(1, at - 1) .. string.char(payload:byte(at) ~ 1) .. payload:sub(at + 1)
			local decoded, _, code = core.plan_decode(reseal(record, changed))
			if not decoded then
				assert.are.equal("EBADMSG", code)
			elseif decoded.cmdline ~= plan.cmdline or decoded.cpu_disable ~= plan.cpu_disable then
				accepted[#accepted + 1] = "text"
			else
				-- Other numbers of backed volumes and mounts are other good plans.
				accepted[#accepted + 1] = "backed"
				for index, slot in ipairs(decoded.slots) do slot.backed = plan.slots[index].backed end
				assert.are.same(plan, decoded)
			end
		end
		assert.are.equal(("text "):rep(#"a=b c" + #"cx16") .. ("backed "):rep(4), table.concat(accepted, " ") .. " ")
	end)
end)
