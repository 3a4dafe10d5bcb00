-- Locks that the guest and the host share.
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

local RD, WR, UN = 0, 1, 2
local FLOCK = 1

describe("FUSE locks", function()
	local temporary, mount, f, fh
	before_each(function()
		temporary = folder.new()
		temporary:write("f", "0123456789")
		mount = assert(fuse.new { host = temporary.path, host_locks = true })
		f = assert(mount:lookup(1, "f")).node
		fh = assert(mount:open(f, fuse.O.RDWR))
	end)
	after_each(function()
		mount:close()
		temporary:close()
	end)
	-- What a process of the host gets: "got", or "busy".
	local function host(kind, first, len)
		return scratch.run(([[python3 -c '
import fcntl
f = open("%s", "r+")
try:
	fcntl.%s
	print("got")
except OSError:
	print("busy")']]):format(temporary:join "f", kind == "flock" and "flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)" or
			("lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, %d, %d)"):format(len or 0, first or 0)))
	end
	local function set(owner, type, first, last, handle) return mount:lock("SETLK", f, handle or fh, owner, type, first,
		last) end

	it("are the guest's own affair unless they are shared", function()
		mount:close()
		mount = assert(fuse.new { host = temporary.path })
		f = assert(mount:lookup(1, "f")).node
		fh = assert(mount:open(f, fuse.O.RDWR))
		assert.are.equal(0, mount.agreed.flags & (fuse.flag.POSIX_LOCKS | fuse.flag.FLOCK_LOCKS))
		for _, op in ipairs { "GETLK", "SETLK", "SETLKW" } do assert.are.same({ nil, "ENOSYS" }, { mount:lock(op, f, fh, 1,
			WR) }) end
		assert.are.equal("got", host "posix")
	end)

	it("are held against the host, and the host's against them", function()
		assert.are.equal("", set(1, WR, 0, 4))
		assert.are.equal("busy", host("posix", 0, 5))
		assert.are.equal("got", host("posix", 5, 5))
		assert.are.equal("", set(1, UN, 0, 4))
		assert.are.equal("got", host("posix", 0, 5))
	end)

	it("are a process's: its own do not stop it", function()
		local other = assert(mount:open(f, fuse.O.RDWR))
		assert.are.equal("", set(1, WR, 0, 9))
		assert.are.equal("", set(1, RD, 0, 3, other)) -- by another handle, the same process
		assert.are.equal("", set(2, RD, 0, 3))
		assert.are.same({ nil, "EAGAIN" }, { set(2, WR, 0, 3) })
		assert.are.same({ nil, "EAGAIN" }, { set(2, RD, 4, 4) })
		local body = assert(mount:lock("GETLK", f, fh, 2, WR, 4, 100))
		assert.are.equal(("<I8I8I4I4"):pack(4, 9, WR, 0), body)
		body = assert(mount:lock("GETLK", f, fh, 2, WR, 10, 100))
		assert.are.equal(UN, (select(3, ("<I8I8I4I4"):unpack(body))))
		-- A close of any of its files gives them back.
		assert.is_true(mount:flush(f, other, 1))
		assert.are.equal("", set(2, WR, 0, 100))
		assert.is_true(mount:flush(f, fh, 2))
		assert.are.equal("got", host "posix")
	end)

	it("are a handle's where they are BSD's", function()
		local other = assert(mount:open(f, fuse.O.RDWR))
		assert.are.equal("", mount:lock("SETLK", f, fh, 1, WR, 0, nil, FLOCK))
		assert.are.equal("busy", host "flock")
		assert.are.same({ nil, "EAGAIN" }, { mount:lock("SETLK", f, other, 1, WR, 0, nil, FLOCK) })
		assert.are.equal("", set(1, WR)) -- another kind
		assert.are.equal("", mount:lock("SETLK", f, fh, 1, RD, 0, nil, FLOCK))
		assert.are.equal("", mount:lock("SETLK", f, other, 1, RD, 0, nil, FLOCK))
		assert.is_true(mount:release(f, other, 2))
		assert.is_true(mount:release(f, fh, 2))
		assert.are.equal("got", host "flock")
	end)

	it("wait without a thread that waits", function()
		assert.are.equal("", set(1, WR))
		local before = mount:stats().requests
		for owner = 2, 40 do
			assert.are.same({ nil, "EINPROGRESS" }, { mount:lock("SETLKW", f, fh, owner, WR, 0, nil, 0, { unique = 100 + owner,
				cookie = owner }) })
		end
		assert.are.equal(39, mount:stats().requests - before)
		assert.is_nil((mount.server:later(0)))
		assert.is_truthy(mount:getattr(f)) -- others are served
		-- One after the other gets it.
		local last = 1
		for _ = 2, 40 do
			assert.is_true(mount:flush(f, fh, last))
			local cookie, reply = mount.server:later(5000)
			assert.is_truthy(cookie)
			assert.are.equal("", fuse.reply(reply, 100 + cookie))
			assert.are.same({ nil, "EAGAIN" }, { set(99, WR) })
			last = cookie
		end
	end)

	it("wait for the host", function()
		local pid = scratch.run(([[(python3 -c '
import fcntl, sys, time, os
f = open("%s", "r+")
fcntl.lockf(f, fcntl.LOCK_EX)
fcntl.flock(f, fcntl.LOCK_EX)
open("%s", "w").close()
while not os.path.exists("%s"): time.sleep(0.01)
' >/dev/null 2>&1 & echo $!)]]):format(temporary:join "f", temporary:join "held", temporary:join "go"))
		scratch.run(("while [ ! -e %s ]; do sleep 0.01; done"):format(temporary:join "held"))
		assert.are.same({ nil, "EINPROGRESS" }, { mount:lock("SETLKW", f, fh, 1, WR, 0, nil, 0, { cookie = 1,
			unique = 11 }) })
		assert.are.same({ nil, "EINPROGRESS" }, { mount:lock("SETLKW", f, fh, 1, WR, 0, nil, FLOCK, { cookie = 2,
			unique = 12 }) })
		assert.is_nil((mount.server:later(50)))
		scratch.write(temporary:join "go", "")
		local seen = {}
		for _ = 1, 2 do
			local cookie, reply = assert(mount.server:later(20000))
			assert.are.equal("", fuse.reply(reply, 10 + cookie))
			seen[cookie] = true
		end
		assert.are.same({ true, true }, seen)
		scratch.run(("while kill -0 %s 2>/dev/null; do sleep 0.01; done"):format(pid))
		assert.are.equal("busy", host "posix")
		assert.are.equal("busy", host "flock")
	end)

	it("are waited for until the guest gives up", function()
		assert.are.equal("", set(1, WR))
		assert.are.same({ nil, "EINPROGRESS" }, { mount:lock("SETLKW", f, fh, 2, WR, 0, nil, 0, { cookie = 5,
			unique = 55 }) })
		assert.are.same({ nil, "no reply" }, { mount:call("INTERRUPT", 0, ("<I8"):pack(54)) })
		assert.are.same({ nil, "no reply" }, { mount:call("INTERRUPT", 0, ("<I8"):pack(55)) })
		local cookie, reply = assert(mount.server:later(1000))
		assert.are.equal(5, cookie)
		assert.are.same({ nil, "EINTR" }, { fuse.reply(reply, 55) })
		-- Its file was closed meanwhile.
		local other = assert(mount:open(f, fuse.O.RDWR))
		assert.are.same({ nil, "EINPROGRESS" }, { mount:lock("SETLKW", f, other, 2, WR, 0, nil, 0, { cookie = 6,
			unique = 56 }) })
		assert.is_true(mount:release(f, other))
		cookie, reply = assert(mount.server:later(5000))
		assert.are.same({ 6, nil, "EBADF" }, { cookie, fuse.reply(reply, 56) })
		-- The session ends.
		assert.are.same({ nil, "EINPROGRESS" }, { mount:lock("SETLKW", f, fh, 2, WR, 0, nil, 0, { cookie = 7,
			unique = 57 }) })
		assert(mount:call("DESTROY", 0))
		cookie, reply = assert(mount.server:later(0))
		assert.are.same({ 7, nil, "EINTR" }, { cookie, fuse.reply(reply, 57) })
		assert(mount:init())
		f = assert(mount:lookup(1, "f")).node
		fh = assert(mount:open(f, fuse.O.RDWR))
		assert.are.equal("", set(1, WR))
		-- And so many can wait.
		for i = 1, 1024 do
			assert.are.same({ nil, "EINPROGRESS" }, { mount:lock("SETLKW", f, fh, 2, WR, 0, nil, 0, { unique = i }) })
		end
		assert.are.same({ nil, "ENOLCK" }, { mount:lock("SETLKW", f, fh, 2, WR) })
		mount.server:reset()
		assert.is_nil((mount.server:later(0)))
		assert.are.equal("got", host "posix")
	end)

	it("are kept in pieces, as fcntl joins and cuts them", function()
		local function held()
			local all = {}
			for place = 0, 9 do
				local body = assert(mount:lock("GETLK", f, fh, 7, WR, place, place))
				local _, _, type = ("<I8I8I4"):unpack(body)
				all[#all + 1] = type == WR and "w" or type == RD and "r" or "-"
			end
			return table.concat(all)
		end
		for _, step in ipairs {
			{ WR, 2, 7, "--wwwwww--" }, { UN, 4, 5, "--ww--ww--" }, { RD, 3, 6, "--wrrrrw--" }, { WR, 0, 0, "w-wrrrrw--" },
			{ RD, 8, 9, "w-wrrrrwrr" }, { UN, 0, 9, "----------" }, { WR, 5, 5, "-----w----" }, { WR, 4, 4, "----ww----" },
			{ WR, 6, 6, "----www---" }, { RD, 5, 5, "----wrw---" }, { WR, 0, 9, "wwwwwwwwww" }, { UN, 9, 9, "wwwwwwwww-" },
		} do
			assert.are.equal("", set(1, step[1], step[2], step[3]))
			assert.are.equal(step[4], held())
			-- What we think of it is what the host knows: a session that is saved and loaded holds the same.
			local saved = mount.server:save()
			mount.server:reset()
			assert(mount.server:load(saved))
			assert.are.equal(saved, mount.server:save())
			assert.are.equal(step[4], held())
		end
	end)

	it("are checked", function()
		assert.are.same({ nil, "EINVAL" }, { set(1, 3) })
		assert.are.same({ nil, "EINVAL" }, { set(1, 0xffffffff) })
		assert.are.same({ nil, "EINVAL" }, { set(1, WR, 5, 4) })
		assert.are.same({ nil, "EINVAL" }, { set(1, WR, 0, -1) })
		assert.are.same({ nil, "EBADF" }, { set(1, WR, 0, 1, fh + 1) })
		assert.are.same({ nil, "EINVAL" }, { mount:lock("GETLK", f, fh, 1, WR, 0, 1, FLOCK) })
		assert.are.same({ nil, "EINVAL" }, { mount:lock("GETLK", f, fh, 1, UN, 0, 1) })
		assert.are.equal("", set(1, UN, 0, 1)) -- nothing is held
		for i = 0, 1023 do assert.are.equal("", set(1, WR, 2 * i, 2 * i)) end
		assert.are.same({ nil, "ENOLCK" }, { set(1, WR, 5000, 5000) })
		assert.are.equal("", set(1, WR, 0, 5000))
		local d = assert(mount:opendir(1))
		assert.are.same({ nil, "EBADF" }, { mount:lock("SETLK", 1, d, 1, WR) })
	end)

	it("come back with a session, unless somebody has them", function()
		assert.are.equal("", set(1, WR, 0, 4))
		assert.are.equal("", mount:lock("SETLK", f, fh, 1, WR, 0, nil, FLOCK))
		local saved = mount.server:save()
		mount:close()
		mount = assert(fuse.new { host = temporary.path, host_locks = true, init = false })
		assert(mount.server:load(saved))
		assert.are.equal("got", host("posix", 0, 5)) -- not before the guest asks for anything
		assert.is_truthy(mount:getattr(f))
		assert.are.equal("busy", host("posix", 0, 5))
		assert.are.equal("0123456789", mount:read(f, fh, 0, 100))
		assert.are.equal("busy", host "flock")
		-- Another has them: this process and this handle alone are told.
		local second = assert(fuse.new { host = temporary.path, host_locks = true, init = false })
		assert(second.server:load(saved))
		assert.is_truthy(second:getattr(f))
		assert.are.same({ nil, "EIO" }, { second:lock("SETLK", f, assert(second:open(f, 2)), 1, WR, 0, 4) })
		assert.are.same({ nil, "EIO" }, { second:read(f, fh, 0, 100) })
		assert.are.equal("0123456789", second:read(f, assert(second:open(f, 2)), 0, 100))
		assert.are.equal(1, second:stats().stale)
		second:close()
	end)

	it("pause with the machine", function()
		assert.are.equal("", set(1, WR))
		assert.are.same({ nil, "EINPROGRESS" }, { mount:lock("SETLKW", f, fh, 2, WR, 0, nil, 0, { cookie = 5 }) })
		mount.server:pause(true)
		assert.is_true(mount:flush(f, fh, 1))
		assert.is_nil((mount.server:later(100)))
		mount.server:pause(false)
		assert.are.equal(5, (mount.server:later(5000)))
	end)
end)
