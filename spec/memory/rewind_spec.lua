-- The way back to the RAM file, without a machine: what was written is what is put back, wherever it lies.
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"

local MIB <const> = 1 << 20
local PAGE <const> = 4096

-- A file of `mib` MiB with a word of its own in each page.
local function ram_file(path, mib)
	local file = assert(io.open(path, "wb"))
	for page = 0, mib * MIB // PAGE - 1 do
		assert(file:write(("<I4"):pack(page), ("%07d"):format(page):rep(584), "page"))
	end
	assert(file:close())
end

local function all_of(memory)
	local parts = {}
	for _, region in ipairs(memory:regions()) do
		for at = 0, region.bytes - 1, MIB do parts[#parts + 1] = assert(memory:read(region.gpa + at, MIB)) end
	end
	return table.concat(parts)
end

local function count(set)
	local n = 0
	for _ in pairs(set) do n = n + 1 end
	return n
end

describe("RAM that goes back to its file", function()
	local folder, path
	before_each(function()
		folder = scratch.folder()
		path = folder .. "/ram"
	end)
	after_each(function() scratch.remove(folder) end)

	for _, host_page in ipairs { PAGE, 16384 } do
		it(("is what the file says after any writes (%d KiB pages)"):format(host_page // 1024), function()
			ram_file(path, 33)
			local was = scratch.read(path)
			local memory <close> = assert(core.memory({ arch = "aarch64", memory_mib = 33 }, path, host_page))
			local base = memory:regions()[1].gpa
			for seed = 1, 12 do
				math.randomseed(seed)
				local written, guest, each = {}, {}, host_page // PAGE
				for _ = 1, math.random(0, 60) do
					local at, len = math.random(0, 33 * MIB - 1), math.random(1, math.random(1, 9 * PAGE))
					len = math.min(len, 33 * MIB - at)
					assert(memory:write(base + at, ("#"):rep(len)))
					for page = at // PAGE, (at + len - 1) // PAGE do written[page] = true end
				end
				for i = 1, math.random(0, 60) do
					local page = math.random(0, 33 * MIB // host_page - 1)
					guest[i] = base + page * host_page + math.random(0, host_page - 1)
					for sub = page * each, page * each + each - 1 do written[sub] = true end
				end
				local copied = assert(memory:rewind(guest))
				assert.are.equal(count(written) * PAGE, copied, "seed " .. seed)
				assert.is_true(was == all_of(memory), "seed " .. seed)
			end
			assert.are.same({ 0, 0 }, { (memory:rewind {}), select(2, memory:rewind {}) })
		end)
	end

	it("lies in two regions, and a run in each end where the two meet", function()
		assert(io.open(path, "wb")):close()
		scratch.run(("truncate -s %d %s"):format(3074 * MIB, path))
		local memory <close> = assert(core.memory({ arch = "x86_64", memory_mib = 3074 }, path))
		local low, high = table.unpack(memory:regions())
		local last = low.gpa + low.bytes
		assert(memory:write(last - 2 * PAGE, ("x"):rep(2 * PAGE)))
		assert(memory:write(high.gpa, ("y"):rep(3 * PAGE)))
		assert(memory:write(high.gpa + high.bytes - 1, "z"))
		assert.are.equal(6 * PAGE, (memory:rewind {}))
		local zeros = ("\0"):rep(64 * PAGE)
		assert.are.equal(zeros, memory:read(last - #zeros, #zeros))
		assert.are.equal(zeros, memory:read(high.gpa, #zeros))
		assert.are.equal(zeros, memory:read(high.gpa + high.bytes - #zeros, #zeros))
	end)

	it("keeps what was copied until the next time, and of much gives the rest back", function()
		ram_file(path, 33)
		local was = scratch.read(path)
		local memory <close> = assert(core.memory({ arch = "aarch64", memory_mib = 33 }, path))
		local base = memory:regions()[1].gpa
		assert(memory:write(base, ("x"):rep(8 * PAGE)))
		assert.are.same({ 8 * PAGE, 0 }, { memory:rewind {} })
		assert(memory:write(base + 7 * PAGE, ("x"):rep(8 * PAGE)))
		assert.are.same({ 8 * PAGE, 7 * PAGE }, { memory:rewind {} })
		assert(memory:write(base, "x"))
		assert(memory:write(base + MIB, ("x"):rep(20 * MIB)))
		assert.are.same({ PAGE, 20 * MIB + 8 * PAGE }, { memory:rewind {} })
		assert.is_true(was == all_of(memory))
	end)

	it("differs in what was written to, but for what was given back after that", function()
		ram_file(path, 17)
		local memory <close> = assert(core.memory({ arch = "aarch64", memory_mib = 17 }, path))
		local base = memory:regions()[1].gpa
		local function differ()
			local found = {}
			for page = 0, 7 do
				if memory:marked(base + page * PAGE) then found[#found + 1] = page end
			end
			return found
		end
		assert(memory:write(base, ("x"):rep(3 * PAGE)))
		assert(memory:harvest { base + 4 * PAGE, base + 5 * PAGE })
		assert.are.same({ 0, 1, 2, 4, 5 }, differ())
		assert(memory:discard(base + PAGE - 1, 4 * PAGE)) -- pages 1 to 3, and parts
		assert(memory:discard(base + 5 * PAGE, PAGE))
		assert(memory:write(base + 2 * PAGE, "x"))
		assert(memory:harvest { base + 5 * PAGE })
		assert.are.same({ 0, 2, 4, 5 }, differ())
		assert(memory:rewind {})
		assert.are.same({}, differ())
	end)

	it("gives back what the guest had given back, and has written to again", function()
		ram_file(path, 33)
		local was = scratch.read(path)
		local memory <close> = assert(core.memory({ arch = "aarch64", memory_mib = 33 }, path))
		local base = memory:regions()[1].gpa
		assert(memory:write(base, ("x"):rep(4 * PAGE)))
		assert(memory:discard(base + 2 * PAGE, 8 * PAGE))
		assert(memory:write(base + 9 * PAGE, "x"))
		assert.are.same({ 2 * PAGE, 8 * PAGE }, { memory:rewind { base + 5 * PAGE } })
		assert.is_true(was == all_of(memory))
		-- That is over with.
		assert(memory:write(base + 2 * PAGE, "x"))
		assert.are.same({ PAGE, 2 * PAGE }, { memory:rewind {} })
		assert.is_true(was == all_of(memory))
	end)

	it("is refused when the file was cut, or written to, and when there is none", function()
		local function refused(pattern, code, nothing, message, name)
			assert.is_nil(nothing)
			assert.matches(pattern, message)
			assert.are.equal(code, name)
		end
		ram_file(path, 17)
		local config = { arch = "aarch64", memory_mib = 17 }
		local cut <close> = assert(core.memory(config, path))
		local written <close> = assert(core.memory(config, path))
		assert(cut:rewind {})
		local file = assert(io.open(path, "r+b"))
		assert(file:write "changed")
		assert(file:close())
		refused("RAM file 1 of 1: written to since it was mapped", "EBADMSG", written:rewind {})
		scratch.run(("truncate -s %d %s"):format(16 * MIB, path))
		refused("RAM file: 16777216 bytes, the plan has 17825792 of RAM", "EBADMSG", cut:rewind {})
		local zeros <close> = assert(core.memory(config))
		refused("has nothing to go back to", "EINVAL", zeros:rewind {})
	end)
end)
