--- Machines.  The userdata and its plain methods are C (src/lua/vm.c); what blocks is written here, once, over
-- operations and descriptors, so that inside sm.run the same calls yield.
local core = require "supermachine.core"
local options = require "supermachine.options"
local process = require "supermachine.process"
local scheduler = require "supermachine.scheduler"

local vm = {}
local methods = core.methods "supermachine.vm"

-- What the image says about its processes, by machine: { env = list, workdir = string, user = string }.
local defaults = setmetatable({}, { __mode = "k" })

local new_options = {
	vcpus = "integer", memory_mib = "integer", kernel = "string", initrd = "string", disks = "list",
	volume_slots = "integer", mount_slots = "integer", net = "boolean", dax_mib = "integer", cmdline = "string",
	cpu_disable = "string", transport = "string", agent = "boolean", device = "string",
}

--- A paused machine.  Options: kernel (a path; needed), initrd, vcpus = 1, memory_mib = 256, disks (a list of paths, or
-- of lists of EROFS layers), cmdline, cpu_disable ("cx16,avx2"), volume_slots, mount_slots, net, dax_mib, transport =
-- "direct" or "worker", agent = false (the guest runs the agent), device = "/dev/kvm".
function vm.new(given)
	local checked = options.check(new_options, given)
	if not checked.kernel then error("option 'kernel' is missing", 2) end
	return scheduler.finish(core.vm_begin(checked))
end

--- Remember what the image says about its processes; exec and spawn fall back to it.
function vm.set_defaults(machine, given)
	defaults[machine] = given
	return machine
end

local ready_words = "the guest's agent is not ready"

--- Wait until the agent says hello after a boot.  nil, message, code when the machine ends or timeout_ms (60000) passes;
-- the message carries the console's last line.
function methods:wait_ready(given)
	local checked = options.check({ timeout_ms = "integer" }, given)
	local fd = self:ready_fd()
	if not fd then error("the machine was made without agent = true", 2) end
	local which = scheduler.wait({ { fd, "r" }, { self:end_fd(), "r" } }, checked.timeout_ms or 60000)
	if which == 1 then return process.read_hello(self) end
	local reason, detail = self:ended()
	local text = self:console_from(0) or ""
	local last = text:match "([^\r\n]+)[\r\n]*$" or "(nothing)"
	if reason then
		return nil, ("%s: the machine ended: %s: %s; console: %s"):format(ready_words, reason, detail, last), "ECONNRESET"
	end
	return nil, ("%s: within %d ms; console: %s"):format(ready_words, checked.timeout_ms or 60000, last), "ETIMEDOUT"
end

--- Wait until the machine ends by itself.  Returns reason ("poweroff", "reset", "halt", "panic", "triple-fault",
-- "fault", "worker-died") and detail; nil, message, "ETIMEDOUT" when it goes on.
function methods:wait(given)
	local checked = options.check({ timeout_ms = "integer" }, given)
	if not scheduler.wait({ { self:end_fd(), "r" } }, checked.timeout_ms) then
		return nil, ("the machine still runs after %d ms"):format(checked.timeout_ms), "ETIMEDOUT"
	end
	return self:ended()
end

--- What the guest wrote on its console and the ring still holds.
function methods:console()
	local text, message, code = self:console_from(0)
	if not text then return nil, message, code end
	return text
end

--- Start a process; see supermachine.process for the handle.
function methods:spawn(argv, given)
	return process.spawn(self, argv, given, defaults[self])
end

--- Run a process to its end; returns { code, signal, stdout, stderr, duration_ms, max_rss_bytes }.
function methods:exec(argv, given)
	return process.exec(self, argv, given, defaults[self])
end

--- Save a paused machine as a new folder.  metadata: a table that snapshot:metadata() gives back.
-- Returns the stages' microseconds and the RAM bytes stored.
function methods:snapshot(path, metadata)
	local text = core.json_encode(metadata or {})
	return scheduler.finish(self:snapshot_begin(path, text))
end

return vm
