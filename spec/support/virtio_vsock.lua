-- The guest's side of a vsock device: packets in and out, over spec.support.virtio_driver.
local virtio = require "spec.support.virtio_driver"

local vsock = { REQUEST = 1, RESPONSE = 2, RST = 3, SHUTDOWN = 4, RW = 5, CREDIT_UPDATE = 6, CREDIT_REQUEST = 7 }

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

return vsock
