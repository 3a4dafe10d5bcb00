-- What this process has of descriptors, threads and memory.
local lfs = require "lfs"

local resources = {}

--- { descriptors, threads, anonymous_kib }, after the garbage was collected.  What is mapped from files is shared by
-- all who map it, and no leak.
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
		anonymous_kib = tonumber(status:match "RssAnon:%s*(%d+)"),
	}
end

return resources
