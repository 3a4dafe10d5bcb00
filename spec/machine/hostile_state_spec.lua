-- What a restore makes of a real machine's state that was damaged with care: every checksum and hash is right.
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local records = require "spec.support.records"
local resources = require "spec.support.resources"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"
local tree = require "spec.support.state_tree"

-- How the failures call them.
local names = {
	MACH = "machine state", VCPU = "vCPU", VMIC = "interrupt controller", IRQC = "interrupt controller", CLOK = "clock",
	KCLK = "clock", PLAT = "platform", UART = "serial", VDEV = "device", CPID = "CPUID", TSCR = "TSC",
	SREG = "control registers", XCRS = "extended control registers", XSAV = "XSAVE area", REGS = "registers",
	LAPC = "local APIC", MSRS = "MSRs", EVNT = "pending events", DBGR = "debug registers", MPST = "run state",
	GICD = "GIC distributor", GICR = "GIC redistributor", GICC = "GIC CPU interface", CNTR = "guest clock",
	PL11 = "serial",
}

local function named(message, ...)
	for _, node in ipairs { ... } do
		if message:find(node.tag, 1, true) or message:find(names[node.tag] or "state", 1, true) then return true end
	end
	return false
end

-- What is done to one record; leaves: only to those that hold no others.
local damages = {
	{ "left out", function(list, i) table.remove(list, i) end },
	{ "there twice", function(list, i) table.insert(list, i, list[i]) end },
	{ "behind the next", function(list, i) list[i], list[i + 1] = list[i + 1], list[i] end, next = true },
	{ "of another kind", function(list, i) list[i].tag = "ABCD" end },
	{ "newer", function(list, i) list[i].version = 99 end },
	{ "a byte short", function(list, i) list[i].payload = list[i].payload:sub(1, -2) end, leaf = true },
	{ "a byte long", function(list, i) list[i].payload = list[i].payload .. "\0" end, leaf = true },
	{ "empty", function(list, i) list[i].payload = "" end, leaf = true },
	{ "a MiB long", function(list, i) list[i].payload = list[i].payload .. ("\xff"):rep(1 << 20) end, leaf = true },
}

for _, transport in ipairs { "direct", "worker" } do
	describe("hostile state (" .. transport .. ") #kvm", function()
		local folder, path, sound, keeper, before

		-- Two vCPUs, every kind of device; and a machine beside, that must not mind.
		setup(function()
			folder = folders.new()
			path = folder:join "snapshot"
			do
				local vm <close> = assert(sm.vm.new {
					kernel = guest.write(folder:join "kernel", guest.print "fine" .. guest.poweroff()), memory_mib = 16,
					vcpus = 2,
				})
				assert(vm:snapshot(path))
			end
			sound = scratch.read(path .. "/state")
			local snapshot <close> = assert(sm.snapshot.open(path))
			keeper = assert(snapshot:restore { paused = true })
			-- The first restore may make what stays.
			assert(snapshot:restore { transport = transport, paused = true }):close()
			before = resources.now()
		end)
		teardown(function()
			keeper:close()
			folder:close()
		end)
		local function nothing_left()
			local after = resources.now()
			assert.are.same({ before.descriptors, before.threads }, { after.descriptors, after.threads })
		end

		local function restore(bytes)
			tree.replace_state(path, bytes)
			local snapshot <close> = assert(sm.snapshot.open(path))
			return snapshot:restore { transport = transport }
		end

		local function refused(bytes, what, ...)
			local vm, message, code = restore(bytes)
			if vm then vm:close() end
			assert.is_nil(vm, what)
			assert.are.equal("EBADMSG", code, what .. ": " .. message)
			assert.is_true(named(message, ...), what .. ": " .. message)
		end

		it("is refused by the section's name where a record is not as it should be", function()
			local places = 0
			tree.each(tree.parse(sound), function() places = places + 1 end)
			assert.is_true(places > 15, places)
			for place = 1, places do
				for _, damage in ipairs(damages) do
					local all, seen = tree.parse(sound), 0
					local list, index, parent
					tree.each(all, function(...)
						seen = seen + 1
						if seen == place then list, index, parent = ... end
					end)
					local one, other = list[index], list[index + 1]
					if (not damage.leaf or one.payload) and (not damage.next or other) then
						local what = ("%s (record %d) %s"):format(one.tag, place, damage[1])
						local tag = { tag = one.tag }
						damage[2](list, index)
						refused(tree.bytes(all), what, tag, other or tag, parent or tag)
					end
				end
			end
			nothing_left()
		end)

		it("is refused where it ends too soon", function()
			local at = { 0, 1, records.header - 1, records.header, #sound - 1 }
			for _, record in ipairs(records.parse(sound:sub(records.header + 1))) do
				at[#at + 1] = records.header + record.at - 1
				at[#at + 1] = records.header + record.at + records.header
			end
			for _, bytes in ipairs(at) do
				refused(sound:sub(1, bytes), bytes .. " bytes", { tag = "MACH" })
			end
			refused(sound .. sound, "two machines", { tag = "MACH" })
			nothing_left()
		end)

		it("is refused where a bit of any section is another, by its checksum", function()
			for i, record in ipairs(records.parse(sound:sub(records.header + 1))) do
				local at = records.header + record.at + records.header + #record.payload // 2
				refused(records.flipped(sound, at, 1 << i % 8), record.tag, { tag = "MACH" })
			end
		end)

		it("never harms more than its own machine where a bit is another and the checksums are right", function()
			local leaves = {}
			tree.each(tree.parse(sound), function(list, i)
				if list[i].payload then leaves[#leaves + 1] = #list[i].payload end
			end)
			local refusals = 0
			for leaf, bytes in ipairs(leaves) do
				for _, at in ipairs { 1, bytes // 3 + 1, bytes } do
					for _, mask in ipairs { 0x01, 0x80 } do
						local all, seen = tree.parse(sound), 0
						tree.each(all, function(list, i)
							local node = list[i]
							if not node.payload then return end
							seen = seen + 1
							if seen == leaf then node.payload = records.flipped(node.payload, at, mask) end
						end)
						local vm, message, code = restore(tree.bytes(all))
						if vm then
							vm:close()
						else
							refusals = refusals + 1
							assert.is_string(code)
							assert.matches("restore: %a", message)
						end
					end
				end
			end
			assert.is_true(refusals > 0)
			nothing_left()
		end)

		it("leaves the machine beside it as it was", function()
			assert(keeper:resume())
			assert.are.equal("poweroff", (keeper:wait { timeout_ms = 20000 }))
			assert.are.equal("fine", keeper:console())
		end)
	end)
end

describe("hostile meta #kvm", function()
	-- Its own record holds the plan's and the disks', and then plain fields.
	local function split(meta)
		local payload = records.parse(meta)[1].payload
		local parts, at = {}, 1
		for i = 1, 2 do
			local len = records.header + string.unpack("<I4", payload, at + 8)
			parts[i], at = payload:sub(at, at + len - 1), at + len
		end
		parts[3] = payload:sub(at)
		return parts
	end

	it("is refused, or is another snapshot, and nothing is left of it", function()
		local folder <close> = folders.new()
		local path = folder:join "snapshot"
		do
			local vm <close> = assert(sm.vm.new {
				kernel = guest.write(folder:join "kernel", guest.spin()), memory_mib = 16,
			})
			assert(vm:snapshot(path))
		end
		local sound = scratch.read(path .. "/meta")
		local version = records.parse(sound)[1].version
		local function open(parts)
			scratch.write(path .. "/meta", core.record_write("SNAP", version, table.concat(parts)))
			local snapshot <close>, message, code = sm.snapshot.open(path)
			if not snapshot then return nil, message, code end
			local vm <close>, why, name = snapshot:restore()
			return vm and true, why, name
		end
		local function refused(parts, what)
			local fine, message, code = open(parts)
			assert.is_nil(fine, what)
			assert.matches("meta: ", message)
			assert.are.equal("EBADMSG", code, message)
		end
		assert(open(split(sound)))
		local before, refusals = resources.now(), 0
		for part = 1, 3 do
			local whole = split(sound)[part]
			for at = 0, #whole - 1, 5 do
				local parts = split(sound)
				parts[part] = whole:sub(1, at)
				refused(parts, ("part %d, cut at %d"):format(part, at))
				-- The inner records with right checksums, too.
				parts[part] = records.flipped(whole, at + 1, 1 << at % 8)
				if part < 3 and at >= records.header then
					local record = records.parse(whole)[1]
					parts[part] = core.record_write(record.tag, record.version, parts[part]:sub(records.header + 1))
				end
				local fine, message, code = open(parts)
				if not fine then
					refusals = refusals + 1
					assert.is_string(code)
					assert.matches("snapshot " .. path, message, 1, true)
				end
			end
		end
		assert.is_true(refusals > 50, refusals)
		local parts = split(sound)
		for _, order in ipairs { { 2, 1, 3 }, { 1, 1, 2 }, { 1, 3 }, { 1, 2, 3, 3 } } do
			local shuffled = {}
			for i, part in ipairs(order) do shuffled[i] = parts[part] end
			refused(shuffled, table.concat(order, " "))
		end
		local after = resources.now()
		assert.are.same({ before.descriptors, before.threads }, { after.descriptors, after.threads })
	end)
end)

describe("the state of a machine that never ran #kvm", function()
	-- What goes on while nothing runs, or is measured in what does: KVM's clock, and the TSC that it is read with.
	local clocks = { KCLK = true, CNTR = true }

	it("is the same after a restore, but for its clocks", function()
		local folder <close> = folders.new()
		do
			local vm <close> = assert(sm.vm.new {
				kernel = guest.write(folder:join "kernel", guest.loop(guest.print "x")), memory_mib = 16, vcpus = 2,
			})
			assert(vm:resume())
			while vm:console() == "" do end
			assert(vm:pause())
			assert(vm:snapshot(folder:join "first"))
		end
		local first <close> = assert(sm.snapshot.open(folder:join "first"))
		local vm <close> = assert(first:restore { paused = true })
		assert(vm:snapshot(folder:join "second"))
		local function leaves(name)
			local all = {}
			tree.each(tree.parse(scratch.read(folder:join(name) .. "/state")), function(list, i)
				if list[i].payload then all[#all + 1] = list[i] end
			end)
			return all
		end
		local one, two = leaves "first", leaves "second"
		assert.are.equal(#one, #two)
		for i, leaf in ipairs(one) do
			assert.are.equal(leaf.tag, two[i].tag)
			if not clocks[leaf.tag] then assert.is_true(leaf.payload == two[i].payload, leaf.tag) end
		end
		assert.is_true(scratch.read(folder:join "first" .. "/ram") == scratch.read(folder:join "second" .. "/ram"))
	end)
end)

if guest.arch == "x86_64" then
	describe("the CPUID of another host #kvm", function()
		it("is refused by the features that this one lacks", function()
			local folder <close> = folders.new()
			local path = folder:join "snapshot"
			do
				local vm <close> = assert(sm.vm.new {
					kernel = guest.write(folder:join "kernel", guest.spin()), memory_mib = 16,
				})
				assert(vm:snapshot(path))
			end
			local all = tree.parse(scratch.read(path .. "/state"))
			tree.each(all, function(list, i)
				if list[i].tag ~= "CPID" then return end
				local payload = list[i].payload
				-- Another host's fingerprint; and leaf 1, ECX bit 5, is Intel's VMX, leaf 0x80000001, ECX bit 2, AMD's SVM.
				payload = records.replace(payload, 1, string.pack("<I8", 0x1234))
				for at = 13, #payload, 28 do
					local leaf, _, _, _, _, ecx = string.unpack("<I4I4I4I4I4I4", payload, at)
					local bit = ({ [1] = 5, [0x80000001] = 2 })[leaf]
					if bit then payload = records.replace(payload, at + 20, string.pack("<I4", ecx | 1 << bit)) end
				end
				list[i].payload = payload
			end)
			tree.replace_state(path, tree.bytes(all))
			local snapshot <close> = assert(sm.snapshot.open(path))
			local vm, message, code = snapshot:restore()
			assert.is_nil(vm)
			assert.are.equal("EOPNOTSUPP", code, message)
			assert.is_truthy(message:find "vmx" or message:find "svm", message)
		end)
	end)
end
