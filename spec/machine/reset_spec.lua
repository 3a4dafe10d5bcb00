-- Back to the snapshot, in place.
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local machine_state = require "spec.support.machine_state"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local MIB <const> = 1 << 20

-- Draws a nonce, says `boot`, stops for its snapshot in a loop that prints the nonce; then writes one word to each of
-- `pages` pages, again and again, with the counter.
local function busy_guest(pages)
	local writes = {}
	for i = 1, pages do writes[i] = guest.store_word(guest.ram_base + 8 * MIB + i * 4096) end
	return guest.print "boot" .. guest.counter() .. guest.store_word(guest.scratch)
		.. guest.loop(guest.load(guest.scratch) .. guest.print_word() .. guest.counter()
			.. table.concat(writes))
end

local function console(vm, bytes)
	local text, cursor = "", 0
	while #text < bytes do
		local chunk
		chunk, cursor = assert(vm:console_from(cursor))
		text = text .. chunk
	end
	return text
end

local function saved(folder, name, pages, vcpus)
	local vm <close> = assert(sm.vm.new {
		kernel = guest.write(folder:join(name .. "-kernel"), busy_guest(pages)), memory_mib = 32, vcpus = vcpus or 2,
	})
	assert(vm:resume())
	local text = console(vm, 12)
	assert(vm:pause())
	assert(vm:snapshot(folder:join(name), {}))
	return assert(sm.snapshot.open(folder:join(name))), text:sub(5, 8)
end

for _, transport in ipairs { "direct", "worker" } do
	describe("a reset (" .. transport .. ") #kvm", function()
		it("puts RAM and state back, and the machine goes on from there", function()
			local folder <close> = folders.new()
			local snapshot <close>, nonce = saved(folder, "origin", 64)
			local vm <close> = assert(snapshot:restore { transport = transport })
			for round = 1, 5 do
				assert.is_truthy(console(vm, 16):find(nonce, 1, true))
				local result = assert(vm:reset { paused = true })
				assert.is_true(result.copied_bytes >= 64 * 4096, result.copied_bytes)
				assert.is_true(result.copied_bytes < 4 * MIB, result.copied_bytes)
				assert.are.equal("", (vm:console_from(0)))
				local path = folder:join("round" .. round)
				assert(vm:snapshot(path, {}))
				assert.is_true(scratch.read(folder:join "origin" .. "/ram") == scratch.read(path .. "/ram"), "RAM")
				assert.are.equal("", machine_state.differences(folder:join "origin", path))
				scratch.remove(path)
				assert(vm:resume())
			end
		end)

		it("ends a machine whose RAM file was written to or cut: that shows through where its guest did not write", function()
			for _, harm in ipairs { "printf x | dd conv=notrunc of=%s/ram 2>&1", "truncate -s 31M %s/ram" } do
				local folder <close> = folders.new()
				local snapshot <close> = saved(folder, "origin", 8)
				local vm <close> = assert(snapshot:restore { transport = transport })
				assert(vm:reset { paused = true })
				scratch.run(("chmod 600 %s/ram && " .. harm):format(folder:join "origin", folder:join "origin"))
				local result, message, code = vm:reset { paused = true }
				assert.is_nil(result)
				assert.matches("reset: RAM file", message)
				assert.are.equal("EBADMSG", code)
				assert.are.same({ "fault", "a reset that failed" }, { vm:ended() })
			end
		end)

		it("is refused for a machine that was booted", function()
			local folder <close> = folders.new()
			local vm <close> = assert(sm.vm.new {
				kernel = guest.write(folder:join "kernel", guest.spin()), memory_mib = 16, transport = transport,
			})
			local result, message, code = vm:reset()
			assert.is_nil(result)
			assert.matches("only one that was restored can go back", message)
			assert.are.equal("EINVAL", code)
		end)
	end)
end
