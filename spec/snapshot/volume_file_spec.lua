local build = require "spec.support.build"
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local scratch = require "spec.support.scratch"
local virtio = require "spec.support.virtio_driver"
local volumes = require "spec.support.volume"

local MIB <const> = 1 << 20

describe("a volume's file", function()
	local folder, path
	before_each(function()
		folder = folders.new()
		path = folder:join "data.img"
	end)
	after_each(function() folder:close() end)

	local function open(options)
		options.host = options.host or path
		return core.virtio_volume { volumes = { options } }
	end
	local function opened(options)
		local device, message = open(options)
		assert(device, message)
		device:close()
	end
	local function refused(options, code, ...)
		local device, message, got = open(options)
		assert.is_nil(device)
		assert.equal(code, got, message)
		assert.matches("^volume " .. (options.host or path):gsub("%p", "%%%0") .. ": ", message)
		for _, words in ipairs { ... } do assert.matches(words, message, 1, true) end
	end
	local function size(file) return tonumber(scratch.run("stat -c %s " .. (file or path))) end
	-- "clean" and the file system's blocks, or an error.
	local function ext4()
		scratch.run("e2fsck -fn " .. path)
		local text = scratch.run("dumpe2fs -h " .. path)
		return tonumber(text:match "Block count:%s+(%d+)") * tonumber(text:match "Block size:%s+(%d+)")
	end
	local function names() return scratch.run("cd " .. folder.path .. " && ls -A | LC_ALL=C sort | tr '\n' ' '") end

	it("is made sparse, with ext4, at its first use, and is the same at the next", function()
		opened { bytes = 256 * MIB }
		assert.equal(256 * MIB, size())
		assert.equal(256 * MIB, ext4())
		assert.is_true(volumes.blocks(path) * 512 < 2 * MIB)
		assert.equal("data.img ", names())
		assert.equal("600", scratch.run("stat -c %a " .. path))
		local digest = scratch.run("sha256sum " .. path)
		opened { bytes = 256 * MIB }
		opened {}
		assert.equal(digest, scratch.run("sha256sum " .. path))
	end)

	it("is raw where it is wished so", function()
		opened { bytes = MIB, format = false }
		assert.equal(MIB, size())
		assert.equal(0, volumes.blocks(path))
		scratch.write(path, ("x"):rep(3 * 512))
		local device <close> = assert(open { format = false })
		local driver = virtio.start(device, 1)
		assert.equal(volumes.OK, volumes.write(driver, 1, ("y"):rep(512)))
		assert.equal(("x"):rep(512) .. ("y"):rep(512) .. ("x"):rep(512), scratch.read(path))
	end)

	it("that is there and empty gets ext4, and nothing else does", function()
		scratch.write(path, "")
		refused({}, "EINVAL", "it is empty")
		opened { bytes = 16 * MIB }
		assert.equal(16 * MIB, ext4())
		scratch.run(("rm %s && truncate -s 16M %s"):format(path, path))
		opened {}
		assert.equal(16 * MIB, ext4())
		for _, content in ipairs { "x" .. ("\0"):rep(MIB - 1), ("\0"):rep(MIB - 1) .. "x" } do
			scratch.write(path, content)
			refused({}, "EINVAL", "holds something, and no ext4", "format = false")
			assert.is_true(scratch.read(path) == content)
		end
	end)

	it("does not shrink, and both sizes are named", function()
		opened { bytes = 32 * MIB }
		refused({ bytes = 16 * MIB }, "EINVAL", "16777216 bytes are wanted, and it has 33554432: a volume does not shrink")
		assert.equal(32 * MIB, ext4())
	end)

	it("grows, with its file system, and one that was left half grown", function()
		opened { bytes = 16 * MIB }
		scratch.run("printf 'write /etc/hostname name\n' | debugfs -w -f - " .. path .. " 2>/dev/null")
		opened { bytes = 64 * MIB }
		assert.equal(64 * MIB, size())
		assert.equal(64 * MIB, ext4())
		assert.equal(scratch.read "/etc/hostname", scratch.run("debugfs -R 'cat name' " .. path .. " 2>/dev/null") .. "\n")
		scratch.run("truncate -s 128M " .. path)
		opened {}
		assert.equal(128 * MIB, ext4())
		local raw = folder:join "raw"
		opened { host = raw, bytes = MIB, format = false }
		opened { host = raw, bytes = 2 * MIB, format = false }
		assert.equal(2 * MIB, size(raw))
	end)

	it("is a multiple of 512 bytes", function()
		scratch.write(path, ("x"):rep(1000))
		refused({ format = false }, "EINVAL", "1000 bytes: a volume is a multiple of 512")
		refused({ host = folder:join "new", format = false, bytes = 513 }, "EINVAL", "513")
	end)

	it("is no folder, device, symbolic link, pipe, nor missing", function()
		refused({ host = folder.path, bytes = MIB }, "EISDIR", "a folder")
		refused({ host = "/dev/null", bytes = MIB }, "ENOTBLK", "a device: a volume is a regular file")
		opened { bytes = 16 * MIB }
		scratch.run(("ln -s %s %s"):format(path, folder:join "link"))
		refused({ host = folder:join "link" }, "ELOOP", "a symbolic link: name the file that it points to")
		scratch.run("mkfifo " .. folder:join "pipe")
		refused({ host = folder:join "pipe", readonly = true }, "EINVAL", "not a regular file")
		refused({ host = folder:join "none" }, "ENOENT", "how large it is to be is not said")
		refused({ host = folder:join "none", readonly = true, bytes = MIB }, "ENOENT")
		refused({ host = folder:join "no/where", bytes = MIB }, "ENOENT")
		assert.equal("data.img link pipe ", names())
	end)

	it("is one machine's, or many readers'", function()
		do
			local first <close> = assert(open { bytes = 16 * MIB })
			refused({}, "EBUSY", "in use")
			refused({ readonly = true }, "EBUSY", "in use")
			refused({ overlay = true }, "EBUSY", "in use")
			assert.is_not_nil(first)
		end
		do
			local one <close>, two = open { readonly = true }, open { overlay = true }
			local three <close> = assert(open { readonly = true })
			refused({}, "EBUSY", "in use")
			assert(one and two and three)
			two:close()
		end
		opened {}
	end)

	it("that is read-only is not written to, grown or formatted", function()
		opened { bytes = 16 * MIB }
		local digest = scratch.run("sha256sum " .. path)
		scratch.run("chmod 400 " .. path)
		local device <close> = assert(open { readonly = true })
		local driver = virtio.start(device, 1)
		assert.equal(volumes.IOERR, volumes.write(driver, 0, ("y"):rep(512)))
		refused({ readonly = true, bytes = 32 * MIB }, "EINVAL", "16777216", "33554432", "read-only")
		assert.equal(digest, scratch.run("sha256sum " .. path))
		scratch.write(folder:join "empty", "")
		refused({ host = folder:join "empty", readonly = true }, "EINVAL", "empty")
	end)

	it("under an overlay stays as it is, and is made where it is missing", function()
		local device <close> = assert(open { overlay = true, bytes = 16 * MIB })
		local digest = scratch.run("sha256sum " .. path)
		assert.equal(16 * MIB, ext4())
		local driver = virtio.start(device, 1)
		assert.equal(volumes.OK, volumes.write(driver, 2, ("y"):rep(512)))
		assert.is_true(volumes.read(driver, 2, 512) == ("y"):rep(512))
		assert.equal(digest, scratch.run("sha256sum " .. path))
		local other <close> = assert(open { overlay = true })
		assert.is_false(volumes.read(virtio.start(other, 1), 2, 512) == ("y"):rep(512))
		refused({ overlay = true, bytes = 32 * MIB }, "EINVAL", "under an overlay it stays")
	end)

	-- A killed mkfs: what it leaves is never the file itself.
	it("whose making was killed is made anew, and leaves nothing", function()
		local tools = folder:write("bin/mkfs.ext4", "#!/bin/sh\nkill -9 $PPID\nsleep 5\n"):match "^(.*)/"
		scratch.run("chmod +x " .. tools .. "/mkfs.ext4")
		folder:write("try.lua", ("require('supermachine.core').virtio_volume{volumes={{host=%q,bytes=16<<20}}}"):format(path))
		local fine = os.execute(("PATH=%s:$PATH %s %s 2>/dev/null"):format(tools, build.dir .. "/supermachine",
			folder:join "try.lua"))
		assert.is_nil(fine)
		assert.is_nil(io.open(path))
		assert.matches("data%.img%.supermachine%.......", names())
		opened { bytes = 16 * MIB }
		assert.equal(16 * MIB, ext4())
		assert.equal("bin data.img try.lua ", names())
	end)

	it("without e2fsprogs is an error that names the package", function()
		folder:write("try.lua", ([[
			local device, message, code = require("supermachine.core").virtio_volume{volumes={{host=%q,bytes=16<<20}}}
			print(device, code, message)
		]]):format(path))
		-- Hidden where it is installed, too.
		local empty = folder:join "empty"
		local out = scratch.run(("mkdir %s && unshare -rm sh -ec 'mount --bind %s /usr/sbin; PATH=/no exec %s %s'"):format(
			empty, empty, build.dir .. "/supermachine", folder:join "try.lua"))
		assert.matches("^nil%s+ENOENT%s+volume .*/data%.img: mkfs%.ext4 is not installed: .* package e2fsprogs", out)
		assert.is_nil(io.open(path))
	end)

	it("with a journal that is to be replayed is mended before it is read only", function()
		opened { bytes = 16 * MIB }
		scratch.run("debugfs -w -R 'feature needs_recovery' " .. path .. " 2>/dev/null")
		assert.matches("needs_recovery", scratch.run("dumpe2fs -h " .. path))
		opened { readonly = true }
		assert.is_nil(scratch.run("dumpe2fs -h " .. path):find("needs_recovery", 1, true))
	end)
end)
