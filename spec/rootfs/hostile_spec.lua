-- Layers that lie: each is an error that names the layer and the entry, leaves nothing, and stays small in memory.
local build = require "spec.support.build"
local scratch = require "spec.support.scratch"

describe("a hostile layer", function()
	local folder
	setup(function() folder = scratch.folder() end)
	teardown(function() scratch.remove(folder) end)

	-- Each in turn, in one process; at the end the most memory that it had.
	local CHILD = [[
local core = require "supermachine.core"
local folder = arg[1]
for name in io.lines(folder .. "/names") do
	local operation <close> = assert(core.erofs_begin(folder .. "/in/" .. name, folder .. "/out/" .. name,
		{ max_bytes = 256 << 20, max_memory_bytes = 32 << 20, max_entries = 20000 }))
	local stats, message, code = operation:finish()
	print(name .. "\t" .. (stats and "none" or code) .. "\t" .. (message or ""):gsub("[\t\n]", "?"))
end
for line in io.lines "/proc/self/status" do print((line:match "^VmHWM:%s+(%d+) kB")) end
]]

	it("is refused by name, with nothing left and within bounds", function()
		scratch.run(("cd '%s' && mkdir in out"):format(folder))
		local expected, names = {}, {}
		local listing = scratch.run(("python3 spec/fixtures/hostile/layers.py '%s/in'"):format(folder))
		for line in listing:gmatch "[^\n]+" do
			local name, code, parts = line:match "^([^\t]+)\t([^\t]+)\t?(.*)$"
			assert.is_nil(expected[name], name)
			names[#names + 1] = name
			expected[name] = { code = code, parts = {} }
			for part in parts:gmatch "[^\t]+" do table.insert(expected[name].parts, part) end
		end
		assert.is_true(#names > 100)
		scratch.write(folder .. "/names", table.concat(names, "\n") .. "\n")
		scratch.write(folder .. "/child.lua", CHILD)
		-- A sanitizer's shadow does not fit under a limit of address space.
		local sanitized = os.execute(("nm -D --undefined-only '%s/supermachine' | grep -q '__[at]san_'"):format(build.dir))
		local said = scratch.run(("%s exec '%s/supermachine' '%s/child.lua' '%s'")
			:format(sanitized and "" or "ulimit -v 450000;", build.dir, folder, folder))
		local seen, wrong, peak = 0, {}, nil
		for line in said:gmatch "[^\n]+" do
			local name, code, message = line:match "^([^\t]+)\t([^\t]+)\t(.*)$"
			if name then
				seen = seen + 1
				local fine = code == expected[name].code and message:find("layer " .. folder .. "/out/" .. name, 1, true)
				for _, part in ipairs(expected[name].parts) do fine = fine and message:find(part, 1, true) end
				if not fine then wrong[#wrong + 1] = line .. " instead of " .. expected[name].code end
			else
				peak = tonumber(line) or peak
			end
		end
		assert.are.equal("", table.concat(wrong, "\n"))
		assert.are.equal(#names, seen)
		assert.are.equal("", scratch.run(("find '%s/out' -mindepth 1"):format(folder)))
		if not sanitized then assert.is_true(peak < 220000, peak .. " KiB") end
	end)
end)
