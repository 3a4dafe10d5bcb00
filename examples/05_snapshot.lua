-- Save a running machine with what is in its memory, and go on from there as often as you like.
--   supermachine examples/05_snapshot.lua oci:DIR:TAG
local sm = require "supermachine"

local image <close> = assert(sm.image.pull(arg[1] or "docker.io/library/busybox:latest"))
local folder = os.tmpname()
os.remove(folder)

do
	local vm <close> = assert(image:boot { memory_mib = 128 })
	assert(vm:exec { "sh", "-c", "echo remembered >/dev/shm/note" })
	local times = assert(vm:snapshot(folder)) -- it runs on
	print(("stood still for %.1f ms"):format(times.pause_us / 1000))
end

local snapshot <close> = assert(sm.snapshot.open(folder))
local vm <close> = assert(snapshot:restore())
io.write(assert(vm:exec { "cat", "/dev/shm/note" }).stdout)
-- Many at once: all of them, or none.
for _, one in ipairs(assert(snapshot:restore_many(2))) do
	io.write(assert(one:exec { "cat", "/dev/shm/note" }).stdout)
	one:close()
end
assert(require("supermachine.core").remove_tree(folder))
