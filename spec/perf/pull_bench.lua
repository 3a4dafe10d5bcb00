-- From a registry on loopback to EROFS images, against what people use for it, and against the least that checking both
-- digests of each layer takes.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local registries = require "spec.support.registry"
local scratch = require "spec.support.scratch"

local mib, layers, runs = 300, 6, 3

-- Wall and CPU seconds and peak RSS in MiB of a line for sh.
local function spend(line)
	local words = scratch.run("python3 spec/perf/spend.py sh -euc " .. scratch.quote(line))
	local wall, cpu, rss = words:match "(%S+) (%S+) (%S+)$"
	return { wall = tonumber(wall), cpu = tonumber(cpu), rss = tonumber(rss) }
end

local function column(samples, key)
	local list = {}
	for i, sample in ipairs(samples) do list[i] = sample[key] end
	return list
end

return {
	tier = "direct",
	run = function(report)
		local folder <close> = folders.new()
		local registry <close> = registries.start()
		local big, ours, theirs = folder:join "big", folder:join "ours", folder:join "theirs"
		scratch.run(("python3 spec/perf/big_layout.py %s %d %d"):format(big, mib, layers))
		local name = registry.host .. "/big:latest"
		registry:push(("oci:%s:latest"):format(big), "big:latest")

		local pull = ([[rm -rf %s; %s/supermachine -e "
			local sm = require 'supermachine'
			local image = assert(sm.image.pull('http://%s', { store = '%s', rootfs = true }))
			assert(image:rootfs())"]]):format(ours, build.dir, name, ours)
		local unpack = ([[rm -rf %s; mkdir %s
			skopeo copy -q --src-tls-verify=false docker://%s oci:%s/layout:latest
			umoci unpack --image %s/layout:latest %s/bundle]]):format(theirs, theirs, name, theirs, theirs, theirs)
		local floor = ([[find %s/blobs/sha256 -size +100k |
			xargs -P "$(nproc)" -I{} sh -c 'sha256sum <{} & zcat {} | sha256sum; wait']]):format(big)
		local own, peer, least = {}, {}, {}
		for i = 1, runs do
			own[i], peer[i], least[i] = spend(pull), spend(unpack), spend(floor)
		end
		for _, key in ipairs { "wall", "cpu", "rss" } do
			local unit = key == "rss" and "MiB" or "s"
			report {
				name = "pull.convert." .. key, unit = unit, samples = column(own, key), against = "skopeo+umoci",
				against_samples = column(peer, key),
			}
			report {
				name = "pull.convert." .. key, unit = unit, samples = column(own, key), against = "zcat+sha256",
				against_samples = column(least, key),
			}
		end
	end,
}
