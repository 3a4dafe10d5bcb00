-- Nothing outside the mount's root is reached.
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

local S, O = fuse.S, fuse.O

describe("a FUSE mount's root", function()
	local temporary, mount
	local function open(options)
		if mount then mount:close() end
		options = options or {}
		options.host = temporary:join "root"
		mount = assert(fuse.new(options))
		return mount
	end
	before_each(function()
		temporary = folder.new()
		temporary:write("outside/secret", "secret")
		temporary:write("root/inside", "inside")
		temporary:write("root/dir/file", "file")
	end)
	after_each(function()
		if mount then mount:close() end
		mount = nil
		temporary:close()
	end)

	it("is the end of every name", function()
		open()
		local before = mount:stats().hostile
		local f = assert(mount:lookup(1, "inside"))
		local count = 0
		for _, name in ipairs { "..", ".", "", "/", "../outside", "/etc/passwd", "dir/file", "dir/", "/inside", "./inside",
			"dir/../inside" } do
			for what, call in pairs {
				lookup = function() return mount:lookup(1, name) end,
				mkdir = function() return mount:mkdir(1, name) end,
				mknod = function() return mount:mknod(1, name, S.REG) end,
				create = function() return mount:create(1, name) end,
				symlink = function() return mount:symlink(1, name, "x") end,
				link = function() return mount:link(f.node, 1, name) end,
				unlink = function() return mount:unlink(1, name) end,
				rmdir = function() return mount:rmdir(1, name) end,
				["rename from"] = function() return mount:rename(1, name, 1, "x") end,
				["rename to"] = function() return mount:rename(1, "inside", 1, name) end,
				["rename2 to"] = function() return mount:rename(1, "inside", 1, name, 0) end,
			} do
				assert.are.same({ what, name, nil, "EINVAL" }, { what, name, call() })
				count = count + 1
			end
		end
		assert.are.equal(before + count, mount:stats().hostile)
		assert.are.equal("dir\ndir/file\ninside", scratch.run(("cd %s && find * | sort"):format(temporary:join "root")))
	end)

	it("takes names of their length only", function()
		open()
		for _, case in ipairs { { ("x"):rep(256), "ENAMETOOLONG" }, { ("x"):rep(65536), "ENAMETOOLONG" }, { ("x"):rep(255),
			"ENOENT" },
			{ ("x"):rep(1 << 20), "ENAMETOOLONG" } } do
			assert.are.same({ nil, case[2] }, { mount:lookup(1, case[1]) })
		end
		assert.are.same({ nil, "ENAMETOOLONG" }, { mount:mkdir(1, ("x"):rep(256)) })
		assert.are.same({ nil, "ENAMETOOLONG" }, { mount:rename(1, "inside", 1, ("x"):rep(70000)) })
		-- Two names where one should be, none, one that does not end.
		for _, body in ipairs { "inside\0inside\0", "inside", "\0\0", "in\0side\0" } do
			assert.are.same({ nil, "EINVAL" }, { mount:call("UNLINK", 1, body) })
		end
		assert.are.same({ nil, "EINVAL" }, { mount:call("RENAME", 1, ("<I8"):pack(1) .. "inside\0") })
		assert.are.same({ nil, "EINVAL" }, { mount:call("RENAME", 1, ("<I8"):pack(1) .. "inside\0x") })
		assert.are.same({ nil, "EINVAL" }, { mount:call("SYMLINK", 1, "x\0y") })
		assert.are.same({ nil, "EINVAL" }, { mount:call("SYMLINK", 1, "x\0y\0z\0") })
		assert.are.same({ nil, "EINVAL" }, { mount:call("MKDIR", 1, ("<I4I4"):pack(493, 0) .. "a\0b\0") })
		assert.are.same({ nil, "ENAMETOOLONG" }, { mount:symlink(1, "x", ("y"):rep(5000)) })
		assert.are.equal("inside", mount:content(1, "inside"))
	end)

	it("is not left by a link, which is bytes to the host", function()
		open()
		local targets = {
			up = "../outside/secret", absolute = temporary:join "outside/secret", folder = "../outside", self = "self",
		}
		for name, target in pairs(targets) do
			local link = assert(mount:symlink(1, name, target))
			assert.are.equal(S.LNK, link.attr.mode & S.FMT)
			assert.are.equal(target, mount:readlink(link.node))
			assert.are.same({ nil, "ENOTDIR" }, { mount:lookup(link.node, "secret") })
			assert.are.same({ nil, "ELOOP" }, { mount:open(link.node) })
			assert.are.same({ nil, "ENOTDIR" }, { mount:opendir(link.node) })
			assert.are.same({ nil, "ENOTDIR" }, { mount:create(link.node, "x") })
			assert.are.same({ nil, "ENOTDIR" }, { mount:rename(1, "inside", link.node, "x") })
			assert.are.same({ nil, "EEXIST" }, { mount:create(1, name, O.RDWR | O.EXCL) })
		end
		assert.are.same({ nil, "EINVAL" }, { mount:readlink(1) })
		assert.are.equal("secret", scratch.run("ls " .. temporary:join "outside"))
		assert.are.equal("secret", scratch.read(temporary:join "outside/secret"))
	end)

	it("has no links that lead out, where the mount denies them", function()
		scratch.run(("cd %s/root && ln -s ../outside up && ln -s /etc absolute && ln -s inside near && " ..
			"ln -s ../inside dir/near && " ..
			"ln -s ../../outside dir/up && ln -s nowhere dangling && ln -s ../nowhere gone && ln -s up via")
				:format(temporary.path))
		open { symlinks = "deny" }
		local dir = assert(mount:lookup(1, "dir"))
		for _, case in ipairs { { 1, "up" }, { 1, "absolute" }, { 1, "gone" }, { 1, "via" }, { dir.node, "up" } } do
			assert.are.same({ case[2], nil, "EACCES" }, { case[2], mount:lookup(case[1], case[2]) })
		end
		assert.are.equal("inside", mount:readlink(assert(mount:lookup(1, "near")).node))
		assert.are.equal("../inside", mount:readlink(assert(mount:lookup(dir.node, "near")).node))
		assert.are.equal("nowhere", mount:readlink(assert(mount:lookup(1, "dangling")).node))
		-- Nor where the host has moved the folder meanwhile, so that it is not known from where they lead.
		scratch.run(("cd %s/root && mkdir deep && mv dir deep/dir"):format(temporary.path))
		assert.are.same({ nil, "EACCES" }, { mount:lookup(dir.node, "near") })
		dir = assert(mount:lookup(assert(mount:lookup(1, "deep")).node, "dir"))
		assert.are.equal("../inside", mount:readlink(assert(mount:lookup(dir.node, "near")).node))
		assert.are.same({ nil, "EPERM" }, { mount:symlink(1, "new", "inside") })
		assert.are.same({ nil, "EPERM" }, { mount:link(assert(mount:lookup(1, "inside")).node, 1, "new") })
	end)

	it("is left by the host's links, where the mount follows them", function()
		scratch.run(("cd %s/root && ln -s ../outside up && ln -s ../outside/secret file && ln -s . loop && " ..
			"ln -s nowhere dangling")
			:format(temporary.path))
		open { symlinks = "follow" }
		local up = assert(mount:lookup(1, "up"))
		assert.are.equal(S.DIR, up.attr.mode & S.FMT)
		assert.are.equal("secret", mount:content(up.node, "secret"))
		assert.are.equal("secret", mount:content(1, "file"))
		local dangling = assert(mount:lookup(1, "dangling"))
		assert.are.equal("nowhere", mount:readlink(dangling.node))
		-- One folder at two places is two nodes, as Linux must have it.
		local loop = assert(mount:lookup(1, "loop"))
		assert.are_not.equal(1, loop.node)
		assert.are.equal(loop.node, assert(mount:lookup(1, "loop")).node)
		local deeper = assert(mount:lookup(loop.node, "loop"))
		assert.are_not.equal(loop.node, deeper.node)
		assert.are.equal("inside", mount:content(deeper.node, "inside"))
		assert.are.equal(S.DIR, assert(mount:list(1, true).up).entry.attr.mode & S.FMT)
		-- What is removed is the link.
		assert.is_true(mount:unlink(1, "file"))
		assert.are.equal("secret", scratch.read(temporary:join "outside/secret"))
	end)

	it("holds while names are swapped for links", function()
		open()
		local swap = scratch.run(("cd %s/root && (while [ -e ../go ] || [ ! -e ../done ]; do " ..
			"ln -sfn ../outside/secret swap.tmp; mv -T swap.tmp swap; printf inside > swap.tmp; mv -T swap.tmp swap; " ..
			"done >/dev/null 2>&1 & echo $!)"):format(temporary.path))
		local good, links = 0, 0
		for _ = 1, 20000 do
			local found = mount:lookup(1, "swap")
			if found then
				local fh = mount:open(found.node)
				if fh then
					local data = mount:read(found.node, fh, 0, 100)
					assert.is_true(data == "inside" or data == "", data)
					good = good + 1
					mount:release(found.node, fh)
				else
					links = links + 1
				end
				mount:forget(found.node)
			end
			if good > 200 and links > 200 then break end
		end
		scratch.write(temporary:join "done", "")
		scratch.run(("while kill -0 %s 2>/dev/null; do sleep 0.01; done"):format(swap))
		assert.is_true(good > 0 and links > 0, ("%d files, %d links"):format(good, links))
	end)

	it("holds while a folder is swapped for a link", function()
		open { max_descriptors = 16 } -- so that they are found again and again
		scratch.run(("cd %s/root && mkdir -p real/sub && printf inside > real/sub/secret && " ..
			"for i in $(seq 40); do mkdir f$i; done")
			:format(temporary.path))
		scratch.run(("cd %s && mkdir outside/sub && printf secret > outside/sub/secret"):format(temporary.path))
		local swap = scratch.run(("cd %s/root && (while [ ! -e ../done ]; do mv -T real kept; " ..
			"ln -s ../outside real; rm real; mv -T kept real; done >/dev/null 2>&1 & echo $!)"):format(temporary.path))
		local others = {}
		for i = 1, 40 do others[i] = assert(mount:lookup(1, "f" .. i)).node end
		local good, bad, sub = 0, 0, nil
		for round = 1, 3000 do
			if not sub then
				local real = mount:lookup(1, "real")
				sub = real and mount:lookup(real.node, "sub")
			end
			if sub then
				local data, code = mount:content(sub.node, "secret")
				assert.is_true(data == nil or data == "inside", data)
				if data then good = good + 1 else bad = bad + 1 end
				if code == "ESTALE" then sub = nil end
			end
			for i = 1, 20 do mount:getattr(others[(round + i) % 40 + 1]) end
			if good > 100 and bad > 100 then break end
		end
		scratch.write(temporary:join "done", "")
		scratch.run(("while kill -0 %s 2>/dev/null; do sleep 0.01; done"):format(swap))
		assert.is_true(good > 0 and bad > 0, ("%d good, %d bad"):format(good, bad))
	end)

	it("does not open what is no file or folder", function()
		open()
		local swapped = assert(mount:create(1, "fifo"))
		assert.is_true(mount:release(swapped.node, swapped.fh))
		scratch.run(("cd %s/root && rm fifo && mkfifo fifo"):format(temporary.path))
		-- Nobody writes to it: an open would never return.
		local now = assert(mount:lookup(1, "fifo"))
		assert.are_not.equal(swapped.node, now.node)
		assert.are.same({ nil, "ENXIO" }, { mount:open(now.node) })
		assert.are.same({ nil, "ESTALE" }, { mount:create(1, "fifo", O.RDWR) })
		assert.are.same({ nil, "EINVAL" }, { mount:setattr(now.node, { size = 0 }) })
		assert.are.same({ nil, "ENXIO" }, { mount:syncfs(now.node) })
	end)

	it("knows its nodes", function()
		open()
		for _, node in ipairs { 0, 2, 3, 1000, -1, 1 << 63, 1 << 32 } do
			assert.are.same({ nil, "ESTALE" }, { mount:getattr(node) })
			assert.are.same({ nil, "ESTALE" }, { mount:lookup(node, "x") })
			assert.are.same({ nil, "ESTALE" }, { mount:rename(1, "inside", node, "x") })
		end
		assert.are.equal(21, mount:stats().hostile)
	end)

	it("lets nobody forget more than was looked up", function()
		open()
		local f = assert(mount:lookup(1, "inside"))
		local fh = assert(mount:open(f.node))
		mount:forget(f.node, 1 << 40)
		assert.are.equal(1, mount:stats().hostile)
		assert.are.equal("inside", mount:read(f.node, fh, 0, 100)) -- the handle holds it
		assert.is_true(mount:release(f.node, fh))
		assert.are.equal(0, mount:stats().nodes)
		mount:forget(f.node)
		mount:forget(12345)
		mount:forget(1, 1 << 60) -- the root was not looked up
		assert.is_truthy(mount:getattr(1))
		mount:call("BATCH_FORGET", 0, ("<I4I4I8I8"):pack(2, 0, 99, 1)) -- one less than it says
		mount:call("BATCH_FORGET", 0, ("<I4I4I8I8"):pack(0xffffffff, 0, 99, 1))
		mount:call("BATCH_FORGET", 0, ("<I4I4"):pack(0, 0))
		assert.are.equal(5, mount:stats().hostile)
	end)
end)
