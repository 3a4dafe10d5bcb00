-- Bake an image with its server running: every machine of the snapshot answers at once.
--   supermachine examples/08_service.lua oci:DIR:TAG
local sm = require "supermachine"

local image <close> = assert(sm.image.pull(arg[1] or "docker.io/library/busybox:latest"))
local snapshot <close> = assert(image:bake {
	memory_mib = 128,
	service = { "sh", "-c", "echo served from memory >/dev/shm/index.html; exec httpd -f -p 8080 -h /dev/shm" },
	ready_port = 8080, -- it listens: the snapshot is taken
})

for _ = 1, 2 do
	local vm <close> = assert(snapshot:restore())
	local stream <close> = assert(vm:connect(8080))
	assert(stream:write "GET /index.html HTTP/1.0\r\n\r\n")
	io.write(assert(stream:read "a"):match "\r\n\r\n(.*)")
end
