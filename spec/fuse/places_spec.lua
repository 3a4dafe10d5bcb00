-- Folders with other file systems in them, and on others than a disk's.
local build = require "spec.support.build"
local folder = require "spec.support.folder"
local scratch = require "spec.support.scratch"

describe("a FUSE mount of a folder", function()
	local able = scratch.is_root() and pcall(scratch.run, "unshare -m true")
	local temporary
	before_each(function()
		temporary = folder.new()
		scratch.run("mkdir " .. temporary:join "root")
	end)
	after_each(function() temporary:close() end)

	-- Runs `script` in a mount namespace where the shell lines of `mounts` were done in the folder.
	local function inside(mounts, script)
		local path = temporary:write("program/script.lua", [[
			local fuse = require "spec.support.fuse"
			local scratch = require "spec.support.scratch"
			local mount = assert(fuse.new { host = arg[1], max_descriptors = 16 })
			local function same(a, b, what) assert(a == b, ("%s: %s and %s"):format(what, a, b)) end
		]] .. script .. "\nprint 'fine'")
		local line = ("(cd %s; %s); %s/supermachine %s %s")
			:format(temporary.path, mounts, build.dir, path, temporary:join "root")
		assert.are.equal("fine", scratch.run("unshare -m sh -ec " .. scratch.quote(line)))
	end
	local function works(what, mounts, script)
		it(what, function()
			if not able then return pending "needs root and a mount namespace" end
			inside(mounts, script)
		end)
	end

	works("shows where another begins", [[
		mkdir root/sub root/plain root/bind; touch root/plain/f; mount -t tmpfs none root/sub; mkdir root/sub/below;
		mount --bind root/plain root/bind; echo data > root/sub/file]], [[
		local sub, plain, bind = assert(mount:lookup(1, "sub")), assert(mount:lookup(1, "plain")), assert(mount:lookup(1,
			"bind"))
		same(sub.attr.flags, 1, "a submount")
		same(plain.attr.flags, 0, "none")
		same(bind.attr.flags, 1, "a bind mount")
		same(mount:getattr(sub.node).flags, 1, "asked again")
		same(mount:list(1, true).sub.entry.attr.flags, 1, "listed")
		same(assert(mount:lookup(sub.node, "below")).attr.flags, 0, "below it")
		-- One file at two places of two mounts is two.
		assert(bind.node ~= plain.node)
		local f, g = assert(mount:lookup(plain.node, "f")), assert(mount:lookup(bind.node, "f"))
		same(f.attr.ino, g.attr.ino, "one file")
		assert(f.node ~= g.node)
		assert(select(2, mount:link(f.node, bind.node, "g")) == "EXDEV")
		assert(select(2, mount:rename(plain.node, "f", bind.node, "g")) == "EXDEV")
		-- A guest that does not know of them is told of none.
		local old = assert(fuse.new { host = arg[1], flags = 0 })
		same(assert(old:lookup(1, "sub")).attr.flags, 0, "an old guest")
		-- And they are found again where they were.
		local file = assert(mount:lookup(sub.node, "file"))
		local fh = assert(mount:open(file.node))
		local saved = mount.server:save()
		mount:close()
		mount = assert(fuse.new { host = arg[1], init = false })
		assert(mount.server:load(saved))
		same(mount.server:save(), saved, "saved again")
		same(mount:read(file.node, fh, 0, 100), "data\n", "read")
		same(mount:getattr(g.node).ino, g.attr.ino, "behind the bind mount")
		same(assert(mount:lookup(bind.node, "f")).node, g.node, "looked up")
		same(mount:getattr(sub.node).flags, 1, "a submount after it")
		same(assert(mount:lookup(plain.node, "f")).node, f.node, "looked up")
	]])

	works("has files that an overlay copies when they are written to", [[
		mkdir lower upper work; echo low > lower/f; mkdir lower/d; for i in $(seq 40); do echo > lower/d/$i; done;
		mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none root]], [[
		local f = assert(mount:lookup(1, "f"))
		local fh = assert(mount:open(f.node, 2))
		same(mount:write(f.node, fh, 0, "up"), 2, "written")
		same(assert(mount:lookup(1, "f")).node, f.node, "the same node")
		assert(mount:release(f.node, fh))
		local d = assert(mount:lookup(1, "d"))
		for i = 1, 40 do assert(mount:getattr(assert(mount:lookup(d.node, tostring(i))).node)) end
		same(assert(mount:getattr(f.node)).size, 4, "found again")
		same(mount:content(1, "f"), "up" .. "w\n", "read")
		same(mount:stats().stale, 0, "stale")
	]])

	works("is on tmpfs", "mount -t tmpfs none root; cd root; mkdir d; for i in $(seq 300); do echo > d/$i; done", [[
		local d = assert(mount:lookup(1, "d"))
		local fh = assert(mount:opendir(d.node))
		local seen, offset, count = {}, 0, 0
		while true do
			local list = assert(mount:readdir(d.node, fh, offset, 1000))
			if #list == 0 then break end
			for _, one in ipairs(list) do
				assert(not seen[one.name])
				seen[one.name] = true
				count = count + 1
			end
			offset = list[#list].off
			assert(mount:create(d.node, "new" .. count))
			local saved = mount.server:save()
			mount:close()
			mount = assert(fuse.new { host = arg[1], init = false })
			assert(mount.server:load(saved))
		end
		for i = 1, 300 do assert(seen[tostring(i)], i) end
	]])
end)
