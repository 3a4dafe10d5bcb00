-- A volume over plain memory with a driver on it, and its requests.
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"
local virtio = require "spec.support.virtio_driver"

local volume = { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13 }
volume.OK, volume.IOERR, volume.UNSUPPORTED = 0, 1, 2
volume.MIB, volume.BLOCK, volume.SECTOR = 1 << 20, 4096, 512

function volume.header(kind, sector) return ("<I4I4I8"):pack(kind, 0, sector or 0) end
function volume.ranges(list)
	local out = {}
	for i, range in ipairs(list) do out[i] = ("<I8I4I4"):pack(range[1], range[2], range[3] or 0) end
	return table.concat(out)
end

--- Bytes that say where they are.
function volume.pattern(bytes, seed)
	local out = {}
	for i = 0, (bytes + 7) // 8 - 1 do out[#out + 1] = ("<I4I4"):pack(i, seed & 0xffffffff) end
	return table.concat(out):sub(1, bytes)
end

function volume.blocks(path) return tonumber(scratch.run("stat -c %b " .. scratch.quote(path))) end

--- A volume of a file in `folder`, with that content: device, driver, path of the file.  Options: readonly, overlay (a
-- path in place of true), bytes, index, features.
function volume.new(folder, content, options)
	options = options or {}
	local path = folder:join "data.img"
	if content then scratch.write(path, content) end
	local file <close> = assert(io.open(path, (options.readonly or options.overlay) and "rb" or "r+b"))
	local overlay <close> = options.overlay and assert(io.open(options.overlay, "w+b")) or nil
	local device = assert(core.virtio_volume {
		file = file, overlay = overlay, readonly = options.readonly, bytes = options.bytes or #content,
		index = options.index,
	})
	return device, virtio.start(device, 1, { features = options.features }), path
end

--- One request, whose last part is the status: status, data.  Its memory is used again by the next.
function volume.request(queue, list, indirect)
	local driver = queue.driver
	driver.first_gpa = driver.first_gpa or driver.next_gpa
	driver.next_gpa = driver.first_gpa
	queue:push(list, indirect)
	queue:kick()
	local parts, written = queue:pop()
	local last, room = parts[#parts], -1
	for _, part in ipairs(parts) do room = room + (part.write and part.len or 0) end
	return queue.device:read(last.gpa + last.len - 1, 1):byte(), queue:data(parts, math.min(written, room))
end

--- The data; or nil and the status.
function volume.read(driver, sector, len)
	local status, data = volume.request(driver.queues[0], { volume.header(volume.IN, sector), len, 1 })
	return status == volume.OK and data or nil, status
end
--- Statuses.
function volume.write(driver, sector, data)
	return (volume.request(driver.queues[0], { volume.header(volume.OUT, sector), data, 1 }))
end
function volume.flush(driver) return (volume.request(driver.queues[0], { volume.header(volume.FLUSH), 1 })) end
function volume.change(driver, kind, list)
	return (volume.request(driver.queues[0], { volume.header(kind), volume.ranges(list), 1 }))
end

return volume
