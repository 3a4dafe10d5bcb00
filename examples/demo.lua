-- The whole walk, timed: pull, bake with a warm-up, a pool of four, Python in each at once.
-- `make demo` makes the images and runs this:  supermachine examples/demo.lua IMAGES STORE
local core = require "supermachine.core"
local sm = require "supermachine"

local images = assert(arg[1], "usage: supermachine examples/demo.lua IMAGES STORE")
local store = assert(arg[2], "usage: supermachine examples/demo.lua IMAGES STORE")

local rows = {}
local function row(stage, milliseconds, bytes) rows[#rows + 1] = { stage, milliseconds, bytes } end

-- Run fn, and add a row with its time and what `bytes` says of its first result.
local function timed(stage, fn, bytes)
	local start = core.now_ms()
	local results = table.pack(fn())
	if not results[1] then error(("%s: %s"):format(stage, results[2]), 0) end
	row(stage, core.now_ms() - start, bytes and bytes(table.unpack(results, 1, results.n)))
	return table.unpack(results, 1, results.n)
end

local function layers_bytes(layers)
	local sum = 0
	for _, layer in ipairs(layers) do sum = sum + layer.image_bytes end
	return sum
end

local function pull(name)
	return timed("pull " .. name, function()
		return sm.image.pull(("oci:%s/%s:latest"):format(images, name), { store = store })
	end, function(_, counts) return counts.fetched_bytes + counts.reused_bytes end)
end

local function bake(name, image, options)
	options.on_stage = function(stage, milliseconds, details)
		local bytes
		if stage == "rootfs" then bytes = layers_bytes(details) end
		if stage == "snapshot" then bytes = details and details.ram_bytes end
		row(("bake %s: %s"):format(name, stage), milliseconds, bytes)
	end
	local start = core.now_ms()
	local snapshot, there = assert(image:bake(options))
	row(("bake %s: %s"):format(name, there and "there already" or "whole"), core.now_ms() - start, snapshot:ram_bytes())
	return snapshot
end

do
	local image <close> = pull "busybox"
	local snapshot <close> = bake("busybox", image, { memory_mib = 128 })
	local vm <close> = timed("restore busybox", function() return snapshot:restore() end)
	local result = timed("exec busybox", function() return vm:exec({ "sh", "/etc/supermachine/check" }) end)
	assert(result.stdout:match "ok", result.stdout .. result.stderr)
end

local image <close> = pull "python"
local snapshot <close> = bake("python", image, {
	memory_mib = 256, warmup = { "python3", "-c", "import json, hashlib" },
})
local code = "import hashlib, json, os; " ..
	"print(json.dumps({'answer': 6 * 7, 'random': hashlib.sha256(os.urandom(16)).hexdigest()[:16]}))"
local pool <close> = assert(sm.pool.new(snapshot, { min = 4, max = 4 }))
local answers, acquired, start = {}, {}, core.now_ms()
sm.run(function()
	for i = 1, 4 do
		sm.go(function()
			local vm <close> = assert(pool:acquire { timeout_ms = 120000 })
			acquired[i] = core.now_ms() - start
			local result = assert(vm:exec({ "python3", "-c", code }, { timeout_ms = 120000 }))
			assert(result.code == 0, result.stderr)
			answers[i] = result.stdout:gsub("\n", "")
		end)
	end
end)
for i, answer in ipairs(answers) do print(("machine %d: %s"):format(i, answer)) end
table.sort(acquired)
row("restore four from the pool", acquired[4], 4 * snapshot:ram_bytes())
row("python in each, all answered", core.now_ms() - start)
local vm <close> = timed("acquire another", function() return pool:acquire { timeout_ms = 120000 } end)
timed("exec in it", function() return vm:exec { "true" } end)

print(("\n%-36s %12s %14s"):format("stage", "milliseconds", "bytes"))
for _, each in ipairs(rows) do
	print(("%-36s %12.1f %14s"):format(each[1], each[2], each[3] and ("%d"):format(each[3]) or ""))
end
