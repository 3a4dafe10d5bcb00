local arguments = require "supermachine.cli.arguments"
local core = require "supermachine.core"

local doctor = { usage = "doctor [--quiet] [DEVICE]", summary = "what this host's KVM is worth, and what to do" }

local types = { quiet = "flag" }

-- 1234567 as "1.2 M".
local function scaled(number)
	for _, unit in ipairs { { 1e9, " G" }, { 1e6, " M" }, { 1e3, " k" } } do
		if number >= unit[1] then return ("%.1f%s"):format(number / unit[1], unit[2]) end
	end
	return ("%d "):format(number)
end

-- The report's lines.
local function report(path, probe)
	local lines = {}
	local function line(name, format, ...) lines[#lines + 1] = ("%-14s " .. format):format(name, ...) end
	local function yes(condition, no) return condition and "yes" or no or "no" end

	line("device", "%s", path)
	line("usable", "%s", yes(probe.usable))
	if probe.usable then
		line("kernel mode", "%s instructions/s", scaled(probe.instructions_per_second))
		line("exit", "%.1f us there and back", probe.exit_us)
		line("user mode", "%s", yes(probe.user_mode, "no: system calls do not arrive in the guest's kernel"))
		line("limits", "%d vCPUs, %d bits of guest address", probe.max_vcpus, probe.gpa_bits)
	end
	local missing = {}
	for name, value in pairs(probe.capabilities) do
		if value == 0 then missing[#missing + 1] = name end
	end
	table.sort(missing)
	if #missing > 0 then line("not there", "%s", table.concat(missing, ", ")) end
	for _, reason in ipairs(probe.reasons) do line("!", "%s", reason) end
	line("Linux guests", "%s", yes(probe.fit, "cannot run here"))
	return lines
end

--- 0 when Linux guests can run here, 1 otherwise.
function doctor.main(args)
	local options, rest = arguments.parse(args, types)
	if not options then return arguments.misuse(doctor, rest) end
	if #rest > 1 then return arguments.misuse(doctor, "at most one device is expected") end
	local path = rest[1] or "/dev/kvm"
	local operation <close> = assert(core.kvm_probe_begin(path))
	local probe = operation:finish()
	if not options.quiet then print(table.concat(report(path, probe), "\n")) end
	return probe.fit and 0 or 1
end

return doctor
