-- Run one command in a machine made from an image, and print what it says.
--   supermachine examples/01_run.lua oci:DIR:TAG [ARGV...]
local sm = require "supermachine"

local reference = arg[1] or "docker.io/library/busybox:latest"
local argv = #arg > 1 and table.move(arg, 2, #arg, 1, {}) or { "uname", "-a" }

local image <close> = assert(sm.image.pull(reference))
local snapshot <close> = assert(image:bake { memory_mib = 128 })
local vm <close> = assert(snapshot:restore())
local result = assert(vm:exec(argv, { timeout_ms = 30000 }))
io.write(result.stdout)
io.stderr:write(result.stderr)
os.exit(result.code or 128 + result.signal, true)
