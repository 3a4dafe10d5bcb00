-- Files in, a program over them, files out.
--   supermachine examples/04_files.lua oci:DIR:TAG
local sm = require "supermachine"

local image <close> = assert(sm.image.pull(arg[1] or "docker.io/library/busybox:latest"))
local snapshot <close> = assert(image:bake { memory_mib = 128 })
local vm <close> = assert(snapshot:restore())

assert(vm:write_file("/tmp/numbers", "3\n1\n2\n"))
local result = assert(vm:exec { "sh", "-c", "sort -n /tmp/numbers >/tmp/sorted" })
assert(result.code == 0, result.stderr)
local content = assert(vm:read_file "/tmp/sorted")
io.write(content)
