-- What this process and the host have of memory, in KiB.
local memory = {}

local function field(path, name)
	for line in io.lines(path) do
		local value = line:match("^" .. name .. ":%s+(%d+) kB")
		if value then return tonumber(value) end
	end
	error(path .. " has no " .. name)
end

--- { process_kib, host_kib }: Pss of this process, and what the host could still give.
function memory.now()
	collectgarbage()
	return {
		process_kib = field("/proc/self/smaps_rollup", "Pss"), host_kib = field("/proc/meminfo", "MemAvailable"),
	}
end

--- What each of `count` things has cost since memory.now() said `before`.
function memory.since(before, count)
	local now = memory.now()
	return {
		process_kib = (now.process_kib - before.process_kib) / count,
		host_kib = (before.host_kib - now.host_kib) / count,
	}
end

return memory
