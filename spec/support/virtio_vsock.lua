-- The guest's side of a vsock device: packets in and out, over spec.support.virtio_driver.
local virtio = require "spec.support.virtio_driver"

local vsock = { REQUEST = 1, RESPONSE = 2, RST = 3, SHUTDOWN = 4, RW = 5, CREDIT_UPDATE = 6, CREDIT_REQUEST = 7 }

vsock.BUF_ALLOC = 256 << 10 -- the device's, for each connection

-- 1 MiB without a period that buffers could hide.
local words = {}
for i = 1, 1 << 17 do words[i] = ("<I8"):pack(i * 0x9e3779b97f4a7c15) end
vsock.MEGABYTE = table.concat(words)

local HEADER = "<I8I8I4I4I4I2I2I4I4I4"
local Peer = {}
Peer.__index = Peer

function vsock.pack(p, len)
	return HEADER:pack(p.src_cid or 3, p.dst_cid or 2, p.src_port, p.dst_port, len, p.type or 1, p.op, p.flags or 0,
		p.buf_alloc or 0, p.fwd_cnt or 0)
end

local function on_driver(peer, driver)
	peer.driver, peer.device = driver, driver.device
	peer.rx, peer.tx, peer.events = driver.queues[0], driver.queues[1], driver.queues[2]
	return setmetatable(peer, Peer)
end

-- The same guest in a machine that was restored on another device.
function Peer:move(device)
	return on_driver({ buf_alloc = self.buf_alloc, size = self.size, tx_gpa = self.tx_gpa }, self.driver:move(device))
end

-- options: rx = receive buffers (default 32), size = of each (4096), features
function vsock.start(device, options)
	options = options or {}
	local driver = virtio.start(device, 3, { num = 64, features = options.features })
	local peer = on_driver({ buf_alloc = options.buf_alloc or 1 << 20, size = options.size or 4096 }, driver)
	peer.tx_gpa = driver:alloc(70000)
	peer.events:push { 8 }
	peer.events:kick()
	peer:refill(options.rx or 32)
	return peer
end

-- Give the device `count` new receive buffers.
function Peer:refill(count)
	for _ = 1, count do self.rx:push { self.size } end
	if count > 0 then self.rx:kick() end
end

-- Send a packet by the guest: fields by name; a connection's table serves for the ports.
function Peer:send(fields, data)
	data = data or ""
	fields.buf_alloc = fields.buf_alloc or self.buf_alloc
	self.device:write(self.tx_gpa, vsock.pack(fields, fields.len or #data) .. data)
	self.tx:add { { gpa = self.tx_gpa, len = 44 + #data } }
	self.tx:kick()
	self.tx:pop()
end

-- The next packet by the host if there is one.  keep: its buffer is not given back.
function Peer:poll(keep)
	local parts, written = self.rx:poll()
	if not parts then return nil end
	local bytes = self.rx:data(parts, written)
	local p = {}
	p.src_cid, p.dst_cid, p.src_port, p.dst_port, p.len, p.type, p.op, p.flags, p.buf_alloc, p.fwd_cnt =
		HEADER:unpack(bytes)
	p.data = bytes:sub(45)
	assert(#p.data == p.len, "header and used length differ")
	if not keep then
		self.rx:add(parts)
		self.rx:kick()
	end
	return p
end

function Peer:receive(keep)
	if self.driver.negotiated & virtio.F_EVENT_IDX ~= 0 then
		self.device:store16(self.rx.avail + 4 + 2 * self.rx.num, self.rx.last_used)
	end
	local packet
	self.driver:wait(function()
		packet = self:poll(keep)
		return packet
	end, "a packet")
	return packet
end

-- The next packet, which must have this operation.
function Peer:expect(op, keep)
	local packet = self:receive(keep)
	assert(packet.op == op, ("expected operation %d, got %d"):format(op, packet.op))
	return packet
end

-- Answer of one connection's packet: its ports, turned round.
function vsock.reply(packet, op, more)
	local fields = { src_port = packet.dst_port, dst_port = packet.src_port, op = op }
	for key, value in pairs(more or {}) do fields[key] = value end
	return fields
end

-- The host connects to `port` and the guest accepts: host stream, and the connection's request packet.
function Peer:accept(port, more)
	local stream = assert(self.device:connect(port))
	local request = self:expect(vsock.REQUEST)
	assert(request.dst_port == port)
	self:send(vsock.reply(request, vsock.RESPONSE, more))
	return stream, request
end

-- Send by the guest on this connection for as long as the host gives credit: bytes sent, and the last credit.
function Peer:fill(request)
	local sent, credit = 0, 0
	local packet
	repeat
		while vsock.BUF_ALLOC - (sent - credit) >= 65536 do
			self:send(vsock.reply(request, vsock.RW), vsock.MEGABYTE:sub(sent + 1, sent + 65536))
			sent = sent + 65536
		end
		self.driver:settle()
		packet = self:poll()
		if packet then credit = packet.fwd_cnt end
	until not packet
	return sent, credit
end

-- Nothing goes on: no work done, and next to no processor time, in a tenth of a second.
function Peer:assert_idle()
	local device = self.device
	device:settle()
	local before = device:stats()
	device:irq(0)
	local clock = os.clock()
	assert(device:irq(100) == 0, "the device interrupts")
	assert(os.clock() - clock < 0.01, "the loop spins")
	for name, value in pairs(device:stats()) do
		assert(value == before[name], ("%s: %d, then %d"):format(name, before[name], value))
	end
end

-- The next `count` bytes of the host's stream.
function vsock.read_all(stream, count)
	local out = {}
	while count > 0 do
		local bytes = assert(stream:read(math.min(count, 65536), virtio.WAIT_MS))
		assert(bytes ~= "", "early end of file")
		out[#out + 1] = bytes
		count = count - #bytes
	end
	return table.concat(out)
end

-- End of file, or the reset that closing a socket with unread bytes makes.
function vsock.is_over(stream)
	local bytes, _, code = stream:read(1, virtio.WAIT_MS)
	return bytes == "" or code == "ECONNRESET"
end

return vsock
