-- Devices whose requests block, over a device that blocks until it is told.
local program = require "spec.support.program"

describe("a device's worker threads", function()
	local function check(name) program.check("spec/virtio/check_workers", name) end

	it("are started by the first request, and by nothing else", function() check "lazy" end)
	it("serve several requests at once, and no more than there may be", function() check "parallel" end)
	it("leave none waiting behind a slow one", function() check "behind" end)
	it("miss no notification when somebody counts them", function() check "kicks" end)
	it("are paused when no request is half done", function() check "pause" end)
	it("hold a driver's reset up for a moment only, and complete nothing for the old one", function() check "reset" end)
	it("complete nothing into a ring that is gone", function() check "ring" end)
	it("end with their device, after what they are at", function() check "free" end)
	it("see a driver that breaks the rules", function() check "broken" end)
	it("are checked at all", function() assert.has_error(function() check "no-such-check" end) end)
end)
