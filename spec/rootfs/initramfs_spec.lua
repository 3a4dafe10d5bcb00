-- The guest's first file system, as cpio reads it.
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"

-- An independent reading of a newc archive: one line an entry.
local READER = [[
import sys
data = open(sys.argv[1], 'rb').read()
at = 0
while True:
    assert data[at:at + 6] == b'070701', 'magic'
    (ino, mode, uid, gid, nlink, mtime, size, _, _, major, minor, length, check) = \
        [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
    name = data[at + 110:at + 110 + length]
    assert name[-1:] == b'\0' and check == 0
    name = name[:-1].decode()
    body = (at + 110 + length + 3) // 4 * 4
    if name == 'TRAILER!!!':
        break
    assert (uid, gid, mtime) == (0, 0, 0), name
    content = data[body:body + size]
    print(name, oct(mode)[2:], size, '%d,%d' % (major, minor), content[:20].hex() or '-')
    at = (body + size + 3) // 4 * 4
assert not data[body:].strip(b'\0') and len(data) % 512 == 0
]]

describe("an initramfs", function()
	local folder, out
	before_each(function()
		folder = scratch.folder()
		out = folder .. "/initramfs"
	end)
	after_each(function() scratch.remove(folder) end)

	local function list()
		scratch.write(folder .. "/cpio.py", READER)
		return scratch.run(("python3 '%s/cpio.py' '%s'"):format(folder, out))
	end

	it("holds files, folders, links and devices in order, with the folders they need", function()
		local program = ("program\0"):rep(50000)
		scratch.write(folder .. "/program", program)
		assert(core.initramfs(out, {
			{ path = "/init", mode = tonumber("755", 8), file = folder .. "/program" },
			{ path = "lib", mode = tonumber("40700", 8) },
			{ path = "lib/modules/6.12/erofs.ko", data = "mod\0ule" },
			{ path = "lib/modules/loop.ko", data = "" },
			{ path = "dev/console", mode = tonumber("20600", 8), major = 5, minor = 1 },
			{ path = "bin", target = "usr/bin" },
			{ path = "\u{e9}", data = "u" },
		}))
		assert.are.equal(table.concat({
			"init 100755 400000 0,0 " .. ("70726f6772616d00"):rep(2) .. "70726f67",
			"lib 40700 0 0,0 -",
			"lib/modules 40755 0 0,0 -",
			"lib/modules/6.12 40755 0 0,0 -",
			"lib/modules/6.12/erofs.ko 100644 7 0,0 6d6f6400756c65",
			"lib/modules/loop.ko 100644 0 0,0 -",
			"dev 40755 0 0,0 -",
			"dev/console 20600 0 5,1 -",
			"bin 120777 7 0,0 7573722f62696e",
			"\u{e9} 100644 1 0,0 75",
		}, "\n"), list())
		local command = "cd '%s' && mkdir x && cd x && cpio -idm --quiet --nonmatching dev/console <../initramfs"
			.. " && cmp init ../program"
		scratch.run(command:format(folder))
		assert.are.equal("usr/bin", scratch.run(("readlink '%s/x/bin'"):format(folder)))
	end)

	it("is the same bytes for the same entries", function()
		local entries = { { path = "init", data = "i" }, { path = "a/b/c", data = "c" } }
		assert(core.initramfs(out, entries))
		local first = scratch.read(out)
		assert(core.initramfs(out, entries))
		assert.is_true(first == scratch.read(out))
	end)

	it("refuses what cannot be, and leaves nothing", function()
		local function assert_refused(entries, part)
			local fine, message = core.initramfs(out, entries)
			assert.is_nil(fine)
			assert.is_truthy(message:find(part, 1, true), message)
			assert.are.same({}, scratch.files(folder))
		end
		assert_refused({ { path = "a/../b", data = "" } }, "'a/../b'")
		assert_refused({ { path = "/", data = "" } }, "'/'")
		assert_refused({ { path = "a", data = "" }, { path = "./a", data = "" } }, "twice")
		assert_refused({ { path = "a/b", data = "" }, { path = "a", mode = tonumber("40700", 8) } }, "twice")
		assert_refused({ { path = "a", data = "" }, { path = "a/b", data = "" } }, "'a', which is no directory")
		assert_refused({ { path = "a", file = folder .. "/none" } }, "none")
		assert_refused({ { path = "a", file = "/proc" } }, "regular file")
		assert.has_error(function() core.initramfs(out, { { path = "a", unknown = 1 } }) end)
		assert.has_error(function() core.initramfs(out, { { data = "a" } }) end)
		assert.has_error(function() core.initramfs(out, {}) end)
	end)
end)
