-- Connections of the vsock device: how they begin and end, on both sides and over a reset or a restore.
local core = require "supermachine.core"
local virtio = require "spec.support.virtio_driver"
local vsock = require "spec.support.virtio_vsock"

local MEGABYTE = vsock.MEGABYTE
local WAIT_MS = virtio.WAIT_MS

describe("the vsock device", function()
	local device, peer

	local function start(options)
		device = assert(core.virtio_device("vsock", {}))
		peer = vsock.start(device, options)
	end
	after_each(function() device:close() end)

	it("tells the guest its CID", function()
		start()
		assert.equal(19, peer.driver:get "device_id")
		assert.equal(3, device:mmio_read(0x100, 8))
		for _, cid in ipairs { 0, 1, 2, 0xffffffff } do
			local none, message = core.virtio_device("vsock", { guest_cid = cid })
			assert.is_nil(none)
			assert.matches("reserved", message)
		end
	end)

	it("connects to the guest and carries bytes both ways", function()
		start()
		local stream <close>, request = peer:accept(5000)
		assert.equal(2, request.src_cid)
		assert.equal(3, request.dst_cid)
		assert.equal(1, request.type)
		assert.equal(vsock.BUF_ALLOC, request.buf_alloc)
		stream:write "hello"
		local packet = peer:expect(vsock.RW)
		assert.equal("hello", packet.data)
		assert.equal(request.src_port, packet.src_port)
		assert.equal(5000, packet.dst_port)
		peer:send(vsock.reply(request, vsock.RW), "world")
		assert.equal("world", vsock.read_all(stream, 5))
	end)

	it("hands over at once, before the guest has answered, what is written early", function()
		start()
		local stream <close> = assert(device:connect(1))
		assert.equal(5, stream:write "early")
		local request = peer:expect(vsock.REQUEST)
		peer.driver:settle()
		assert.is_nil(peer:poll())
		peer:send(vsock.reply(request, vsock.RESPONSE))
		assert.equal("early", peer:expect(vsock.RW).data)
	end)

	it("keeps a connection that was made before the driver started", function()
		device = assert(core.virtio_device("vsock", {}))
		local stream <close> = assert(device:connect(9))
		stream:write "x"
		peer = vsock.start(device)
		local request = peer:expect(vsock.REQUEST)
		peer:send(vsock.reply(request, vsock.RESPONSE))
		assert.equal("x", peer:expect(vsock.RW).data)
	end)

	it("forgets one that its maker gave up before that", function()
		device = assert(core.virtio_device("vsock", {}))
		device:connect(9):close()
		device:settle()
		peer = vsock.start(device)
		local stream <close> = peer:accept(10)
		assert.is_nil(peer:poll())
		assert.equal(2, stream:write "ok")
	end)

	it("shows a refused port as the end of the stream", function()
		start()
		local stream <close> = assert(device:connect(1))
		peer:send(vsock.reply(peer:expect(vsock.REQUEST), vsock.RST))
		assert.is_true(vsock.is_over(stream))
	end)

	describe("when one side ends", function()
		it("passes on that the host sends no more, after all it sent", function()
			start()
			local stream <close>, request = peer:accept(1)
			stream:write "last"
			stream:shutdown "w"
			assert.equal("last", peer:expect(vsock.RW).data)
			assert.equal(2, peer:expect(vsock.SHUTDOWN).flags)
			peer:assert_idle()
			peer:send(vsock.reply(request, vsock.RW), "answer") -- the other direction is open
			assert.equal("answer", vsock.read_all(stream, 6))
			peer:send(vsock.reply(request, vsock.SHUTDOWN, { flags = 3 }))
			peer:expect(vsock.RST)
			assert.is_true(vsock.is_over(stream))
		end)

		it("passes on that the guest sends no more, after all it sent", function()
			start()
			local stream <close>, request = peer:accept(1)
			peer:send(vsock.reply(request, vsock.RW), "last")
			peer:send(vsock.reply(request, vsock.SHUTDOWN, { flags = 2 }))
			assert.equal("last", vsock.read_all(stream, 4))
			assert.equal("", stream:read(1, WAIT_MS))
			stream:write "answer"
			assert.equal("answer", peer:expect(vsock.RW).data)
			stream:shutdown "w"
			assert.equal(3, peer:expect(vsock.SHUTDOWN).flags | 3)
		end)

		it("drains what the host has not read before it confirms the guest's end", function()
			start()
			local stream <close>, request = peer:accept(1)
			local sent = 0
			for _ = 1, 4 do
				peer:send(vsock.reply(request, vsock.RW), MEGABYTE:sub(sent + 1, sent + 65536))
				sent = sent + 65536
			end
			peer:send(vsock.reply(request, vsock.SHUTDOWN, { flags = 3 }))
			assert.is_true(vsock.read_all(stream, sent) == MEGABYTE:sub(1, sent))
			assert.is_true(vsock.is_over(stream))
			repeat until peer:receive().op == vsock.RST
		end)

		it("hands over what a guest had sent that then forgot the connection", function()
			start()
			local stream <close>, request = peer:accept(1)
			local sent = peer:fill(request) -- some waits outside the socket
			peer:send(vsock.reply(request, vsock.RST))
			assert.is_true(vsock.read_all(stream, sent) == MEGABYTE:sub(1, sent))
			assert.is_true(vsock.is_over(stream))
			-- The ports are free for a stranger.
			peer:send(vsock.reply(request, vsock.RW), "late")
			peer:expect(vsock.RST)
		end)

		it("tells the guest when the host closes, after all it sent", function()
			start { rx = 2, size = 1024 }
			local stream, request = peer:accept(1)
			stream:write(MEGABYTE:sub(1, 5000))
			stream:close()
			local got, flags = {}, 0
			while flags ~= 3 do
				local packet = peer:receive()
				if packet.op == vsock.SHUTDOWN then
					flags = packet.flags
				else
					assert.equal(vsock.RW, packet.op)
					got[#got + 1] = packet.data
				end
			end
			assert.equal(MEGABYTE:sub(1, 5000), table.concat(got))
			peer:send(vsock.reply(request, vsock.RW), "nobody reads this")
			peer:send(vsock.reply(request, vsock.RST))
			peer.driver:settle()
			assert.is_nil(peer:poll())
		end)

		it("does not spin on a closed host end that has no credit or buffers", function()
			start { buf_alloc = 10, rx = 3 }
			local stream, request = peer:accept(1, { buf_alloc = 10 })
			stream:write(("z"):rep(30))
			peer:expect(vsock.RW)
			peer:expect(vsock.CREDIT_REQUEST)
			stream:close()
			assert.equal(1, peer:expect(vsock.SHUTDOWN).flags) -- takes no more, but has more to say
			peer:assert_idle()
			for i = 1, 2 do
				peer:send(vsock.reply(request, vsock.CREDIT_UPDATE, { fwd_cnt = 10 * i }))
				assert.equal(("z"):rep(10), peer:expect(vsock.RW).data)
				if i == 1 then peer:expect(vsock.CREDIT_REQUEST) end
			end
			peer:send(vsock.reply(request, vsock.CREDIT_UPDATE, { fwd_cnt = 30 }))
			local packet = peer:receive()
			if packet.op == vsock.CREDIT_REQUEST then packet = peer:receive() end
			assert.equal(3, packet.flags)
		end)

		it("lets the host's writes fail when the guest takes no more", function()
			start()
			local stream <close>, request = peer:accept(1)
			peer:send(vsock.reply(request, vsock.SHUTDOWN, { flags = 1 }))
			local none, _, code = stream:write "x"
			assert.is_nil(none)
			assert.equal("EPIPE", code)
			peer:send(vsock.reply(request, vsock.RW), "still")
			assert.equal("still", vsock.read_all(stream, 5))
		end)
	end)

	describe("listening", function()
		local function connect_guest(port, guest_port)
			peer:send { src_port = guest_port or 1234, dst_port = port, op = vsock.REQUEST }
			return peer:receive()
		end

		it("takes the guest's connections", function()
			start()
			local listener <close> = assert(device:listen(77))
			local response = connect_guest(77, 4321)
			assert.equal(vsock.RESPONSE, response.op)
			assert.equal(77, response.src_port)
			assert.equal(4321, response.dst_port)
			local port, stream = listener:accept(WAIT_MS)
			assert.equal(4321, port)
			peer:send(vsock.reply(response, vsock.RW), "from the guest")
			assert.equal("from the guest", vsock.read_all(stream, 14))
			stream:write "from the host"
			assert.equal("from the host", peer:expect(vsock.RW).data)
			stream:close()
			assert.equal(3, peer:expect(vsock.SHUTDOWN).flags)
		end)

		it("refuses ports that nobody listens on", function()
			start()
			local rst = connect_guest(78)
			assert.equal(vsock.RST, rst.op)
			assert.equal(78, rst.src_port)
			assert.equal(1234, rst.dst_port)
			assert.equal(0, rst.len)
		end)

		it("has one listener a port, until that is closed", function()
			start()
			local listener = assert(device:listen(77))
			local none, message, code = device:listen(77)
			assert.is_nil(none)
			assert.matches("port 77", message)
			assert.equal("EADDRINUSE", code)
			listener:close()
			assert.equal(vsock.RST, connect_guest(77).op)
			local again <close> = assert(device:listen(77))
			assert.equal(vsock.RESPONSE, connect_guest(77).op)
			assert(again:accept(WAIT_MS))
		end)

		it("bounds the listeners", function()
			start()
			local listeners = {}
			for port = 1, 64 do listeners[port] = assert(device:listen(port)) end
			local none, _, code = device:listen(65)
			assert.is_nil(none)
			assert.equal("EMFILE", code)
			for _, listener in ipairs(listeners) do listener:close() end
		end)

		it("ends connections that nobody accepted when the listener is closed", function()
			start()
			local listener = assert(device:listen(77))
			assert.equal(vsock.RESPONSE, connect_guest(77).op)
			listener:close()
			collectgarbage()
			assert.equal(3, peer:expect(vsock.SHUTDOWN).flags)
		end)

		it("resets a second request for a connection that there is", function()
			start()
			local listener <close> = assert(device:listen(77))
			assert.equal(vsock.RESPONSE, connect_guest(77).op)
			assert.equal(vsock.RST, connect_guest(77).op)
			local _, stream = assert(listener:accept(WAIT_MS))
			assert.is_true(vsock.is_over(stream))
			stream:close()
		end)
	end)

	it("ends all connections at a reset, and begins anew", function()
		start()
		local streams, requests = {}, {}
		for i = 1, 5 do streams[i], requests[i] = peer:accept(i) end
		for i = 1, 5 do streams[i]:write(MEGABYTE:sub(1, 100000)) end
		peer.driver:set("status", 0)
		for i = 1, 5 do assert.is_true(vsock.is_over(streams[i])) end
		peer = vsock.start(device)
		local stream <close>, request = peer:accept(1)
		for i = 1, 5 do assert.not_equal(requests[i].src_port, request.src_port) end
		stream:write "new"
		assert.equal("new", peer:expect(vsock.RW).data)
		for i = 1, 5 do streams[i]:close() end
	end)

	it("works without event indexes", function()
		start { features = virtio.F_VERSION_1 }
		local stream <close>, request = peer:accept(1)
		stream:write "a"
		assert.equal("a", peer:expect(vsock.RW).data)
		peer:send(vsock.reply(request, vsock.RW), "b")
		assert.equal("b", vsock.read_all(stream, 1))
	end)

	describe("restored", function()
		local copy, state

		-- What the machine has then goes on in `peer`, on the copy.
		local function restore()
			device:pause()
			state = assert(device:save())
			local ram = device:read(0, 1 << 20)
			device:resume()
			copy = assert(core.virtio_device("vsock", {}))
			copy:write(0, ram)
			assert(copy:load(state))
			return peer:move(copy)
		end
		after_each(function() copy:close() end)

		it("resets the guest's transport before it sends anything else", function()
			start()
			local old <close>, old_request = peer:accept(1)
			local twin = restore()
			copy:restored()
			local stream <close> = assert(copy:connect(1))
			local parts, written = twin.events:pop()
			assert.equal(("<I4"):pack(0), twin.events:data(parts, written))
			twin.driver:settle()
			assert.is_nil(twin:poll()) -- the guest has not taken it yet
			twin.events:add(parts)
			twin.events:kick()
			local request = twin:expect(vsock.REQUEST)
			assert.not_equal(old_request.src_port, request.src_port)
			twin:send(vsock.reply(request, vsock.RESPONSE))
			stream:write "new"
			assert.equal("new", twin:expect(vsock.RW).data)
			twin:send(vsock.reply(old_request, vsock.RW), "stale")
			assert.equal(vsock.RST, twin:receive().op)
			-- The machine that was saved goes on with the old one.
			old:write "old"
			assert.equal("old", peer:expect(vsock.RW).data)
		end)

		it("takes a packet that waited in the queue", function()
			start()
			device:pause()
			peer.tx:push { vsock.pack({ src_port = 5, dst_port = 6, op = vsock.RW }, 0) }
			local twin = restore()
			copy:restored()
			local parts = twin.events:pop()
			twin.tx:pop()
			twin.events:add(parts)
			twin.events:kick()
			twin:expect(vsock.RST)
			device:resume()
		end)

		it("refuses another machine's state", function()
			start()
			restore()
			local other <close> = assert(core.virtio_device("vsock", { guest_cid = 4 }))
			local none, message, code = other:load(state)
			assert.is_nil(none)
			assert.matches("guest CID 3, this one has 4", message)
			assert.equal("EBADMSG", code)
		end)
	end)

	it("can be closed under full traffic, again and again", function()
		for _ = 1, 10 do
			start { rx = 60 }
			local listener = assert(device:listen(7))
			local streams, requests = {}, {}
			for i = 1, 8 do streams[i], requests[i] = peer:accept(i) end
			for i = 1, 8 do
				streams[i]:write(MEGABYTE)
				peer.tx:push { vsock.pack(vsock.reply(requests[i], vsock.RW), 30000) .. MEGABYTE:sub(1, 30000) }
			end
			for i = 1, 8 do peer.tx:push { vsock.pack({ src_port = i, dst_port = 7, op = vsock.REQUEST }, 0) } end
			peer.tx:kick()
			device:close()
			listener:close()
			for i = 1, 8 do
				streams[i]:read(100, 0)
				streams[i]:close()
			end
		end
	end)
end)
