local mounts = require "supermachine.mounts"

--- Command lines: --key value, --key=value and flags before the first plain word; "--" ends them.
local choices = require "supermachine.options"

local arguments = {}

--- types: name -> "string", "integer", "list" (may be repeated), "flag", or a list of words of which it is one.
-- Returns options (with "_" for "-" in names) and the rest of the words; or nil and what is wrong.
function arguments.parse(args, types)
	local options, i = {}, 1
	while i <= #args do
		local word = args[i]
		if word == "--" then
			i = i + 1
			break
		end
		if word:sub(1, 1) ~= "-" or word == "-" then break end
		local name, value = word:match "^%-%-([^=]+)=(.*)$"
		name = name or word:match "^%-%-(.+)$" or word:match "^%-(.)$"
		local kind = name and types[name]
		if not kind then return nil, ("unknown option %s"):format(word) end
		local key = name:gsub("-", "_")
		if kind == "flag" then
			options[key] = true
		else
			if not value then
				i = i + 1
				value = args[i]
			end
			if not value then return nil, ("option %s needs a value"):format(word) end
			if kind == "integer" then
				value = math.tointeger(tonumber(value))
				if not value then return nil, ("option --%s: a whole number is expected"):format(name) end
			end
			if type(kind) == "table" and not choices.is_one_of(kind, value) then
				return nil, ("option --%s: %s is expected"):format(name, choices.shown(kind))
			end
			if kind == "list" then
				options[key] = options[key] or {}
				table.insert(options[key], value)
			else
				options[key] = value
			end
		end
		i = i + 1
	end
	return options, table.move(args, i, #args, 1, {})
end

--- Print what is wrong and the usage; returns the exit code for it.
function arguments.misuse(command, message)
	io.stderr:write(("supermachine: %s\nusage: supermachine %s\n"):format(message, command.usage))
	return 64
end

--- Print a failure; returns the exit code for it.
function arguments.failed(message)
	io.stderr:write(("supermachine: %s\n"):format(message))
	return 125
end

--- Tables of types in one.
function arguments.join(...)
	local types = {}
	for _, more in ipairs { ... } do
		for name, kind in pairs(more) do types[name] = kind end
	end
	return types
end

--- The option 'mounts' from -v HOST:GUEST[:ro] words (nil: none); or nil and what is wrong.
function arguments.mounts(words)
	local list = words and {}
	for i, word in ipairs(words or {}) do
		local mode
		local host, guest = word:match "^(.+):(/[^:]*)$"
		if not host then host, guest, mode = word:match "^(.+):(/[^:]*):(%a+)$" end
		if not host or mode and mode ~= "ro" and mode ~= "rw" then
			return nil, "option -v: HOST:GUEST or HOST:GUEST:ro is expected"
		end
		list[i] = { host = host, guest = guest, readonly = mode == "ro" }
	end
	local fine, wrong = pcall(mounts.check, list, false, -2)
	if not fine then return nil, (tostring(wrong):gsub("^option 'mounts'%[%d+%]", "option -v")) end
	return list
end

--- The options of every command that makes machines.
arguments.machine_types = {
	memory = "integer", vcpus = "integer", kernel = "string", cmdline = "string", verbose = "flag", emulator = "string",
}

--- image:bake's options from the command line's.
function arguments.bake_options(options)
	return {
		memory_mib = options.memory, vcpus = options.vcpus, kernel = options.kernel, cmdline = options.cmdline,
		emulator = options.emulator,
		on_stage = options.verbose and function(name, milliseconds)
			io.stderr:write(("%-10s %8.1f ms\n"):format(name, milliseconds))
		end or nil,
	}
end

return arguments
