-- Talk to a process while it runs: lines out as they come, input in, a signal, its end.
--   supermachine examples/03_stream.lua oci:DIR:TAG
local sm = require "supermachine"

local image <close> = assert(sm.image.pull(arg[1] or "docker.io/library/busybox:latest"))
local snapshot <close> = assert(image:bake { memory_mib = 128 })
local vm <close> = assert(snapshot:restore())

local script = "while read line; do echo \"got $line\"; done; echo bye; sleep 100"
local process <close> = assert(vm:spawn { "sh", "-c", script })
assert(process:write "one\ntwo\n")
print(process:read "l")
print(process:read "l")
assert(process:close_stdin())
print(process:read "l")
assert(process:signal "TERM")
local result = assert(process:wait { timeout_ms = 30000 })
print("ended by signal " .. result.signal)
