local core = require "supermachine.core"
local virtio = require "spec.support.virtio_driver"
local vsock = require "spec.support.virtio_vsock"

local WAIT_MS = virtio.WAIT_MS
local BUF_ALLOC = 256 << 10

-- 1 MiB without a period that buffers could hide.
local words = {}
for i = 1, 1 << 17 do words[i] = ("<I8"):pack(i * 0x9e3779b97f4a7c15) end
local MEGABYTE = table.concat(words)

describe("the vsock device", function()
	local device, peer

	local function start(options)
		device = assert(core.virtio_device("vsock", {}))
		peer = vsock.start(device, options)
	end
	after_each(function() device:close() end)

	local function read_all(stream, count)
		local out = {}
		while count > 0 do
			local bytes = assert(stream:read(math.min(count, 65536), WAIT_MS))
			assert(bytes ~= "", "early end of file")
			out[#out + 1] = bytes
			count = count - #bytes
		end
		return table.concat(out)
	end

	-- End of file, or the reset that closing a socket with unread bytes makes.
	local function is_over(stream)
		local bytes, _, code = stream:read(1, WAIT_MS)
		return bytes == "" or code == "ECONNRESET"
	end

	-- Nothing goes on: no work done, and next to no processor time, in a tenth of a second.
	local function assert_idle()
		device:settle()
		local before = device:stats()
		device:irq(0)
		local clock = os.clock()
		assert.equal(0, device:irq(100))
		assert.is_true(os.clock() - clock < 0.01, "the loop spins")
		assert.same(before, device:stats())
	end

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
		assert.equal(BUF_ALLOC, request.buf_alloc)
		stream:write "hello"
		local packet = peer:expect(vsock.RW)
		assert.equal("hello", packet.data)
		assert.equal(request.src_port, packet.src_port)
		assert.equal(5000, packet.dst_port)
		peer:send(vsock.reply(request, vsock.RW), "world")
		assert.equal("world", read_all(stream, 5))
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
		assert.is_true(is_over(stream))
	end)

	for _, size in ipairs { 4096, 64 << 10, 100, 45 } do
		it("carries 1 MiB to the guest in buffers of " .. size, function()
			start { size = size, rx = 60 }
			local whole = size < 100 and MEGABYTE:sub(1, 20000) or MEGABYTE
			local stream <close>, request = peer:accept(1)
			local sent, got, count = 0, {}, 0
			while count < #whole do
				sent = sent + stream:write(whole:sub(sent + 1, sent + 65536))
				local packet = peer:expect(vsock.RW)
				got[#got + 1] = packet.data
				count = count + packet.len
				if #got % 8 == 0 or size > 4096 then
					peer:send(vsock.reply(request, vsock.CREDIT_UPDATE, { fwd_cnt = count }))
				end
			end
			assert.is_true(table.concat(got) == whole)
		end)
	end

	it("carries 1 MiB to the host and gives credit for it", function()
		start()
		local stream <close>, request = peer:accept(1)
		local got, sent, credit = {}, 0, 0
		while sent < #MEGABYTE do
			while BUF_ALLOC - (sent - credit) < 65536 do
				local packet = peer:expect(vsock.CREDIT_UPDATE)
				assert.equal(BUF_ALLOC, packet.buf_alloc)
				credit = packet.fwd_cnt
			end
			peer:send(vsock.reply(request, vsock.RW), MEGABYTE:sub(sent + 1, sent + 65536))
			sent = sent + 65536
			got[#got + 1] = read_all(stream, 65536)
		end
		assert.is_true(table.concat(got) == MEGABYTE)
		assert.is_true(credit >= #MEGABYTE - BUF_ALLOC)
	end)

	it("takes a packet in many pieces", function()
		start()
		local stream <close>, request = peer:accept(1)
		local data = MEGABYTE:sub(1, 3000)
		local bytes = vsock.pack(vsock.reply(request, vsock.RW), 3000) .. data
		peer.tx:push({ bytes:sub(1, 10), bytes:sub(11, 50), bytes:sub(51, 51), bytes:sub(52, 1500), bytes:sub(1501) }, true)
		peer.tx:kick()
		assert.equal(data, read_all(stream, 3000))
	end)

	it("keeps what the host does not read, up to the credit, and gives none meanwhile", function()
		start()
		local stream <close>, request = peer:accept(1)
		local chunk = MEGABYTE:sub(1, 65536)
		local sent, credit = 0, 0
		-- More than the socket takes: credit stops.
		repeat
			while BUF_ALLOC - (sent - credit) >= 65536 do
				peer:send(vsock.reply(request, vsock.RW), chunk)
				sent = sent + 65536
			end
			peer.driver:settle()
			local packet = peer:poll()
			if packet then credit = packet.fwd_cnt end
		until not packet
		assert.is_true(sent > credit)
		assert_idle()
		assert.equal(chunk:rep(sent // 65536), read_all(stream, sent))
		peer:send(vsock.reply(request, vsock.CREDIT_REQUEST))
		local packet
		repeat packet = peer:expect(vsock.CREDIT_UPDATE) until packet.fwd_cnt == sent
	end)

	it("resets a connection that sends without credit", function()
		start()
		local stream <close>, request = peer:accept(1)
		local chunk = MEGABYTE:sub(1, 65536)
		local packet
		for _ = 1, 32 do
			peer:send(vsock.reply(request, vsock.RW), chunk)
			packet = peer:poll()
			while packet and packet.op ~= vsock.RST do packet = peer:poll() end
			if packet then break end
		end
		assert.equal(vsock.RST, packet.op)
		assert.is_true(device:stats().errors > 0)
		peer.driver:settle()
		assert.is_not_nil(stream)
	end)

	it("sends no more than the guest has credit for, and goes on when it has", function()
		start { buf_alloc = 100 }
		local stream <close>, request = peer:accept(1, { buf_alloc = 100 })
		stream:write(MEGABYTE:sub(1, 250))
		assert.equal(MEGABYTE:sub(1, 100), peer:expect(vsock.RW).data)
		peer:expect(vsock.CREDIT_REQUEST)
		assert_idle()
		assert.is_nil(peer:poll())
		peer:send(vsock.reply(request, vsock.CREDIT_UPDATE, { fwd_cnt = 0 })) -- none yet
		assert_idle()
		assert.is_nil(peer:poll())
		peer:send(vsock.reply(request, vsock.CREDIT_UPDATE, { fwd_cnt = 60 }))
		assert.equal(MEGABYTE:sub(101, 160), peer:expect(vsock.RW).data)
		peer:expect(vsock.CREDIT_REQUEST)
		peer:send(vsock.reply(request, vsock.CREDIT_UPDATE, { fwd_cnt = 160 }))
		assert.equal(MEGABYTE:sub(161, 250), peer:expect(vsock.RW).data)
	end)

	it("survives a guest whose credit makes no sense", function()
		start()
		local stream <close>, request = peer:accept(1, { buf_alloc = 50 })
		stream:write(("x"):rep(50))
		assert.equal(50, peer:expect(vsock.RW).len)
		for _, fwd_cnt in ipairs { 0xffffffff, 0x80000000, 51 } do
			stream:write "y"
			peer:send(vsock.reply(request, vsock.CREDIT_UPDATE, { fwd_cnt = fwd_cnt, buf_alloc = 10 }))
			peer.driver:settle()
			peer:poll()
		end
		assert.is_false(peer.driver:needs_reset())
	end)

	it("waits for buffers without losing a byte or spinning", function()
		start { rx = 2, size = 1024 }
		local stream <close> = peer:accept(1)
		stream:write(MEGABYTE:sub(1, 8192))
		local got = {}
		for i = 1, 2 do got[i] = peer:expect(vsock.RW, true).data end
		peer.driver:settle()
		assert.is_nil(peer:poll())
		stream:write "tail"
		assert_idle()
		while #table.concat(got) < 8196 do
			peer:refill(1)
			got[#got + 1] = peer:expect(vsock.RW, true).data
		end
		assert.equal(MEGABYTE:sub(1, 8192) .. "tail", table.concat(got))
	end)

	it("serves connections in turn", function()
		start { rx = 4, size = 1024 }
		local streams, seen = {}, {}
		for i = 1, 3 do streams[i] = peer:accept(i) end
		for i = 1, 3 do streams[i]:write(MEGABYTE:sub(1, 65536)) end
		for _ = 1, 150 do seen[peer:expect(vsock.RW).dst_port] = true end
		assert.same({ true, true, true }, seen)
		for i = 1, 3 do streams[i]:close() end
	end)

	describe("when one side ends", function()
		it("passes on that the host sends no more, after all it sent", function()
			start()
			local stream <close>, request = peer:accept(1)
			stream:write "last"
			stream:shutdown "w"
			assert.equal("last", peer:expect(vsock.RW).data)
			assert.equal(2, peer:expect(vsock.SHUTDOWN).flags)
			assert_idle()
			peer:send(vsock.reply(request, vsock.RW), "answer") -- the other direction is open
			assert.equal("answer", read_all(stream, 6))
			peer:send(vsock.reply(request, vsock.SHUTDOWN, { flags = 3 }))
			peer:expect(vsock.RST)
			assert.is_true(is_over(stream))
		end)

		it("passes on that the guest sends no more, after all it sent", function()
			start()
			local stream <close>, request = peer:accept(1)
			peer:send(vsock.reply(request, vsock.RW), "last")
			peer:send(vsock.reply(request, vsock.SHUTDOWN, { flags = 2 }))
			assert.equal("last", read_all(stream, 4))
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
			assert.is_true(read_all(stream, sent) == MEGABYTE:sub(1, sent))
			assert.is_true(is_over(stream))
			repeat until peer:receive().op == vsock.RST
		end)

		it("hands over what a guest had sent that then forgot the connection", function()
			start()
			local stream <close>, request = peer:accept(1)
			local sent, credit = 0, 0
			repeat -- until some waits outside the socket
				while BUF_ALLOC - (sent - credit) >= 65536 do
					peer:send(vsock.reply(request, vsock.RW), MEGABYTE:sub(sent + 1, sent + 65536))
					sent = sent + 65536
				end
				peer.driver:settle()
				local packet = peer:poll()
				if packet then credit = packet.fwd_cnt end
			until not packet
			peer:send(vsock.reply(request, vsock.RST))
			assert.is_true(read_all(stream, sent) == MEGABYTE:sub(1, sent))
			assert.is_true(is_over(stream))
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
			assert_idle()
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
			assert.equal("still", read_all(stream, 5))
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
			assert.equal("from the guest", read_all(stream, 14))
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
			assert.is_true(is_over(stream))
			stream:close()
		end)
	end)

	describe("with a hostile guest", function()
		it("answers strangers by RST, and their RST not at all", function()
			start()
			for _, op in ipairs { vsock.RESPONSE, vsock.RW, vsock.SHUTDOWN, vsock.CREDIT_UPDATE, vsock.CREDIT_REQUEST, 0, 99 } do
				peer:send { src_port = 5, dst_port = 6, op = op }
				assert.equal(vsock.RST, peer:receive().op)
			end
			peer:send { src_port = 5, dst_port = 6, op = vsock.REQUEST, type = 2 }
			local rst = peer:expect(vsock.RST)
			assert.equal(2, rst.type)
			peer:send { src_port = 5, dst_port = 6, op = vsock.REQUEST, dst_cid = 7 }
			rst = peer:expect(vsock.RST)
			assert.equal(7, rst.src_cid)
			peer:send { src_port = 5, dst_port = 6, op = vsock.RST }
			peer:send { src_port = 5, dst_port = 6, op = vsock.REQUEST, src_cid = 4 }
			peer.driver:settle()
			assert.is_nil(peer:poll())
		end)

		it("resets a connection over nonsense", function()
			for _, fields in ipairs { { op = 0 }, { op = 99 }, { op = vsock.REQUEST }, { op = vsock.RESPONSE } } do
				start()
				local stream <close>, request = peer:accept(1)
				peer:send(vsock.reply(request, fields.op))
				peer:expect(vsock.RST)
				assert.is_true(is_over(stream))
				device:close()
			end
			start()
			local stream <close>, request = peer:accept(1)
			peer:send(vsock.reply(request, vsock.SHUTDOWN, { flags = 2 }))
			peer:send(vsock.reply(request, vsock.RW), "after the end")
			peer:expect(vsock.RST)
			assert.is_true(is_over(stream))
		end)

		it("ignores packets whose length is a lie", function()
			start()
			local stream <close>, request = peer:accept(1)
			peer:send(vsock.reply(request, vsock.RW, { len = 6 }), "short")
			peer:send(vsock.reply(request, vsock.RW, { len = 0xffffffff }), "short")
			peer.tx:call { "half a header" }
			assert.equal(3, device:stats().errors)
			peer:send(vsock.reply(request, vsock.RW, { len = 2 }), "only the start")
			assert.equal("on", read_all(stream, 2))
		end)

		it("stops taking packets that need answers until it can give them", function()
			start { rx = 0 }
			for i = 1, 60 do
				peer.tx:push { vsock.pack({ src_port = i, dst_port = 1, op = vsock.RW }, 0) }
			end
			peer.tx:kick()
			for _ = 1, 60 do peer.tx:pop() end
			for i = 61, 120 do
				peer.tx:push { vsock.pack({ src_port = i, dst_port = 1, op = vsock.RW }, 0) }
			end
			peer.tx:kick()
			for _ = 1, 4 do peer.tx:pop() end
			peer.driver:settle()
			assert.is_nil(peer.tx:poll())
			peer:refill(20)
			for i = 1, 120 do
				local packet = peer:expect(vsock.RST)
				assert.equal(i, packet.dst_port)
			end
			for _ = 1, 56 do peer.tx:pop() end
		end)

		it("bounds the connections", function()
			start()
			local listener = assert(device:listen(7))
			local streams = {}
			for i = 1, 1024 do streams[i] = assert(device:connect(9)) end
			local none, message, code = device:connect(9)
			assert.is_nil(none)
			assert.equal("EMFILE", code)
			assert.matches("1024", message)
			local first
			for i = 1, 1024 do
				local request = peer:expect(vsock.REQUEST)
				first = first or request
				if i <= 2 then peer:send(vsock.reply(request, vsock.RESPONSE)) end
			end
			peer:send { src_port = 1234, dst_port = 7, op = vsock.REQUEST }
			peer:expect(vsock.RST)
			-- One that only waits for the guest's RST makes room.
			streams[1]:close()
			assert.equal(3, peer:expect(vsock.SHUTDOWN).flags)
			peer:send { src_port = 1234, dst_port = 7, op = vsock.REQUEST }
			peer:expect(vsock.RESPONSE)
			peer:send(vsock.reply(first, vsock.CREDIT_REQUEST))
			peer:expect(vsock.RST)
			for i = 2, 1024 do streams[i]:close() end
			listener:close()
		end)

		it("needs a reset when a buffer cannot hold a packet", function()
			start { rx = 0 }
			peer.rx:push { 44 }
			peer.rx:kick()
			local stream <close> = assert(device:connect(1))
			peer.driver:wait_needs_reset()
			assert.is_not_nil(stream)
		end)

		it("does not spin on host data when its ring is broken", function()
			start()
			local stream <close> = peer:accept(1)
			device:store16(peer.tx.avail + 2, 9999)
			peer.driver:set("queue_notify", 1)
			peer.driver:wait_needs_reset()
			stream:write "x"
			assert_idle()
			peer.driver:set("status", 0)
			assert.is_true(is_over(stream))
		end)
	end)

	it("ends all connections at a reset, and begins anew", function()
		start()
		local streams, requests = {}, {}
		for i = 1, 5 do streams[i], requests[i] = peer:accept(i) end
		for i = 1, 5 do streams[i]:write(MEGABYTE:sub(1, 100000)) end
		peer.driver:set("status", 0)
		for i = 1, 5 do assert.is_true(is_over(streams[i])) end
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
		assert.equal("b", read_all(stream, 1))
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
