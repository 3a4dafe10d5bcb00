-- A FUSE session over the rings of a file system device.
local core = require "supermachine.core"
local fuse = require "spec.support.fuse"
local virtio = require "spec.support.virtio_driver"

local fs = { HIPRIO = 0, REQUEST = 1 }

-- A FUSE session through the request queue.
function fs.session(driver)
	local server = {}
	function server.serve(_, bytes, room)
		local queue = driver.queues[fs.REQUEST]
		local parts = { { gpa = driver:alloc(#bytes), len = #bytes } }
		driver.device:write(parts[1].gpa, bytes)
		if room > 0 then parts[2] = { gpa = driver:alloc(room), len = room, write = true } end
		queue:add(parts)
		queue:kick()
		local used, written = queue:pop()
		return queue:data(used, written)
	end
	return fuse.over(server)
end

function fs.start(options)
	local device = assert(core.virtio_device("fs", options))
	local driver = virtio.start(device, 2)
	return device, driver, fs.session(driver)
end

return fs
