-- What this process has of descriptors, threads and memory.
local lfs = require "lfs"

local resources = {}

--- { descriptors, threads, rss_kib }, after the garbage was collected.
function resources.now()
	collectgarbage()
	collectgarbage()
	local descriptors = 0
	for _ in lfs.dir "/proc/self/fd" do descriptors = descriptors + 1 end
	local file <close> = assert(io.open "/proc/self/status")
	local status = file:read "a"
	return {
		descriptors = descriptors,
		threads = tonumber(status:match "Threads:%s*(%d+)"),
		rss_kib = tonumber(status:match "VmRSS:%s*(%d+)"),
	}
end

return resources
