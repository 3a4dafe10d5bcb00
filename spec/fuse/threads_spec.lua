-- Many threads at once.
local build = require "spec.support.build"
local folder = require "spec.support.folder"
local scratch = require "spec.support.scratch"

describe("a FUSE server's threads", function()
	local temporary
	before_each(function()
		temporary = folder.new()
		scratch.run("mkdir " .. temporary:join "root")
	end)
	after_each(function() temporary:close() end)

	it("ask for anything, of each other's, while sessions end", function()
		for seed = 1, 3 do
			local said = scratch.run(("timeout 120 %s/spec/fuse/threads %s 6 8000 %d"):format(build.dir, temporary:join "root",
				seed))
			local stats = {}
			for key, value in said:gmatch "(%l+)=(%d+)" do stats[key] = tonumber(value) end
			assert.are.same({ 0, 0, 1, 0 }, { stats.nodes, stats.handles, stats.descriptors, stats.dax }, said)
			assert.is_true(stats.requests > 48000 and stats.evicted > 0, said)
		end
	end)
end)
