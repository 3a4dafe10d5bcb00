-- The file system device's DAX window over plain memory: what is mapped there, and who may name it.
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local fs = require "spec.support.virtio_fs"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"
local virtio = require "spec.support.virtio_driver"

local MIB <const> = 1 << 20
local WINDOW <const> = 8 << 30
local REQUEST <const> = fs.REQUEST
local started = fs.start

describe("a DAX window", function()
	local folder
	before_each(function()
		folder = folders.new()
		folder:write("mapped", ("m"):rep(4 * MIB))
		folder:write("hello", "from the host")
	end)
	after_each(function() folder:close() end)

	local function shm(driver, id)
		driver.device:mmio_write(0xac, 4, id)
		local words = {}
		for i = 0, 3 do words[i + 1] = driver.device:mmio_read(0xb0 + 4 * i, 4) end
		return words[1] | words[2] << 32, words[3] | words[4] << 32
	end

	local function mapped(session, offset)
		local entry = assert(session:lookup(1, "mapped"))
		local fh = assert(session:open(entry.node, fuse.O.RDWR))
		assert(session:map(entry.node, 0, 4 * MIB, offset or 0, 3))
		return entry.node, fh
	end

	it("is announced as region 0, and no other is", function()
		local _ <close>, driver = started { host = folder.path, window_mib = 8 }
		assert.are.same({ 8 * MIB, WINDOW }, { shm(driver, 0) })
		for _, id in ipairs { 1, 0xff, 0xffffffff } do assert.are.same({ -1, -1 }, { shm(driver, id) }) end
		for _, options in ipairs { { host = folder.path }, { host = folder.path, window_mib = 8, dax = false } } do
			local _ <close>, other = started(options)
			assert.are.same({ -1, -1 }, { shm(other, 0) })
		end
	end)

	it("shows files, as they are on both sides", function()
		local device <close>, _, session = started { host = folder.path, window_mib = 8 }
		assert(session:init())
		mapped(session, 2 * MIB)
		assert.are.equal("mmm", device:read(WINDOW + 6 * MIB - 3, 3))
		assert.are.equal("\0", device:read(WINDOW + 6 * MIB, 1))
		device:write(WINDOW + 2 * MIB + 10, "guest")
		assert.are.equal("mguestm", scratch.read(folder:join "mapped"):sub(10, 16))
		assert(os.execute(("printf host | dd of='%s' conv=notrunc status=none"):format(folder:join "mapped")))
		assert.are.equal("hostm", device:read(WINDOW + 2 * MIB, 5))
	end)

	it("may be named in chains, by this device and others", function()
		local device <close>, driver, session = started { host = folder.path, window_mib = 8 }
		assert(session:init())
		local node, fh = mapped(session)
		-- A file's content into the mapped file, and out of it.
		local hello = assert(session:lookup(1, "hello"))
		local from = assert(session:open(hello.node, fuse.O.RDWR))
		local head = driver:alloc(512)
		local out = driver:alloc(16)
		local read = fuse.request("READ", hello.node, ("<I8I8I4I4I8I4I4"):pack(from, 0, 13, 0, 0, 0, 0))
		local queue = driver.queues[REQUEST]
		device:write(head, read)
		queue:add { { gpa = head, len = #read }, { gpa = out, len = 16, write = true },
			{ gpa = WINDOW + MIB, len = 13, write = true } }
		queue:kick()
		assert.are.equal(29, select(2, queue:pop()))
		assert.are.equal("from the host", scratch.read(folder:join "mapped"):sub(MIB + 1, MIB + 13))
		local write = fuse.request("WRITE", hello.node, ("<I8I8I4I4I8I4I4"):pack(from, 0, 4, 0, 0, 0, 0), { len = 84 })
		device:write(head, write)
		device:write(WINDOW + 2 * MIB, "dax!")
		queue:add { { gpa = head, len = #write }, { gpa = WINDOW + 2 * MIB, len = 4 }, { gpa = out, len = 64, write = true } }
		queue:kick()
		assert.are.equal(24, select(2, queue:pop()))
		assert.are.equal("dax! the host", scratch.read(folder:join "hello"))
		-- All of a request, header and reply.
		local all = fuse.request("GETATTR", node, ("<I4I4I8"):pack(1, 0, fh))
		device:write(WINDOW, all)
		queue:add { { gpa = WINDOW, len = #all }, { gpa = WINDOW + 4096, len = 256, write = true } }
		queue:kick()
		assert.are.equal(16 + 104, select(2, queue:pop()))
		assert(fuse.reply(device:read(WINDOW + 4096, 120)))
	end)

	it("gives errors and no signals where a file was cut", function()
		local device <close>, driver, session = started { host = folder.path, window_mib = 8 }
		assert(session:init())
		local node, fh = mapped(session)
		local hello = assert(session:lookup(1, "hello"))
		local from = assert(session:open(hello.node, fuse.O.RDWR))
		assert(os.execute(("truncate -s 4096 '%s'"):format(folder:join "mapped")))
		local queue, head, out = driver.queues[REQUEST], driver:alloc(512), driver:alloc(256)
		local read = fuse.request("READ", hello.node, ("<I8I8I4I4I8I4I4"):pack(from, 0, 13, 0, 0, 0, 0))
		device:write(head, read)
		queue:add { { gpa = head, len = #read }, { gpa = out, len = 16, write = true },
			{ gpa = WINDOW + MIB, len = 13, write = true } }
		queue:kick()
		queue:pop()
		assert.are.same({ nil, "EFAULT" }, { fuse.reply(device:read(out, 16)) })
		local write = fuse.request("WRITE", hello.node, ("<I8I8I4I4I8I4I4"):pack(from, 0, 4, 0, 0, 0, 0), { len = 84 })
		device:write(head, write)
		queue:add { { gpa = head, len = #write }, { gpa = WINDOW + MIB, len = 4 }, { gpa = out, len = 64, write = true } }
		queue:kick()
		queue:pop()
		assert.are.same({ nil, "EFAULT" }, { fuse.reply(device:read(out, 16)) })
		assert.are.equal("from the host", scratch.read(folder:join "hello"))
		-- A header that is not there, and a reply that has nowhere to go.
		local all = fuse.request("GETATTR", node, ("<I4I4I8"):pack(1, 0, fh))
		device:write(head, all)
		queue:add { { gpa = head, len = #all }, { gpa = WINDOW + MIB, len = 256, write = true } }
		queue:kick()
		assert.are.equal(0, select(2, queue:pop()))
		queue:add { { gpa = WINDOW + MIB, len = 100 }, { gpa = out, len = 256, write = true } }
		queue:kick()
		driver:wait_needs_reset()
	end)

	it("may be named to disks, random numbers and sockets too", function()
		local at = WINDOW + MIB
		local disk <close> = assert(core.virtio_device("blk", { bytes = 8192, window_mib = 2, segments = {
			{ offset = 512, length = 512, data = ("d"):rep(512) },
		} }))
		local driver = virtio.start(disk, 1)
		disk:write(at, ("x"):rep(2048))
		local head = driver:alloc(16)
		disk:write(head, ("<I4I4I8"):pack(0, 0, 0))
		driver.queues[0]:add { { gpa = head, len = 16 }, { gpa = at, len = 1536, write = true },
			{ gpa = at + 4096, len = 1, write = true } }
		driver.queues[0]:kick()
		assert.are.equal(1537, select(2, driver.queues[0]:pop()))
		assert.are.equal(("\0"):rep(512) .. ("d"):rep(512) .. ("\0"):rep(512) .. "x", disk:read(at, 1537))
		assert.are.equal("\0", disk:read(at + 4096, 1))

		local rng <close> = assert(core.virtio_device("rng", { window_mib = 2 }))
		driver = virtio.start(rng, 1)
		driver.queues[0]:add { { gpa = at, len = 64, write = true } }
		driver.queues[0]:kick()
		assert.are.equal(64, select(2, driver.queues[0]:pop()))
		assert.are_not.equal(("\0"):rep(64), rng:read(at, 64))

		local balloon <close> = assert(core.virtio_device("balloon", { window_mib = 2 }))
		driver = virtio.start(balloon, 2)
		balloon:write(at, ("<I4"):pack(at >> 12))
		driver.queues[0]:add { { gpa = at, len = 4 } }
		driver.queues[0]:kick()
		driver.queues[0]:pop()
		assert.are.equal(1, balloon:stats().errors) -- not RAM
		assert.are.equal(("<I4"):pack(at >> 12), balloon:read(at, 4))
	end)

	it("holds no rings", function()
		local device <close> = assert(core.virtio_device("fs", { host = folder.path, window_mib = 2 }))
		local driver = virtio.new(device)
		driver.next_gpa = WINDOW
		assert(driver:negotiate(virtio.F_VERSION_1))
		driver:queue(1)
		assert.is_true(driver:needs_reset())
	end)

	it("has nothing left of an old driver's", function()
		for _, options in ipairs { { host = folder.path, window_mib = 8 }, { window_mib = 8 } } do
			local device <close>, _, session = started(options)
			if not options.host then assert(device:back(folder.path)) end
			assert(session:init())
			mapped(session)
			device:write(WINDOW + 6 * MIB, "left")
			device:pause()
			device:forget()
			device:resume()
			assert.are.equal("\0\0\0\0", device:read(WINDOW, 4))
			assert.are.equal("\0\0\0\0", device:read(WINDOW + 6 * MIB, 4))
			assert.are.equal("mmmm", scratch.read(folder:join "mapped"):sub(1, 4))
		end
	end)

	it("comes back with a session", function()
		local device <close>, driver, session = started { host = folder.path, window_mib = 8 }
		assert(session:init())
		mapped(session, 2 * MIB)
		device:pause()
		local state, memory = assert(device:save()), device:read(0, driver.next_gpa)
		device:resume()
		local twin <close> = assert(core.virtio_device("fs", { host = folder.path, window_mib = 8 }))
		twin:write(0, memory)
		twin:pause()
		assert(twin:load(state))
		twin:resume()
		assert.are.equal("mmmm", twin:read(WINDOW + 2 * MIB, 4))
		assert.are.equal("\0\0\0\0", twin:read(WINDOW, 4))
		twin:write(WINDOW + 2 * MIB, "twin")
		assert.are.equal("twin", scratch.read(folder:join "mapped"):sub(1, 4))
	end)
end)
