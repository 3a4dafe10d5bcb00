-- Guest RAM without a machine: where it lies, what may be reached, what is marked, what a save leaves out.
local build = require "spec.support.build"
local core = require "supermachine.core"
local lfs = require "lfs"
local scratch = require "spec.support.scratch"

local MIB = 1 << 20
local HUGE = 2 * MIB
local base = core.plan({}).ram[1].gpa -- where this host's machines have RAM

describe("guest RAM", function()
	local folder
	before_each(function() folder = scratch.folder() end)
	after_each(function() scratch.remove(folder) end)

	it("has hva = gpa modulo 2 MiB, and is neither forked nor dumped", function()
		for _, config in ipairs { { memory_mib = 17 }, { memory_mib = 3077 }, { arch = "aarch64", memory_mib = 33 } } do
			local memory <close> = assert(core.memory(config))
			local offset = 0
			for _, region in ipairs(memory:regions()) do
				assert.are.equal(region.gpa % HUGE, region.hva % HUGE)
				assert.are.equal(offset, region.file_offset)
				offset = offset + region.bytes
				local flags, inside
				for line in io.lines "/proc/self/smaps" do
					local start = line:match "^(%x+)%-%x+ "
					if start then inside = tonumber(start, 16) == region.hva end
					flags = inside and line:match "^VmFlags: (.*)" or flags
				end
				assert.is_truthy((" " .. flags .. " "):find " dc ") -- do not copy on fork
				assert.is_truthy((" " .. flags .. " "):find " dd ") -- do not dump
			end
			assert.are.equal(config.memory_mib * MIB, offset)
		end
	end)

	it("is reached within a region only", function()
		local memory <close> = assert(core.memory { arch = "x86_64", memory_mib = 3073 })
		local low, high = 0xc0000000, 1 << 32
		assert(memory:write(low - 4, "last"))
		assert(memory:write(high + MIB - 4, "LAST"))
		assert.are.equal("last", memory:read(low - 4, 4))
		assert.are.equal("LAST", memory:read(high + MIB - 4, 4))
		assert.are.equal("\0\0", memory:read(high, 2))
		for _, range in ipairs {
			{ low - 4, 5 }, { low, 1 }, { low, 0 }, { high - 1, 1 }, { high - 1, 2 }, { high + MIB, 1 }, { high + MIB - 1, 2 },
			{ -1, 1 }, { -1, 2 }, { -4096, 8192 }, { math.mininteger, 1 },
		} do
			local nothing, _, code = memory:read(range[1], range[2])
			assert.are.same({ nil, "EFAULT" }, { nothing, code })
			assert.are.equal("EFAULT", select(3, memory:zero(range[1], range[2])))
			assert.are.equal("EFAULT", select(3, memory:write(range[1], ("x"):rep(range[2]))))
		end
		assert.are.equal("EFAULT", select(3, memory:zero(0, -1)))
	end)

	-- As on Apple silicon, or an Arm kernel made for such pages.
	it("is made of whole host pages, of 16 KiB too, and given back in them", function()
		local page = 16384
		for _, arch in ipairs { "x86_64", "aarch64" } do
			for _, mib in ipairs { 16, 17, 3071, 3073, 4097 } do
				local memory <close> = assert(core.memory({ arch = arch, memory_mib = mib }, nil, page))
				for _, region in ipairs(memory:regions()) do
					assert.are.same({ 0, 0, 0 }, { region.gpa % page, region.bytes % page, region.file_offset % page })
				end
			end
		end
		local memory <close> = assert(core.memory({ memory_mib = 16 }, nil, page))
		local full = ("x"):rep(2 * page)
		local function after(from, to)
			assert(memory:write(base, full))
			assert(memory:discard(base + from, to - from))
			return memory:read(base, 2 * page)
		end
		assert.are.equal(full, after(0, 4096)) -- a guest's page alone
		assert.are.equal(full, after(4096, page + 4096))
		assert.are.equal(("\0"):rep(page) .. full:sub(page + 1), after(0, 2 * page - 4096))
		assert.are.equal(("\0"):rep(2 * page), after(0, 2 * page))
		assert.are.equal("EFAULT", select(3, memory:discard(base - 1, 2)))

		local none, message, code = core.memory({ memory_mib = 17 }, nil, 2 * MIB)
		assert.are.same({ nil, "EINVAL" }, { none, code })
		assert.matches("not made of host pages %(2097152 bytes%)", message)
	end)

	it("marks the pages that host code writes", function()
		local memory <close> = assert(core.memory { arch = "x86_64", memory_mib = 3073 })
		assert.is_false(memory:marked(0))
		memory:read(0, 4096)
		assert.is_false(memory:marked(0))
		assert(memory:write(4095, "ab"))
		assert.are.same({ true, true, false }, { memory:marked(0), memory:marked(4096), memory:marked(8192) })
		assert(memory:zero((1 << 32) + 4096, 4096))
		assert.are.same({ false, true, false },
			{ memory:marked(1 << 32), memory:marked((1 << 32) + 8191), memory:marked((1 << 32) + 8192) })
		assert.is_false(memory:marked(0xc0000000))
		assert(memory:write(64 * 4096 * 3, ("x"):rep(4096 * 130)))
		for page = 191, 323 do assert.are.equal(page >= 192 and page < 322, memory:marked(page * 4096)) end
	end)

	it("is saved with zero pages as holes, and mapped back copy on write", function()
		local path = folder .. "/ram"
		scratch.write(path, ("old"):rep(MIB))
		local config = { arch = "x86_64", memory_mib = 3074 }
		local last = (1 << 32) + 2 * MIB
		do
			local memory <close> = assert(core.memory(config))
			memory:write(8192 + 4095, "a") -- the last byte of a page
			memory:write(5 * MIB - 1, "bc")
			memory:write(last - 8, "the end.")
			memory:zero(12 * MIB, 4096) -- written, and zero
			memory:write(20 * MIB, ("x"):rep(9 * MIB)) -- more than one write takes
			assert.are.equal(4 * 4096 + 9 * MIB, assert(memory:save(path)))
		end
		assert.are.equal(3074 * MIB, lfs.attributes(path, "size"))
		assert.is_true(lfs.attributes(path, "blocks") * 512 <= 4 * 4096 + 9 * MIB + 65536)
		do
			local memory <close> = assert(core.memory(config, path))
			assert.are.equal("\0a\0", memory:read(8192 + 4094, 3))
			assert.are.equal("\0bc\0", memory:read(5 * MIB - 2, 4))
			assert.are.equal("the end.", memory:read(last - 8, 8))
			assert.are.equal(("x"):rep(9 * MIB), memory:read(20 * MIB, 9 * MIB))
			assert.are.equal(("\0"):rep(MIB), memory:read(0, 8192) .. memory:read(16384, MIB - 8192))
			memory:write(0, "changed")
		end
		local again <close> = assert(core.memory(config, path))
		assert.are.equal(("\0"):rep(7), again:read(0, 7))
	end)

	it("refuses a file that is too short or is none", function()
		local path = folder .. "/ram"
		scratch.write(path, ("x"):rep(16 * MIB - 1))
		local nothing, message, code = core.memory({ memory_mib = 16 }, path)
		assert.are.same({ nil, "EBADMSG" }, { nothing, code })
		assert.are.equal("RAM file: 16777215 bytes, the plan has 16777216 of RAM", message)
		assert.are.equal("EBADMSG", select(3, core.memory({ memory_mib = 16 }, "/dev/zero")))
		assert.are.equal("EBADMSG", select(3, core.memory({ memory_mib = 16 }, folder)))
	end)

	it("says when a disk is full", function()
		local memory <close> = assert(core.memory { memory_mib = 16 })
		assert(memory:write(base, "x"))
		local nothing, message, code = memory:save "/dev/full"
		assert.is_nil(nothing)
		assert.is_truthy(message:find "RAM file")
		assert.is_truthy(code == "EINVAL" or code == "ENOSPC")
	end)

	it("is gone when closed, and leaves nothing behind", function()
		local function mapped()
			local count = 0
			for _ in io.lines "/proc/self/maps" do count = count + 1 end
			return count
		end
		local before, descriptors = mapped(), scratch.descriptors()
		for _ = 1, 50 do
			local memory <close> = assert(core.memory { memory_mib = 4096 })
			assert(memory:write(base, "x"))
		end
		-- A sanitizer's shadow is more mappings with each.
		if not build.dir:match "/thread$" then assert.is_true(mapped() <= before + 2) end
		assert.are.equal(descriptors, scratch.descriptors())
		local memory = assert(core.memory { memory_mib = 16 })
		memory:close()
		memory:close()
		assert.has_error(function() memory:read(base, 1) end)
	end)
end)
