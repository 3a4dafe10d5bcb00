-- Keep machines ready, and give each piece of untrusted work one of its own.
--   supermachine examples/02_pool.lua oci:DIR:TAG
local sm = require "supermachine"

local image <close> = assert(sm.image.pull(arg[1] or "docker.io/library/busybox:latest"))
local snapshot <close> = assert(image:bake { memory_mib = 128 })
local pool <close> = assert(sm.pool.new(snapshot, { min = 2, max = 4 }))

-- Tasks run side by side; the calls in them are the ordinary ones.
sm.run(function()
	for number = 1, 6 do
		sm.go(function()
			local vm <close> = assert(pool:acquire { timeout_ms = 60000 })
			local result = assert(vm:exec({ "sh", "-c", "echo $((" .. number .. " * 7))" }, { timeout_ms = 30000 }))
			print(number .. " * 7 = " .. result.stdout:gsub("\n", ""))
		end)
	end
end)
