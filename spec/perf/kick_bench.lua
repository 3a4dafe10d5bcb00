-- From a driver's notification to the interrupt, of a device that does nothing: where threads of its own serve it,
-- against the loop (one hop too), and against two threads in a row, which a loop that wakes a thread would take.
local build = require "spec.support.build"

local ROUNDS <const> = 2000

return {
	tier = "direct",
	run = function(report)
		local loop, threads, two = {}, {}, {}
		for line in assert(io.popen(("%s/spec/perf/kick %d"):format(build.dir, ROUNDS))):lines() do
			local a, b, c = line:match "(%S+) (%S+) (%S+)"
			loop[#loop + 1], threads[#threads + 1], two[#two + 1] = tonumber(a), tonumber(b), tonumber(c)
		end
		assert(#threads == ROUNDS, "the program ended early")
		report { name = "virtio.kick.threads", unit = "us", samples = threads, against = "the loop", against_samples = loop }
		report {
			name = "virtio.kick.threads", unit = "us", samples = threads, against = "two threads", against_samples = two,
		}
	end,
}
