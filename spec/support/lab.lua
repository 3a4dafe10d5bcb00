-- Images, a store and baked snapshots that the specs with Linux guests share within one run of the suite.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local sm = require "supermachine"

local lab = {}

-- Gone with the process's Lua state.
local store = setmetatable({ folder = folders.new() }, { __gc = function(self) self.folder:close() end })

function lab.store() return store.folder.path end

-- "busybox" or "python", made by vendor/images/make.
function lab.reference(name) return ("oci:%s/images/%s:latest"):format(build.dir, name) end

local images = {}
function lab.image(name)
	images[name] = images[name] or assert(sm.image.pull(lab.reference(name), { store = lab.store() }))
	return images[name]
end

-- A baked snapshot of busybox, once for each set of options.
function lab.snapshot(options)
	return assert(lab.image("busybox"):bake(options or { memory_mib = 128 }))
end

-- Run argv; the trimmed standard output of a success, an error otherwise.
function lab.output(vm, argv, options)
	options = options or {}
	options.timeout_ms = options.timeout_ms or 60000
	local result = assert(vm:exec(argv, options))
	if result.code ~= 0 then
		error(("%s: code %s, signal %s: %s"):format(table.concat(argv, " "), tostring(result.code),
			tostring(result.signal), result.stderr), 2)
	end
	return (result.stdout:gsub("%s+$", ""))
end

function lab.shell(vm, script, options) return lab.output(vm, { "sh", "-c", script }, options) end

return lab
