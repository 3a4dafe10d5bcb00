local core = require "supermachine.core"
local folder = require "spec.support.folder"
local lfs = require "lfs"

-- Lua's files do not tell their descriptor; /proc does.
local function descriptor_of(path)
	for name in lfs.dir "/proc/self/fd" do
		if lfs.symlinkattributes("/proc/self/fd/" .. name, "target") == path then return math.tointeger(name) end
	end
end

describe("core.poll", function()
	it("tells which descriptors are ready, by index", function()
		local temporary <close> = folder.new()
		local path = temporary:join "fifo"
		assert(os.execute(("mkfifo '%s'"):format(path)))
		local fifo <close> = assert(io.open(path, "r+"))
		local fd = assert(descriptor_of(path))
		assert.are.same({ 2 }, core.poll({ { fd, "r" }, { fd, "w" }, { fd } }, 0))
		fifo:write "x"
		fifo:flush()
		assert.are.same({ 1, 2, 3 }, core.poll({ { fd, "r" }, { fd, "rw" }, { fd } }))
	end)

	it("comes back empty when time is up", function()
		local begin = core.now_ms()
		assert.are.same({}, core.poll({}, 5.5))
		assert.is_true(core.now_ms() - begin >= 5.5)
	end)

	it("reports a descriptor that is not open, so that its user meets the error", function()
		assert.are.same({ 1 }, core.poll({ { 900000, "r" } }, 0))
	end)

	it("raises for misuse", function()
		assert.has_error(function() core.poll "x" end)
		assert.has_error(function() core.poll({ 1 }, 0) end, "entry 1: table expected, got number")
		assert.has_error(function() core.poll({ { -1 } }, 0) end)
		assert.has_error(function() core.poll({ { 1, "x" } }, 0) end, 'entry 1: events are "r", "w" or "rw"')
		assert.has_error(function() core.poll({ { 1, "" } }, 0) end)
		assert.has_error(function() core.poll({}, "soon") end)
	end)
end)

describe("core.now_ms", function()
	it("never goes back", function()
		local last = core.now_ms()
		assert.are.equal("float", math.type(last))
		for _ = 1, 1000 do
			local now = core.now_ms()
			assert.is_true(now >= last)
			last = now
		end
	end)
end)

describe("core.sha256", function()
	it("is FIPS 180-4's", function()
		assert.are.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", core.sha256 "")
		assert.are.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", core.sha256 "abc")
	end)
end)

describe("the clocks", function()
	it("counts time that passes, and apart from it what this thread has worked", function()
		local start, cpu_start = core.now_ms(), core.thread_cpu_us()
		core.poll({}, 30)
		local asleep = core.thread_cpu_us() - cpu_start
		assert.is_true(core.now_ms() - start >= 30)
		assert.is_true(asleep >= 0 and asleep < 30000, asleep)
		repeat local worked = core.thread_cpu_us() - cpu_start until worked > asleep + 1000
	end)
end)
