-- A folder of this machine in a guest: what one writes, the other sees.  Clones of a snapshot get folders of their own.
-- Usage: supermachine examples/09_mounts.lua [REFERENCE]
local sm = require "supermachine"

local folder = assert(os.getenv "TMPDIR" or "/tmp") .. "/supermachine-mounts." .. os.time()
assert(os.execute(("mkdir -p '%s/one' '%s/two'"):format(folder, folder)))
local _ <close> = setmetatable({}, { __close = function() os.execute(("rm -rf '%s'"):format(folder)) end })

local function write(path, text)
	local file <close> = assert(io.open(folder .. path, "w"))
	assert(file:write(text))
end

local image <close> = assert(sm.image.pull(arg[1] or "docker.io/library/busybox:latest"))
-- One slot that a restore can put a folder behind: the snapshot itself knows of none.
local snapshot <close> = assert(image:bake { memory_mib = 128, mount_slots = 1 })

for _, name in ipairs { "one", "two" } do
	write(("/%s/question"):format(name), ("who is in %s?\n"):format(name))
	local vm <close> = assert(snapshot:restore { mounts = { { host = folder .. "/" .. name, guest = "/shared" } } })
	local result = assert(vm:exec { "sh", "-c", "cat /shared/question; echo a guest >/shared/answer" })
	assert(result.code == 0, result.stderr)
	local answer <close> = assert(io.open(("%s/%s/answer"):format(folder, name)))
	io.write(result.stdout, answer:read "a")
end
