-- A disk that outlives the machine: one machine writes, the next one finds it there.
--   supermachine examples/10_volume.lua oci:DIR:TAG
local sm = require "supermachine"

local image <close> = assert(sm.image.pull(arg[1] or "docker.io/library/busybox:latest"))
local snapshot <close> = assert(image:bake { memory_mib = 128, volume_slots = 1 })

-- Made, sparse and with ext4, where it is missing; locked while a machine has it.
local file = os.tmpname()
local volumes = { { host = file, guest = "/data", size_mib = 64 } }

for number = 1, 2 do
	local vm <close> = assert(snapshot:restore { volumes = volumes })
	local result = assert(vm:exec { "sh", "-c", "echo visit " .. number .. " >>/data/visits; cat /data/visits" })
	io.write(result.stdout)
	-- Its end is like a power cut: what is to last is synced first.
	assert(vm:command "sync")
end
os.remove(file)
