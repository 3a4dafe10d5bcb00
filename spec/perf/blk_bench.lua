-- A volume read and written by a Linux guest, with O_DIRECT, one request at a time, against QEMU's virtio-blk (microvm,
-- an I/O thread, cache=writeback as ours is) with the same guest, kernel and file, in the same run: a MiB at a time in
-- sequence, 4 KiB anywhere, and 4 KiB with a flush.
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local core = require "supermachine.core"
local paths = require "supermachine.paths"
local scratch = require "spec.support.scratch"

local memory_mib <const>, runs <const> = 256, 9
local rows <const> = { "blk.read", "blk.write", "blk.read.4k", "blk.write.4k", "blk.flush" }

local function samples(text)
	local all = {}
	for name, milliseconds in text:gmatch "(%S+) (%S+)\n" do
		all[name] = all[name] or {}
		table.insert(all[name], tonumber(milliseconds))
	end
	return all
end

local function argv(device)
	return { "python3", "-c", scratch.read "spec/perf/blk_guest.py", device, tostring(runs) }
end

local function ours(volume)
	local vm <close> = assert(lab.image("python"):boot {
		memory_mib = memory_mib, volumes = { { host = volume, format = false } }, timeout_ms = 120000,
	})
	local result = assert(vm:exec(argv "/dev/vdb", { timeout_ms = 120000 }))
	assert(result.code == 0, result.stderr)
	return samples(result.stdout)
end

local function theirs(folder, volume)
	local kernel, disk, words = assert(paths.kernel()), {}, {}
	for i, layer in ipairs(assert(lab.image("python"):rootfs())) do disk[i] = layer.path end
	assert(core.composite(disk, folder:join "disk"))
	for i, word in ipairs(argv "/dev/vdb") do words[i] = scratch.quote(word) end
	return samples(scratch.run(("python3 spec/perf/qemu_blk.py %s %s %s %s %d %s %s %s %s"):format(
		scratch.run "vendor/testhost/qemu x86_64", kernel, assert(paths.initramfs(paths.modules(kernel))),
		folder:join "disk", memory_mib, volume, folder.path,
		scratch.quote(("%s supermachine.layers=%d"):format(core.plan { memory_mib = memory_mib }.cmdline, #disk)),
		table.concat(words, " "))) .. "\n")
end

return {
	tier = "lab",
	run = function(report)
		if core.plan({}).arch ~= "x86_64" then return end
		local folder <close> = folders.new()
		local volume = folder:join "volume"
		scratch.run("head -c 64M /dev/urandom >" .. volume)
		local own = ours(volume)
		local peer = theirs(folder, volume)
		for _, name in ipairs(rows) do
			assert(#own[name] == runs and #peer[name] == runs)
			report { name = name, unit = "ms", samples = own[name], against = "qemu", against_samples = peer[name] }
		end
	end,
}
