-- What flows over connections of the vsock device: bytes, credit, buffers, and what a guest gets that breaks the rules.
local core = require "supermachine.core"
local vsock = require "spec.support.virtio_vsock"

local MEGABYTE = vsock.MEGABYTE

describe("the vsock device", function()
	local device, peer

	local function start(options)
		device = assert(core.virtio_device("vsock", {}))
		peer = vsock.start(device, options)
	end
	after_each(function() device:close() end)

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
			while vsock.BUF_ALLOC - (sent - credit) < 65536 do
				local packet = peer:expect(vsock.CREDIT_UPDATE)
				assert.equal(vsock.BUF_ALLOC, packet.buf_alloc)
				credit = packet.fwd_cnt
			end
			peer:send(vsock.reply(request, vsock.RW), MEGABYTE:sub(sent + 1, sent + 65536))
			sent = sent + 65536
			got[#got + 1] = vsock.read_all(stream, 65536)
		end
		assert.is_true(table.concat(got) == MEGABYTE)
		assert.is_true(credit >= #MEGABYTE - vsock.BUF_ALLOC)
	end)

	it("takes a packet in many pieces", function()
		start()
		local stream <close>, request = peer:accept(1)
		local data = MEGABYTE:sub(1, 3000)
		local bytes = vsock.pack(vsock.reply(request, vsock.RW), 3000) .. data
		peer.tx:push({ bytes:sub(1, 10), bytes:sub(11, 50), bytes:sub(51, 51), bytes:sub(52, 1500), bytes:sub(1501) }, true)
		peer.tx:kick()
		assert.equal(data, vsock.read_all(stream, 3000))
	end)

	it("keeps what the host does not read, up to the credit, and gives none meanwhile", function()
		start()
		local stream <close>, request = peer:accept(1)
		local sent, credit = peer:fill(request) -- more than the socket takes: credit stops
		assert.is_true(sent > credit)
		peer:assert_idle()
		assert.is_true(vsock.read_all(stream, sent) == MEGABYTE:sub(1, sent))
		peer:send(vsock.reply(request, vsock.CREDIT_REQUEST))
		local packet
		repeat packet = peer:expect(vsock.CREDIT_UPDATE) until packet.fwd_cnt == sent
	end)

	it("sends no more than the guest has credit for, and goes on when it has", function()
		start { buf_alloc = 100 }
		local stream <close>, request = peer:accept(1, { buf_alloc = 100 })
		stream:write(MEGABYTE:sub(1, 250))
		assert.equal(MEGABYTE:sub(1, 100), peer:expect(vsock.RW).data)
		peer:expect(vsock.CREDIT_REQUEST)
		peer:assert_idle()
		assert.is_nil(peer:poll())
		peer:send(vsock.reply(request, vsock.CREDIT_UPDATE, { fwd_cnt = 0 })) -- none yet
		peer:assert_idle()
		assert.is_nil(peer:poll())
		peer:send(vsock.reply(request, vsock.CREDIT_UPDATE, { fwd_cnt = 60 }))
		assert.equal(MEGABYTE:sub(101, 160), peer:expect(vsock.RW).data)
		peer:expect(vsock.CREDIT_REQUEST)
		peer:send(vsock.reply(request, vsock.CREDIT_UPDATE, { fwd_cnt = 160 }))
		assert.equal(MEGABYTE:sub(161, 250), peer:expect(vsock.RW).data)
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
		peer:assert_idle()
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
				assert.is_true(vsock.is_over(stream))
				device:close()
			end
			start()
			local stream <close>, request = peer:accept(1)
			peer:send(vsock.reply(request, vsock.SHUTDOWN, { flags = 2 }))
			peer:send(vsock.reply(request, vsock.RW), "after the end")
			peer:expect(vsock.RST)
			assert.is_true(vsock.is_over(stream))
		end)

		it("ignores packets whose length is a lie", function()
			start()
			local stream <close>, request = peer:accept(1)
			peer:send(vsock.reply(request, vsock.RW, { len = 6 }), "short")
			peer:send(vsock.reply(request, vsock.RW, { len = 0xffffffff }), "short")
			peer.tx:call { "half a header" }
			assert.equal(3, device:stats().errors)
			peer:send(vsock.reply(request, vsock.RW, { len = 2 }), "only the start")
			assert.equal("on", vsock.read_all(stream, 2))
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
			peer:assert_idle()
			peer.driver:set("status", 0)
			assert.is_true(vsock.is_over(stream))
		end)
	end)
end)
