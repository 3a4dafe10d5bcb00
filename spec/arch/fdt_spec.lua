-- The device tree of a plan, as dtc reads it: one whole, and what must hold in all.
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"

local SEED = ""
for byte = 1, 40 do SEED = SEED .. string.char(byte) end

local EDGE, LEVEL = 1, 4
local MIB, GIB = 1 << 20, 1 << 30

-- What dtc makes of a file; a warning is a failure.
local function dtc(folder, from, to, name)
	local said = scratch.run(("cd %s && dtc -I %s -O %s -o out %s"):format(scratch.quote(folder), from, to, name))
	assert.are.equal("", said)
	return scratch.read(folder .. "/out")
end

local function source_of(blob)
	local folder = scratch.folder()
	scratch.write(folder .. "/blob", blob)
	local source = dtc(folder, "dtb", "dts", "blob")
	scratch.remove(folder)
	return source
end

-- Source as nodes: { name, path, [1..n] = children, properties = { name = true, a string or a list of numbers } }.
local function parse(source)
	local root
	local open = {}
	for line in source:gmatch "[^\n]+" do
		local node = open[#open]
		local name = line:match "^%s*(%S+) {$"
		local property, value = line:match "^%s*([%w,#_-]+) = (.+);$"
		local flag = line:match "^%s*([%w,#_-]+);$"
		if name then
			local child = { name = name, path = node and node.path .. "/" .. name or "", properties = {} }
			if node then node[#node + 1] = child else root = child end
			open[#open + 1] = child
		elseif line:find "^%s*};$" then
			open[#open] = nil
		elseif property and value:find '^"' then
			-- One string holds several, in the way of some versions.
			node.properties[property] = value:sub(2, -2):gsub('", "', "|"):gsub("\\0", "|")
		elseif property then
			local cells = {}
			for cell in value:gmatch "0x%x+" do cells[#cells + 1] = tonumber(cell) end
			assert.is_true(#cells > 0, line)
			node.properties[property] = cells
		elseif flag then
			node.properties[flag] = true
		else
			assert.are.equal("/dts-v1/;", line)
		end
	end
	assert.are.equal(0, #open)
	return root
end

local function find(tree, name)
	for _, child in ipairs(tree) do
		if child.name == name then return child end
	end
	error("no node " .. name)
end

local function all(tree, prefix)
	local list = {}
	for _, child in ipairs(tree) do
		if child.name:find("^" .. prefix .. "@") then list[#list + 1] = child end
	end
	return list
end

-- Pairs of 64-bit numbers.
local function ranges(cells)
	local list = {}
	assert.are.equal(0, #cells % 4)
	for at = 1, #cells, 4 do list[#list + 1] = { cells[at] << 32 | cells[at + 1], cells[at + 2] << 32 | cells[at + 3] } end
	return list
end

local function build(config, options)
	config.arch = "aarch64"
	options = options or {}
	options.seed = options.seed or SEED
	return assert(core.arm64_fdt(config, options)), assert(core.plan(config))
end

local function tree_of(config, options)
	local blob, plan = build(config, options)
	return parse(source_of(blob)), plan
end

describe("a device tree", function()
	it("is as it always was", function()
		local config = { vcpus = 2, memory_mib = 4096, blocks = 2, volume_slots = 1, mounts = 1, mount_slots = 1, net = true,
			cmdline = "x=y" }
		local blob = build(config, { initrd_start = 0x13fff0000, initrd_bytes = 9000 })
		local folder = scratch.folder()
		scratch.write(folder .. "/golden", scratch.read "spec/arch/fdt_golden.dts")
		local golden = dtc(folder, "dts", "dtb", "golden")
		scratch.remove(folder)
		assert.are.equal(source_of(golden), source_of(blob))
	end)

	it("is a blob of version 17 that ends where it says", function()
		local blob = build {}
		local magic, total, structure, strings, reserved, version, compatible, cpu = string.unpack(">I4I4I4I4I4I4I4I4", blob)
		assert.are.same({ 0xd00dfeed, #blob, 17, 16, 0 }, { magic, total, version, compatible, cpu })
		assert.is_true(structure < strings and strings < total)
		assert.are.equal(("\0"):rep(16), blob:sub(reserved + 1, reserved + 16)) -- nothing in the old way
		assert.are.equal(blob, (build {}))
	end)

	it("has each processor by its affinity, and its redistributor", function()
		for _, vcpus in ipairs { 1, 2, 16 } do
			local tree = tree_of { vcpus = vcpus }
			local cpus = find(tree, "cpus")
			assert.are.same({ 1 }, cpus.properties["#address-cells"])
			assert.are.equal(vcpus, #cpus)
			for index, cpu in ipairs(cpus) do
				assert.are.equal(("cpu@%x"):format(index - 1), cpu.name)
				assert.are.same({ device_type = "cpu", compatible = "arm,armv8", reg = { index - 1 },
					["enable-method"] = "psci" }, cpu.properties)
			end
			local gic = find(tree, "interrupt-controller@8000000")
			assert.are.same({ { 0x8000000, 0x10000 }, { 0x80a0000, vcpus * 0x20000 } }, ranges(gic.properties.reg))
		end
	end)

	it("has all of RAM, less the generation ID's pages, where the kernel may not look", function()
		for _, mib in ipairs { 16, 256, 8192, 1 << 20 } do
			local tree, plan = tree_of { memory_mib = mib }
			local memory = all(tree, "memory")
			assert.are.equal(1, #memory)
			assert.are.same({ { 0x40000000, mib * MIB } }, ranges(memory[1].properties.reg))
			local reserved = find(tree, "reserved-memory")
			assert.is_true(reserved.properties.ranges)
			assert.are.equal(1, #reserved)
			assert.is_true(reserved[1].properties["no-map"])
			local kept = ranges(reserved[1].properties.reg)[1]
			-- Whole pages of the largest kind, in the firmware area, and past any tree.
			assert.are.same({ 0, 0 }, { kept[1] % 0x10000, kept[2] % 0x10000 })
			assert.is_true(kept[1] <= plan.vmgenid.gpa and plan.vmgenid.gpa + 0x1000 <= kept[1] + kept[2])
			assert.is_true(kept[1] >= plan.firmware.gpa + 0x10000)
			assert.is_true(kept[1] + kept[2] <= plan.firmware.gpa + plan.firmware.bytes)
		end
	end)

	it("has a device for each slot, backed or not, in plan order", function()
		for _, config in ipairs {
			{}, { blocks = 1 }, { blocks = 1, mount_slots = 3 }, { volumes = 2, volume_slots = 5, mounts = 1, net = true },
			{ blocks = 124 }, { blocks = 60, mount_slots = 64, dax_mib = 128 },
		} do
			local tree, plan = tree_of(config)
			local devices = all(tree, "virtio")
			assert.are.equal(#plan.slots, #devices)
			for index, slot in ipairs(plan.slots) do
				assert.are.equal(("virtio@%x"):format(slot.base), devices[index].name)
				assert.are.same({
					compatible = "virtio,mmio", ["dma-coherent"] = true, interrupts = { 0, slot.irq - 32, EDGE },
					reg = { 0, slot.base, 0, plan.mmio_stride },
				}, devices[index].properties)
			end
		end
	end)

	it("gives no interrupt and no address twice", function()
		local config = { vcpus = 16, blocks = 124 }
		local tree = tree_of(config)
		local lines, places = {}, {}
		for _, node in ipairs(tree) do
			local cells = node.properties.interrupts or {}
			for at = 1, #cells, 3 do
				local line = cells[at] .. ":" .. cells[at + 1]
				assert.is_nil(lines[line])
				lines[line] = node.name
				assert.are.equal(cells[at] == 0 and EDGE or LEVEL, cells[at + 2])
				assert.is_true(cells[at + 1] < (cells[at] == 0 and 160 or 16))
			end
			if node.properties.reg then
				for _, range in ipairs(ranges(node.properties.reg)) do
					if node.properties.device_type ~= "memory" then places[#places + 1] = range end
				end
			end
		end
		table.sort(places, function(a, b) return a[1] < b[1] end)
		for index = 2, #places do assert.is_true(places[index - 1][1] + places[index - 1][2] <= places[index][1]) end
		-- The largest there is fits with the longest command line, and one byte more is the plan's error.
		config.cmdline = ("x"):rep(2047 - #assert(core.plan(config)).cmdline - 1)
		local blob = build(config)
		assert.is_true(#blob < 32768)
		local bootargs = find(parse(source_of(blob)), "chosen").properties.bootargs
		assert.are.equal(2047, #bootargs)
		config.cmdline = config.cmdline .. "x"
		assert.are.equal("E2BIG", select(3, core.arm64_fdt(config, { seed = SEED })))
	end)

	it("names the initramfs where there is one", function()
		local chosen = find(tree_of({}), "chosen").properties
		assert.is_nil(chosen["linux,initrd-start"])
		assert.is_nil(chosen["linux,initrd-end"])
		chosen = find(tree_of({}, { initrd_start = 33 * GIB - 0x10000, initrd_bytes = 0x10000 }), "chosen").properties
		assert.are.same({ 8, 0x3fff0000 }, chosen["linux,initrd-start"])
		assert.are.same({ 8, 0x40000000 }, chosen["linux,initrd-end"])
	end)

	it("points at nodes that are there", function()
		local tree = tree_of {}
		local gic = find(tree, "interrupt-controller@8000000").properties
		assert.are.same(gic.phandle, tree.properties["interrupt-parent"])
		local serial = find(tree, find(tree, "chosen").properties["stdout-path"]:sub(2)).properties
		assert.are.equal("arm,pl011|arm,primecell", serial.compatible)
		local clock = find(tree, "apb-clock").properties
		assert.are.same({ clock.phandle[1], clock.phandle[1] }, serial.clocks)
		assert.are_not.equal(gic.phandle[1], clock.phandle[1])
	end)

	it("has its seeds, and nothing else random", function()
		local other = SEED:reverse()
		local tree, changed = tree_of({}, { seed = SEED }), tree_of({}, { seed = other })
		local chosen, changed_chosen = find(tree, "chosen").properties, find(changed, "chosen").properties
		for name, count in pairs { ["kaslr-seed"] = 2, ["rng-seed"] = 8 } do
			assert.are.equal(count, #chosen[name])
			assert.are_not.same(chosen[name], changed_chosen[name])
			changed_chosen[name] = chosen[name]
		end
		assert.are.same(tree, changed)
		for _, seed in ipairs { "", SEED:sub(2), SEED .. "x" } do
			local fine, message = pcall(core.arm64_fdt, { arch = "aarch64" }, { seed = seed })
			assert.is_false(fine)
			assert.is_truthy(message:find "a seed of another length")
		end
		assert.has_error(function() core.arm64_fdt({ arch = "aarch64" }, {}) end)
		assert.has_error(function() core.arm64_fdt { arch = "aarch64" } end)
	end)
end)
