-- From a snapshot to the answer of the first process, against QEMU's microvm machine restoring the same kernel and the
-- same root file system to the same answer of the same agent, over vhost-vsock: timed from migrate-incoming on a QEMU
-- that is there already (-incoming defer), its RAM in a file that is not read (x-ignore-shared).  Both guests have run
-- the process before they were saved.
--
-- QEMU's machine is left with the identity of the saved one; so is ours in the rows that end in `bare`.
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local paths = require "supermachine.paths"
local scratch = require "spec.support.scratch"

local memory_mib <const>, runs <const> = 256, 7

-- Milliseconds until the answer.
local function ours(snapshot, bare)
	local start = core.now_ms()
	local vm <close> = assert(snapshot:restore { paused = bare })
	if bare then assert(vm:resume()) end
	assert(assert(vm:exec({ "true" }, { timeout_ms = 60000 })).code == 0)
	return core.now_ms() - start
end

-- Milliseconds, a run each: until its answer, and until QEMU has resumed it.
local function theirs(folder)
	local kernel, disk = assert(paths.kernel()), {}
	for i, layer in ipairs(assert(lab.image("busybox"):rootfs())) do disk[i] = layer.path end
	assert(core.composite(disk, folder:join "disk"))
	local qemu = scratch.run "vendor/testhost/qemu x86_64"
	local text = scratch.run(("python3 spec/perf/qemu_restore.py %s %s %s %s %d %d %s %s"):format(qemu, kernel,
		assert(paths.initramfs(paths.modules(kernel))), folder:join "disk", memory_mib, runs, folder.path,
		scratch.quote(("%s supermachine.layers=%d"):format(core.plan { memory_mib = memory_mib }.cmdline, #disk))))
	local answers, resumes = {}, {}
	for answer, resume in text:gmatch "(%S+) (%S+)" do
		answers[#answers + 1], resumes[#resumes + 1] = tonumber(answer), tonumber(resume)
	end
	assert(#answers == runs)
	return answers, resumes
end

return {
	tier = "lab",
	run = function(report)
		if core.plan({}).arch ~= "x86_64" then return end
		local folder <close> = folders.new()
		local snapshot <close> = lab.snapshot { memory_mib = memory_mib, warmup = { "true" } }
		local whole, bare = {}, {}
		for i = 1, runs do whole[i], bare[i] = ours(snapshot, false), ours(snapshot, true) end
		local answers, resumes = theirs(folder)
		report { name = "restore.exec", unit = "ms", samples = whole, against = "qemu", against_samples = answers }
		report { name = "restore.exec.bare", unit = "ms", samples = bare, against = "qemu", against_samples = answers }
		report { name = "restore.resume.qemu", unit = "ms", samples = resumes }
	end,
}
