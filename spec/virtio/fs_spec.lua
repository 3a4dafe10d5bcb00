-- The file system device over plain memory: the specs play the guest's driver, and speak FUSE through its rings.
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local fs = require "spec.support.virtio_fs"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"
local virtio = require "spec.support.virtio_driver"

local MIB <const> = 1 << 20
local WINDOW <const> = 8 << 30
local HIPRIO <const>, REQUEST <const> = fs.HIPRIO, fs.REQUEST
local session_over, started = fs.session, fs.start

describe("the file system device", function()
	local folder
	before_each(function()
		folder = folders.new()
		folder:write("hello", "from the host")
	end)
	after_each(function() folder:close() end)

	it("says who it is", function()
		for _, tag in ipairs { "src", ("t"):rep(36) } do
			local device <close> = assert(core.virtio_device("fs", { host = folder.path, tag = tag }))
			local driver = virtio.new(device)
			assert.are.equal(26, driver:get "device_id")
			local config = {}
			for i = 0, 39 do config[i + 1] = string.char(device:mmio_read(virtio.REG.config + i, 1)) end
			assert.are.equal(string.pack("<c36I4", tag, 1), table.concat(config))
		end
		for _, tag in ipairs { "", ("t"):rep(37) } do
			local none, message, code = core.virtio_device("fs", { host = folder.path, tag = tag })
			assert.is_nil(none)
			assert.matches("1 to 36 bytes", message)
			assert.are.equal("EINVAL", code)
		end
	end)

	it("serves a session, and marks what it writes, no more", function()
		local device <close>, driver, session = started { host = folder.path }
		assert(session:init())
		assert.are.equal("from the host", session:content(1, "hello"))
		local new = assert(session:create(1, "new", fuse.O.RDWR, 420))
		assert.are.equal(5, session:write(new.node, new.fh, 0, "guest"))
		assert.are.equal("guest", scratch.read(folder:join "new"))
		local at = driver:alloc(64 << 10, 4096)
		local request = fuse.request("READ", new.node, ("<I8I8I4I4I8I4I4"):pack(new.fh, 0, 60000, 0, 0, 0, 0))
		local head = driver:alloc(#request)
		device:write(head, request)
		driver.queues[REQUEST]:add {
			{ gpa = head, len = #request }, { gpa = at, len = 16, write = true }, { gpa = at + 4096, len = 60000, write = true },
		}
		driver.queues[REQUEST]:kick()
		local parts, written = driver.queues[REQUEST]:pop()
		assert.are.equal(16 + 5, written)
		assert.are.equal("guest", driver.queues[REQUEST]:data(parts, written):sub(17))
		assert.is_true(device:marked(at) and device:marked(at + 4096))
		assert.is_false(device:marked(at + 8192))
		local stats = device:stats()
		assert.are.equal(0, stats.errors)
		assert.is_true(stats.requests > 5 and stats.bytes > 100)
	end)

	it("takes what has no reply on the queue for it", function()
		local _ <close>, driver, session = started { host = folder.path }
		assert(session:init())
		local entry = assert(session:lookup(1, "hello"))
		local text, written = driver.queues[HIPRIO]:call { fuse.request("FORGET", entry.node, ("<I8"):pack(1)) }
		assert.are.same({ "", 0 }, { text, written })
		assert.are.same({ nil, "ESTALE" }, { session:getattr(entry.node) })
	end)

	it("is read-only where it is said to be", function()
		local _ <close>, _, session = started { host = folder.path, readonly = true }
		assert(session:init())
		assert.are.same({ nil, "EROFS" }, { session:create(1, "new", fuse.O.RDWR, 420) })
		assert.are.same({ nil, "EROFS" }, { session:unlink(1, "hello") })
	end)

	it("has nothing to give until it is backed, and again once it was forgotten", function()
		local device <close>, driver, session = started {}
		local function unbacked()
			assert.are.same({ nil, "-19" }, { session:init() }) -- ENODEV
			local text, written = driver.queues[HIPRIO]:call { fuse.request("FORGET", 2, ("<I8"):pack(1)) }
			assert.are.same({ "", 0 }, { text, written })
			assert.is_false(driver:needs_reset())
		end
		unbacked()
		assert(device:back(folder.path))
		assert(session:init())
		assert.are.equal("from the host", session:content(1, "hello"))
		assert.are.equal("EBUSY", select(3, device:back(folder.path)))
		device:pause()
		device:forget()
		device:resume()
		driver = virtio.start(device, 2)
		session = session_over(driver)
		unbacked()
		assert(device:back(folder.path))
		assert(session:init())
		local other <close> = assert(core.virtio_device("rng", {}))
		assert.are.equal("EOPNOTSUPP", select(3, other:back(folder.path)))
	end)

	it("forgets a session with its driver", function()
		local device <close>, _, session = started { host = folder.path }
		assert(session:init())
		local entry = assert(session:lookup(1, "hello"))
		session = session_over(virtio.start(device, 2))
		assert.are.same({ nil, "EPROTO" }, { session:getattr(entry.node) })
		assert(session:init())
		assert.are.equal("from the host", session:content(1, "hello"))
	end)

	it("keeps a session in its state", function()
		local device <close>, driver, session = started { host = folder.path }
		assert(session:init())
		local entry = assert(session:lookup(1, "hello"))
		local fh = assert(session:open(entry.node, fuse.O.RDWR))
		device:pause()
		local state, memory = assert(device:save()), device:read(0, driver.next_gpa)
		device:resume()
		local twin <close> = assert(core.virtio_device("fs", { host = folder.path }))
		twin:write(0, memory)
		twin:pause()
		assert(twin:load(state))
		twin:restored()
		twin:resume()
		session = session_over(driver:move(twin))
		assert.are.equal("from the host", session:read(entry.node, fh, 0, 100))
		assert.are.equal(4, session:write(entry.node, fh, 0, "twin"))
		assert.are.equal("twin the host", scratch.read(folder:join "hello"))
		for options, words in pairs {
			[{ host = folder.path, tag = "other" }] = "mount other: saved as mount0",
			[{}] = "saved with a folder, and there is none",
		} do
			local wrong <close> = assert(core.virtio_device("fs", options))
			wrong:pause()
			local fine, message, code = wrong:load(state)
			wrong:resume()
			assert.is_nil(fine)
			assert.matches(words, message, 1, true)
			assert.are.equal("EBADMSG", code)
		end
		for at = 1, #state, 7 do
			local wrong <close> = assert(core.virtio_device("fs", { host = folder.path }))
			wrong:pause()
			assert.is_nil((wrong:load(state:sub(1, at - 1))))
			wrong:resume()
		end
	end)
end)

describe("a lock that the host holds", function()
	local folder, path
	before_each(function()
		folder = folders.new()
		path = folder:write("data", "locked")
	end)
	after_each(function() folder:close() end)

	local function hold()
		local held = folder:join "held"
		os.remove(held)
		local holder = assert(io.popen(("flock %s sh -c 'touch %s; cat >/dev/null'"):format(path, held), "w"))
		while not io.open(held) do end
		return holder
	end
	local function free() return scratch.run(("flock -n %s echo yes || echo no"):format(path)) == "yes" end

	-- A session with the file open, and a request for its lock that is not answered yet.
	local function waiting()
		local device, driver, session = started { host = folder.path, locks = true }
		assert(session:init())
		local entry = assert(session:lookup(1, "data"))
		local fh = assert(session:open(entry.node, fuse.O.RDWR))
		driver.queues[HIPRIO]:push {
			fuse.request("SETLKW", entry.node, ("<I8I8I8I8I4I4I4I4"):pack(fh, 5, 0, math.maxinteger, 1, 99, 1, 0)), 64,
		}
		driver.queues[HIPRIO]:kick()
		-- Others are served meanwhile.
		for _ = 1, 10 do assert.are.equal("locked", session:content(1, "data")) end
		assert.is_nil((driver.queues[HIPRIO]:poll()))
		return device, driver
	end
	local function granted(driver)
		local parts, written = driver.queues[HIPRIO]:pop()
		assert(fuse.reply(driver.queues[HIPRIO]:data(parts, written)))
		assert.is_false(free())
		assert.is_false(driver:needs_reset())
	end

	it("is waited for, and given when it is free", function()
		local holder = hold()
		local device <close>, driver = waiting()
		holder:close()
		granted(driver)
		assert.are.equal(0, device:stats().errors)
	end)

	it("is waited for through a pause, and in the state that was saved then", function()
		local holder = hold()
		local device, driver = waiting()
		device:pause()
		local state, memory = assert(device:save()), device:read(0, driver.next_gpa)
		holder:close()
		assert.is_nil((driver.queues[HIPRIO]:poll()))
		holder = hold()
		device:resume()
		local twin <close> = assert(core.virtio_device("fs", { host = folder.path, locks = true }))
		twin:write(0, memory)
		twin:pause()
		assert(twin:load(state))
		twin:restored()
		twin:resume()
		local other = driver:move(twin)
		assert.is_nil((other.queues[HIPRIO]:poll()))
		device:close()
		holder:close()
		granted(other)
	end)

	it("is forgotten with the driver who asked for it, and with the device", function()
		local holder = hold()
		local device <close>, driver = waiting()
		local session = session_over(virtio.start(device, 2))
		assert(session:init())
		holder:close()
		assert.is_true(free())
		assert.is_nil((driver.queues[HIPRIO]:poll()))
		holder = hold()
		local last = waiting()
		last:close()
		holder:close()
		assert.is_true(free())
	end)

	it("is not in the state when its ring is gone", function()
		local holder = hold()
		local device <close>, driver = waiting()
		driver:set("queue_sel", HIPRIO)
		driver:set("queue_ready", 0)
		device:pause()
		local state = assert(device:save())
		device:resume()
		local twin <close> = assert(core.virtio_device("fs", { host = folder.path, locks = true }))
		twin:pause()
		assert(twin:load(state))
		twin:resume()
		holder:close()
		-- Nor is it completed anywhere.
		local session = session_over(driver)
		for _ = 1, 10 do assert.are.equal("locked", session:content(1, "data")) end
		assert.is_false(driver:needs_reset())
	end)

	it("is not asked for on the word of a state whose ring has no such request", function()
		local holder = hold()
		local device <close>, driver = waiting()
		device:pause()
		local state, memory = assert(device:save()), device:read(0, driver.next_gpa)
		device:resume()
		holder:close()
		local queue = driver.queues[HIPRIO]
		for _, descriptor in ipairs { ("<I8I4I2I2"):pack(1 << 40, 16, 0, 0), ("<I8I4I2I2"):pack(0, 16, 1, 0xffff) } do
			local twin <close> = assert(core.virtio_device("fs", { host = folder.path, locks = true }))
			twin:write(0, memory)
			for i = 0, 63 do twin:write(queue.desc + 16 * i, descriptor) end
			twin:pause()
			local fine, message, code = twin:load(state)
			twin:resume()
			assert.is_nil(fine)
			assert.matches("requests that wait: not in the ring", message)
			assert.are.equal("EBADMSG", code)
		end
	end)
end)

describe("the file system device, against its guest", function()
	local folder
	before_each(function()
		folder = folders.new()
		folder:write("hello", "from the host")
	end)
	after_each(function() folder:close() end)

	local function broken(make)
		for _, queue in ipairs { HIPRIO, REQUEST } do
			local device <close>, driver = started { host = folder.path }
			make(device, driver, driver.queues[queue])
			driver.queues[queue]:kick()
			driver:wait_needs_reset()
			-- A driver that begins anew is served.
			local session = session_over(virtio.start(device, 2))
			assert(session:init())
			assert.are.equal("from the host", session:content(1, "hello"))
		end
	end

	it("takes no chain that loops, or leads nowhere", function()
		broken(function(_, _, queue)
			queue:write_desc(0, 0x100000, 40, virtio.NEXT, 1)
			queue:write_desc(1, 0x100000, 40, virtio.NEXT, 0)
			queue:offer(0)
		end)
		for _, gpa in ipairs { 16 * MIB, 16 * MIB - 39, -1, WINDOW, math.mininteger } do
			broken(function(_, _, queue)
				queue:write_desc(0, gpa, 40, 0)
				queue:offer(0)
			end)
		end
		broken(function(_, _, queue) queue:offer(64) end)
		broken(function(_, _, queue)
			queue:write_desc(0, 0x100000, 16, virtio.WRITE | virtio.NEXT, 1)
			queue:write_desc(1, 0x100000, 40, 0)
			queue:offer(0)
		end)
	end)

	it("takes no request without a header", function()
		broken(function(_, _, queue) queue:push { "short" } end)
		broken(function(_, _, queue) queue:push { "short", 64 } end)
		broken(function(_, _, queue) queue:push { 4096 } end)
	end)

	it("says nothing where there is no room, and lives", function()
		for _, host in ipairs { folder.path, false } do
			local _ <close>, driver, session = started { host = host or nil }
			for room = 1, 15 do
				local text, written = driver.queues[REQUEST]:call { fuse.request("INIT", 0, ("\0"):rep(64)), room }
				assert.are.same({ "", 0 }, { text, written })
			end
			local text, written = driver.queues[REQUEST]:call { fuse.request("INIT", 0, ("\0"):rep(64)) }
			assert.are.same({ "", 0 }, { text, written })
			assert.is_false(driver:needs_reset())
			assert.are.equal(host ~= false, session:init() ~= nil)
		end
	end)

	it("serves chains in small pieces, and indirect ones", function()
		local _ <close>, driver, session = started { host = folder.path }
		assert(session:init())
		local request = fuse.request("LOOKUP", 1, "hello\0")
		local list = {}
		for i = 1, #request do list[i] = request:sub(i, i) end
		for _ = 1, 10 do list[#list + 1] = 15 end
		for _, indirect in ipairs { true, false } do
			local text, written = driver.queues[REQUEST]:call(list, indirect)
			assert.are.equal(16 + 128, written)
			assert(fuse.reply(text))
		end
	end)
end)
