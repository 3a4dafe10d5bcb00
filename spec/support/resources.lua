-- What this process has of descriptors, threads and memory.
local lfs = require "lfs"

local resources = {}

local EXITING <const> = 0x4 -- PF_EXITING, of the flags in proc_pid_stat(5)

-- One that was joined is still counted for a moment, until the kernel is through with it.
local function threads()
	local count = 0
	for id in lfs.dir "/proc/self/task" do
		local file <close> = id:match "^%d+$" and io.open("/proc/self/task/" .. id .. "/stat")
		local stat = file and file:read "a"
		-- After the name, which may hold anything: the state, five numbers, the flags.
		local flags = stat and stat:match "^.*%) %a %-?%d+ %-?%d+ %-?%d+ %-?%d+ %-?%d+ (%d+)"
		if flags and tonumber(flags) & EXITING == 0 then count = count + 1 end
	end
	assert(count > 0, "/proc/self/task: not one thread")
	return count
end

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
		threads = threads(),
		anonymous_kib = tonumber(status:match "RssAnon:%s*(%d+)"),
	}
end

return resources
