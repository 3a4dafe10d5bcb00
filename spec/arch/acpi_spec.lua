-- The ACPI tables of a plan, found as a guest finds them, and as ACPICA's disassembler reads them.
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"

local FIRMWARE = 0xe0000

local function sum(bytes)
	local total = 0
	for index = 1, #bytes do total = total + bytes:byte(index) end
	return total % 256
end

-- From the RSDP on: signature -> table.
local function walk(area)
	assert.are.equal("RSD PTR ", area:sub(1, 8))
	assert.are.equal(0, sum(area:sub(1, 20)))
	assert.are.equal(0, sum(area:sub(1, 36)))
	local function table_at(gpa)
		local at = gpa - FIRMWARE + 1
		local length = string.unpack("<I4", area, at + 4)
		local bytes = area:sub(at, at + length - 1)
		assert.are.equal(length, #bytes)
		assert.are.equal(0, sum(bytes))
		return bytes, bytes:sub(1, 4)
	end
	local tables = {}
	local xsdt = table_at(string.unpack("<I8", area, 25))
	tables.XSDT = xsdt
	for at = 37, #xsdt, 8 do
		local bytes, signature = table_at(string.unpack("<I8", xsdt, at))
		tables[signature] = bytes
	end
	tables.DSDT = table_at(string.unpack("<I8", tables.FACP, 141))
	return tables
end

-- All tables as ACPI source language, and then through the compiler again.
local function disassemble(tables)
	local folder = scratch.folder()
	local source = {}
	for signature, bytes in pairs(tables) do
		local path = folder .. "/" .. signature
		scratch.write(path .. ".aml", bytes)
		local said = scratch.run(("cd %s && iasl -d %s.aml"):format(folder, signature))
		assert.is_nil(said:lower():match "[^\n]*error[^\n]*", said)
		assert.is_nil(said:lower():match "[^\n]*warning[^\n]*", said)
		assert.is_nil(said:lower():match "[^\n]*invalid[^\n]*", said)
		source[signature] = scratch.read(path .. ".dsl")
	end
	-- 6035: Linux knows the generation ID by a _HID whose suffix is not hexadecimal.
	local again = scratch.run(("cd %s && iasl -oa -vw 6035 -p again DSDT.dsl && iasl -d again.aml"):format(folder))
	assert.is_truthy(again:find("0 Errors", 1, true), again)
	local compiled = scratch.read(folder .. "/again.dsl")
	scratch.remove(folder)
	return source, compiled
end

describe("ACPI tables", function()
	local config = { arch = "x86_64", vcpus = 3, blocks = 2, volume_slots = 1, mounts = 1, net = true }
	local plan, tables, source, compiled
	setup(function()
		plan = assert(core.plan(config))
		tables = walk(assert(core.x86_acpi(config)))
		source, compiled = disassemble(tables)
	end)

	it("are the same for the same plan, and lie below the generation ID", function()
		local area = core.x86_acpi(config)
		assert.are.equal(area, core.x86_acpi(config))
		for _, most in ipairs { { vcpus = 16, blocks = 15 }, { mounts = 15 } } do
			most.arch = "x86_64"
			assert.is_true(#assert(core.x86_acpi(most)) < plan.vmgenid.gpa - FIRMWARE)
		end
	end)

	it("survive the disassembler and the compiler unchanged", function()
		-- The compiler may choose a longer or shorter form; what it says is the same.
		assert.are.equal(source.DSDT:match "\nDefinitionBlock.*", compiled:match "\nDefinitionBlock.*")
	end)

	it("have a virtio-mmio device for each slot", function()
		local found = 0
		for name, body in source.DSDT:gmatch "Device %((VR%x%x)%)%s*(%b{})" do
			local slot = plan.slots[found + 1]
			found = found + 1
			assert.are.equal(("VR%02X"):format(found - 1), name)
			assert.is_truthy(body:find '_HID, "LNRO0005"')
			assert.is_truthy(body:find "Name %(_CCA, One%)")
			local uid = body:match "_UID, (%w+)%)"
			assert.are.equal(found - 1, ({ Zero = 0, One = 1 })[uid] or tonumber(uid))
			local base, length = body:match "Memory32Fixed %(ReadWrite,%s*(0x%x+),[^\n]*\n%s*(0x%x+)"
			assert.are.same({ slot.base, plan.mmio_stride }, { tonumber(base), tonumber(length) })
			local kind, irq = body:match "Interrupt %(([^)]-), ,, %)%s*{%s*(0x%x+),%s*}"
			assert.are.same({ "ResourceConsumer, Edge, ActiveHigh, Exclusive", slot.irq }, { kind, tonumber(irq) })
		end
		assert.are.equal(#plan.slots, found)
	end)

	it("have the serial port", function()
		local body = source.DSDT:match "Device %(COM1%)%s*(%b{})"
		assert.is_truthy(body:find 'EisaId %("PNP0501"%)')
		assert.is_truthy(body:find "IO %(Decode16,%s*0x03F8,[^\n]*\n%s*0x03F8,[^\n]*\n%s*0x01,[^\n]*\n%s*0x08,")
		assert.are.equal(4, tonumber(body:match "Interrupt %b()%s*{%s*(0x%x+)"))
	end)

	it("have the generation ID and the device that tells of its change", function()
		local body = source.DSDT:match "Device %(VGEN%)%s*(%b{})"
		assert.is_truthy(body:find '_HID, "VMGENCTR"')
		assert.is_truthy(body:find '_CID, "VM_Gen_Counter"')
		local low, high = body:match "ADDR, Package %(0x02%)%s*{%s*(%w+),[^\n]*\n?%s*(%w+)"
		assert.are.same({ plan.vmgenid.gpa, "Zero" }, { tonumber(low), high })
		body = source.DSDT:match "Device %(GED_?%)%s*(%b{})"
		assert.is_truthy(body:find '_HID, "ACPI0013"')
		assert.are.equal(9, tonumber(body:match "Interrupt %b()%s*{%s*(0x%x+)"))
		local method = body:match "Method %(_EVT, 1, Serialized%)[^\n]*%s*(%b{})"
		assert.is_truthy(method:find "If %(%(Arg0 == 0x09%)%)%s*{%s*Notify %(\\_SB%.VGEN, 0x80%)")
	end)

	it("say that the machine is hardware-reduced, and how it is reset and turned off", function()
		local fadt = source.FACP
		local function field(name)
			return (fadt:match(name .. " : (%x+)"))
		end
		assert.are.equal("1", field "Hardware Reduced %(V5%)")
		assert.are.equal("1", field "Reset Register Supported %(V2%)")
		assert.are.equal("01", field "Value to cause reset")
		for register, port in pairs { ["Reset Register"] = 0x600, ["Sleep Control Register"] = 0x604,
			["Sleep Status Register"] = 0x605 } do
			local gas = fadt:match(register .. " : %[Generic Address Structure%](.-)\n\n")
			assert.are.equal("01", gas:match "Space ID : (%x+) %[SystemIO%]")
			assert.are.equal("08", gas:match "Bit Width : (%x+)")
			assert.are.equal(port, tonumber(gas:match "Address : (%x+)", 16))
		end
		assert.is_truthy(source.DSDT:find "_S5, Package %(0x04%)[^{]*{%s*0x05,%s*Zero,%s*Zero,%s*Zero")
	end)

	it("list the processors and the IOAPIC", function()
		local madt = source.APIC
		local ids = {}
		for id, enabled in madt:gmatch "Local Apic ID : (%x+).-Processor Enabled : (%x)" do
			ids[#ids + 1] = tonumber(id, 16)
			assert.are.equal("1", enabled)
		end
		assert.are.same({ 0, 1, 2 }, ids)
		assert.are.equal("FEC00000", madt:match "%] +Address : (%x+)")
		assert.are.equal("FEE00000", madt:match "Local Apic Address : (%x+)")
		assert.are.equal("0", madt:match "PC%-AT Compatibility : (%x)")
	end)
end)
