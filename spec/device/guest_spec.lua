-- The serial port under Linux' own driver, which reads what comes in when an interrupt says so.
local lab = require "spec.support.lab"

local hear = [[
import fcntl, os, select, struct, sys, termios, tty
LOOP = struct.pack("I", 0x8000)  # TIOCM_LOOP
port = os.open("/dev/" + sys.argv[1], os.O_RDWR | os.O_NOCTTY)
tty.setraw(port)
fcntl.ioctl(port, termios.TIOCMBIS, LOOP)
for size in [1, 5, 14, 16] + [1] * 20:
    said, heard = bytes(range(65, 65 + size)), b""
    os.write(port, said)
    while len(heard) < size and select.select([port], [], [], 20)[0]:
        heard += os.read(port, 64)
    assert heard == said, (said, heard)
fcntl.ioctl(port, termios.TIOCMBIC, LOOP)
os.write(port, b"said aloud")
termios.tcdrain(port)
]]

describe("a guest's serial port #lab", function()
	it("hears itself in loopback, and the host without", function()
		local vm <close> = assert(lab.image("python"):boot { memory_mib = 192 })
		local name = vm:plan().cmdline:match "console=(%w+)"
		assert.are.equal("", lab.output(vm, { "python3", "-c", hear, name }))
		assert.matches("said aloud$", vm:console())
	end)
end)
