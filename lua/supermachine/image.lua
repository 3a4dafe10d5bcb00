--- Images: pulled, turned into a root file system, booted and baked into a snapshot.
local core = require "supermachine.core"
local foreign = require "supermachine.foreign"
local mounts = require "supermachine.mounts"
local options = require "supermachine.options"
local paths = require "supermachine.paths"
local scheduler = require "supermachine.scheduler"
local service = require "supermachine.service"
local snapshot = require "supermachine.snapshot"
local vm = require "supermachine.vm"
local volumes = require "supermachine.volumes"

local image = {}
local methods = core.methods "supermachine.image"

local pull_options = {
	store = "string", platform = "string", policy = "string", insecure = "boolean", ca_file = "string",
	username = "string", password = "string", config = "string", blob_max_bytes = "integer", parallel = "integer",
	retries = "integer", stall_ms = "integer", rootfs = "boolean", timeout_ms = "integer", on_progress = "function",
}

--- Fetch an image into the store and check every byte of it.  reference: "nginx:1.27", "http://host:port/name:tag",
-- "oci:DIR[:TAG]", "oci-archive:FILE[:TAG]", "docker-archive:FILE[:NAME[:TAG]]", "dir:PATH".  Returns the image and
-- what was fetched: { fetched_bytes, fetched_layers, reused_bytes, reused_layers, resumed_bytes, retries }.
-- rootfs = true does the work of image:rootfs() too, while the layers come in.
-- on_progress(event) hears of each layer: { index, digest, state, done, total }, state being "waiting" (another process
-- fetches it), "fetching", "retrying", or, at its end, "done", "reused" or "failed"; ten times a second at most, and of
-- each layer the latest.
function image.pull(reference, given)
	local checked = options.check(pull_options, given)
	local timeout_ms, on_progress = checked.timeout_ms, checked.on_progress
	checked.timeout_ms, checked.on_progress = nil, nil
	if on_progress then
		return scheduler.follow(on_progress, timeout_ms, core.image_pull_begin(reference, checked))
	end
	return scheduler.finish(core.image_pull_begin(reference, checked), timeout_ms)
end

--- Every layer as an EROFS file, made once and shared by all images with that layer.  Returns a list, lowest first, of
-- { path, image_bytes, reused }.  Option: threads (layers at a time; default one a processor).
function methods:rootfs(given)
	return scheduler.finish(core.image_rootfs_begin(self, options.check({ threads = "integer" }, given)))
end

local boot_options = {
	vcpus = "integer", memory_mib = "integer", kernel = "string", modules = "string", cmdline = "string",
	cpu_disable = "string", volume_slots = "integer", mount_slots = "integer", net = "boolean", dax_mib = "integer",
	transport = "string", device = "string", timeout_ms = "integer", on_stage = "function", on_restore = "list",
	mounts = "list", volumes = "list", emulator = "string",
}
local machine_keys = {
	"vcpus", "memory_mib", "cmdline", "cpu_disable", "volume_slots", "mount_slots", "net", "dax_mib", "transport",
	"device", "mounts", "volumes",
}

-- What exec falls back to.
local function process_defaults(self)
	local process = self:process()
	return {
		env = process.env, workdir = process.workdir, user = process.user, entrypoint = process.entrypoint,
		cmd = process.cmd, stop_signal = process.stop_signal,
	}
end

-- Time stages for on_stage(name, milliseconds, details).
local function stopwatch(on_stage)
	local start = core.now_ms()
	return function(name, details)
		local now = core.now_ms()
		if on_stage then on_stage(name, now - start, details) end
		start = core.now_ms()
	end
end

-- Kernel, initramfs and disks: what a boot needs besides the options, or nil and the failure.  An image of another
-- architecture also has the emulator among its mounts.
local function boot_inputs(self, checked)
	local kernel, message, code = paths.kernel(checked.kernel)
	if not kernel then return nil, message, code end
	local emulator
	emulator, message, code = foreign.emulator(self:platform(), checked.emulator)
	if emulator == false then return nil, message, code end
	if emulator then
		checked.mounts = table.move(checked.mounts or {}, 1, #(checked.mounts or {}), 1, {})
		table.insert(checked.mounts, emulator.mount)
	end
	local initrd
	initrd, message, code = paths.initramfs(checked.modules or paths.modules(kernel))
	if not initrd then return nil, message, code end
	local layers
	layers, message, code = self:rootfs()
	if not layers then return nil, message, code end
	local disk = {}
	for i, layer in ipairs(layers) do disk[i] = layer.path end
	return {
		kernel = kernel, initrd = initrd, disk = disk, layers = layers, emulator = emulator and emulator.mount.host,
		interpreter = emulator and emulator.entry,
	}
end

local function boot(self, checked, inputs, lap)
	local request = options.pick(checked, machine_keys)
	request.kernel, request.initrd, request.disks, request.agent = inputs.kernel, inputs.initrd, { inputs.disk }, true
	-- A guest that does not see its layers must not start without them.
	request.cmdline = ("supermachine.layers=%d %s"):format(#inputs.disk, checked.cmdline or "")
	local machine, message, code = vm.new(request)
	if not machine then return nil, message, code end
	lap("build", machine:timings())
	local ok
	ok, message, code = machine:resume()
	if ok then ok, message, code = machine:wait_ready { timeout_ms = checked.timeout_ms } end
	if ok then lap "boot" end
	if ok and checked.mounts then
		ok, message, code = scheduler.finish(machine:mounts_tell_begin(checked.timeout_ms or 60000))
		if ok then lap "mounts" end
	end
	if ok and checked.volumes then
		ok, message, code = scheduler.finish(machine:volumes_mount_begin {
			volumes = volumes.check(checked.volumes), timeout_ms = checked.timeout_ms or 60000,
		})
		if ok then lap "volumes" end
	end
	if ok and inputs.interpreter then
		ok, message, code = scheduler.finish(machine:interpreter_begin(inputs.interpreter))
	end
	if not ok then
		machine:close()
		return nil, message, code
	end
	return vm.set_origin(machine, {
		agent = true, image = self:digest(), reference = self:reference(), process = process_defaults(self),
		kernel = inputs.kernel_digest,
		on_restore = checked.on_restore,
	})
end

--- A machine booted from the image, with the agent ready: no snapshot.  Options as for vm.new (kernel, vcpus,
-- memory_mib, cmdline, transport, ...), modules (a folder of .ko files and modules.order; by default the one beside the
-- kernel, if there is one), timeout_ms = 60000 for the boot, on_stage(name, milliseconds, details), on_restore: argv of
-- what the agent runs, as the image's user, in each clone of a snapshot of this one before anybody gets it,
-- with the machine's ID as SUPERMACHINE_ID; unless it ends with code 0, the restore fails.  emulator: a path, of the
-- static program that runs those of an image of another architecture; default that of qemu-user-static.
function methods:boot(given)
	local checked = options.check(boot_options, given)
	if checked.on_restore then options.argv(checked.on_restore) end
	mounts.check(checked.mounts, true)
	volumes.check(checked.volumes)
	if mounts.dax_off() then checked.dax_mib = 0 end
	local lap = stopwatch(checked.on_stage)
	local inputs, message, code = boot_inputs(self, checked)
	if not inputs then return nil, message, code end
	lap("rootfs", inputs.layers)
	return boot(self, checked, inputs, lap)
end

-- The name of a bake: a hash of everything that goes into it.
local function bake_key(self, checked, inputs)
	local parts = { "bake 4", core.version, self:digest(), self:platform() }
	for _, path in ipairs { inputs.kernel, inputs.initrd, inputs.emulator } do
		local digest, message, code = core.sha256_file(path)
		if not digest then return nil, message, code end
		parts[#parts + 1] = digest
		if path == inputs.kernel then inputs.kernel_digest = "sha256:" .. digest end
	end
	for _, path in ipairs(inputs.disk) do parts[#parts + 1] = path end
	for _, key in ipairs(machine_keys) do
		if key ~= "transport" and key ~= "device" and key ~= "mounts" and key ~= "volumes" then
			parts[#parts + 1] = ("%s=%s"):format(key, tostring(checked[key]))
		end
	end
	for _, key in ipairs(service.triggers) do
		if checked[key] then parts[#parts + 1] = ("%s %s"):format(key, checked[key]) end
	end
	local words, message, code = mounts.words(checked.mounts)
	if not words then return nil, message, code end
	table.move(words, 1, #words, #parts + 1, parts)
	if checked.volumes then
		words, message, code = scheduler.finish(core.volumes_stamp_begin { volumes = volumes.check(checked.volumes) })
		if not words then return nil, message, code end
		for i, word in ipairs(words) do parts[#parts + 1] = ("volume %d %d %s"):format(i, #word, word) end
	end
	parts[#parts + 1] = checked.drop_caches
	for _, key in ipairs { "service", "warmup", "on_restore" } do
		for _, word in ipairs(checked[key] or {}) do parts[#parts + 1] = ("%s %d %s"):format(key, #word, word) end
	end
	return core.sha256(table.concat(parts, "\n"))
end

local function warm(machine, argv, timeout_ms)
	local result, message, code = machine:exec(argv, { timeout_ms = timeout_ms })
	if not result then return nil, "warm-up: " .. message, code end
	if result.code ~= 0 then
		return nil, ("warm-up %s: ended with %s: %s"):format(argv[1],
			result.signal and "signal " .. result.signal or "code " .. tostring(result.code),
			result.stderr:sub(-400)), "ECHILD"
	end
	return true
end

-- The service that is to run in the snapshot: a handle; nil: there is none; or nil, message, code.
local function start_service(self, machine, checked, timeout_ms)
	local trigger = service.check(checked)
	if not trigger then return nil end
	local argv = checked.service or service.command(self)
	return service.start(machine, argv, trigger, checked[trigger], timeout_ms)
end

local function bake(self, checked, inputs, path, lap)
	local machine <close>, message, code = boot(self, checked, inputs, lap)
	if not machine then return nil, message, code end
	local ok
	local timeout_ms = checked.timeout_ms or 60000
	if checked.drop_caches == "boot" then
		ok, message, code = machine:command("drop_caches", { timeout_ms = timeout_ms })
		if not ok then return nil, message, code end
	end
	local process <close>, why, name = start_service(self, machine, checked, timeout_ms)
	if process == nil and why then return nil, why, name end
	if process then lap "service" end
	if checked.warmup then
		ok, message, code = warm(machine, checked.warmup, timeout_ms)
		if not ok then return nil, message, code end
		lap "warmup"
	end
	if checked.drop_caches ~= "none" then
		ok, message, code = machine:trim { timeout_ms = timeout_ms, drop_caches = checked.drop_caches == "all" }
		if not ok then return nil, "give free memory back: " .. message, code end
		lap("trim", ok)
	end
	-- What the guest has yet to write to a host folder every clone would write, into what others have made of it since.
	if checked.mounts then
		ok, message, code = machine:command("sync", { timeout_ms = timeout_ms })
		if not ok then return nil, "write to the mounts: " .. message, code end
	end
	if process then
		local result = process:wait { timeout_ms = 0 }
		if result then return nil, service.ended(result), "ECHILD" end
	end
	ok, message, code = machine:pause()
	if not ok then return nil, message, code end
	local times
	times, message, code = machine:snapshot(path)
	-- Somebody else who baked the same finished first: theirs is as good.
	if not times and code ~= "EEXIST" and code ~= "ENOTEMPTY" then return nil, message, code end
	lap("snapshot", times)
	return true
end

--- Boot, wait for the agent, start the service, run the warm-up, snapshot.  Returns the snapshot and whether it was
-- there already: the same inputs are baked once.  Options as for image:boot, and
--   ready_port = 8080, ready_console = "text", ready_stdout = "text" or ready_ms = 500: a service is started; when it
--     listens on that TCP port, when that text is on the console or in its standard output, or when it has run for so
--     long, the rest follows, and it goes on in every machine of the snapshot.  The bake fails when it ends before, or
--     is not ready in timeout_ms.
--   service: its argv; by default the image's own command
--   warmup: argv that must end with code 0
--   drop_caches = "boot": what the boot has cached goes before service and warm-up, whose files stay; "all": those go
--     too, clones read them from disk; "none".  Unless "none", free memory is given back, too: holes in the snapshot
function methods:bake(given)
	local types = { warmup = "list", drop_caches = options.cache_policies }
	for key, value in pairs(boot_options) do types[key] = value end
	for key, value in pairs(service.options) do types[key] = value end
	local checked = options.check(types, given)
	checked.drop_caches = checked.drop_caches or "boot"
	if service.check(checked) and not checked.service and #service.command(self) == 0 then
		error("option 'service': the image names no command", 2)
	end
	mounts.check(checked.mounts, true)
	volumes.check(checked.volumes)
	if mounts.dax_off() then checked.dax_mib = 0 end
	if checked.volumes then checked.volumes = volumes.overlaid(checked.volumes) end
	if checked.warmup then options.argv(checked.warmup) end
	if checked.on_restore then options.argv(checked.on_restore) end
	local lap = stopwatch(checked.on_stage)

	local inputs, message, code = boot_inputs(self, checked)
	if not inputs then return nil, "baking " .. self:reference() .. ": " .. message, code end
	lap("rootfs", inputs.layers)
	local key
	key, message, code = bake_key(self, checked, inputs)
	if not key then return nil, message, code end
	local folder = self:store() .. "/snapshots"
	local path = folder .. "/" .. key

	local found = snapshot.open(path)
	if found then return found, true end
	-- Absent, or damaged: damaged ones are made anew.
	local ok
	ok, message, code = core.remove_tree(path)
	if ok then ok, message, code = core.make_dirs(folder) end
	if ok then ok, message, code = bake(self, checked, inputs, path, lap) end
	if not ok then return nil, "baking " .. self:reference() .. ": " .. message, code end
	local opened
	opened, message, code = snapshot.open(path)
	if not opened then return nil, message, code end
	return opened, false
end

return image
