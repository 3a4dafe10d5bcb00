-- The file server behind a mount, with Linux's own driver on the other side: against bindfs, which is libfuse's, and
-- against the folder itself.  Each sample has a mount of its own, so nothing is known before.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local scratch = require "spec.support.scratch"

local runs = 5

return {
	tier = "direct",
	run = function(report)
		if not scratch.is_root() or not pcall(scratch.run, "exec 3<>/dev/fuse && unshare -m true") then
			io.stderr:write "bench: mounts need root and /dev/fuse: left out\n"
			return
		end
		local folder <close> = folders.new()
		local host, mount = folder:join "host", folder:join "mount"
		scratch.run(([[mkdir -p %s %s/tree && cd %s && head -c 256M /dev/zero > big &&
			for d in $(seq 40); do mkdir tree/$d; (cd tree/$d; seq 100 | xargs touch); done]]):format(mount, host, host))
		local work = scratch.run "pwd" .. "/spec/perf/mount_bench.py"
		local ways = {
			ours = ("%s/spec/fuse/kernel %s %s auto 4 python3 %s "):format(build.dir, host, mount, work) .. "%s",
			bindfs = ([[unshare -m sh -ec 'bindfs %s %s; cd %s; python3 %s %%s; cd /; umount %s']])
				:format(host, mount, mount, work, mount),
			folder = ("cd %s && python3 %s "):format(host, work) .. "%s",
		}
		for _, phase in ipairs { "walk", "small", "read", "write" } do
			local samples = { ours = {}, bindfs = {}, folder = {} }
			for i = 1, runs do
				for way, line in pairs(ways) do
					samples[way][i] = tonumber(scratch.run(line:format(phase)):match "seconds (%S+)") * 1000
				end
			end
			for _, peer in ipairs { "bindfs", "folder" } do
				report {
					name = "mount." .. phase, unit = "ms", samples = samples.ours, against = peer, against_samples = samples[peer],
				}
			end
		end
	end,
}
