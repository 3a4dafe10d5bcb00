-- Linux's own driver on the other side: real programs on a mount by /dev/fuse.
local build = require "spec.support.build"
local folder = require "spec.support.folder"
local scratch = require "spec.support.scratch"

-- What works on a file system.  The source tree is $1.
local WORK <const> = [[
set -eu
cp -a "$1/src/fuse" tree
diff -r "$1/src/fuse" tree
tar cf tree.tar tree
mkdir copy
tar xf tree.tar -C copy
diff -r tree copy/tree
find . -name '*.h' | wc -l >/dev/null
ln tree/fuse.h hard
ln -s tree/fuse.h soft
cmp hard soft
mv tree/fuse.h moved
cmp hard moved
chmod 4755 moved
[ "$(stat -c %a hard)" = 4755 ]
touch -d '2001-01-01 UTC' hard
[ "$(stat -c %Y moved)" = 978307200 ]
mkfifo fifo
(echo through > fifo) &
[ "$(cat fifo)" = through ]
dd if=/dev/urandom of=big bs=1M count=8 status=none
cp --reflink=never big big2
cmp big big2
truncate -s 3000000 big
[ "$(stat -c %s big)" = 3000000 ]
fallocate -p -o 0 -l 1000000 big2
cmp -n 1000000 big2 /dev/zero
rm -r tree copy
python3 - <<'END'
import fcntl, mmap, os, sqlite3, threading
db = sqlite3.connect("db")
db.execute("create table t (a integer, b text)")
for i in range(10):
    with db:
        db.executemany("insert into t values (?, ?)", [(i, "x" * 100)] * 50)
assert db.execute("select count(*) from t").fetchone()[0] == 500
assert db.execute("pragma integrity_check").fetchone()[0] == "ok"
with open("mapped", "w+b") as f:
    f.truncate(1 << 20)
    m = mmap.mmap(f.fileno(), 1 << 20)
    for i in range(0, 1 << 20, 4096):
        m[i:i + 8] = b"%08d" % i
    m.flush()
    f.seek(4096 * 7)
    assert f.read(8) == b"%08d" % (4096 * 7)
with open("locked", "w") as f, open("locked", "w") as g:
    fcntl.flock(f, fcntl.LOCK_EX)
    try:
        fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise SystemExit("two have it")
    except BlockingIOError:
        pass
def storm(k):
    os.mkdir("storm%d" % k)
    for i in range(100):
        path = "storm%d/%d" % (k, i)
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)
        os.write(fd, b"a" * i)
        os.rename(path, path + "x")
        assert os.fstat(fd).st_size == i
        if i % 2 and UNLINKS:
            os.unlink(path + "x")
            assert os.fstat(fd).st_size == i and os.pread(fd, 1000, 0) == b"a" * i
        os.close(fd)
    assert len(os.listdir("storm%d" % k)) == (50 if UNLINKS else 100)
threads = [threading.Thread(target=storm, args=(k,)) for k in range(4)]
for t in threads: t.start()
for t in threads: t.join()
END
]]

describe("a mount that Linux makes", function()
	local able = scratch.is_root() and pcall(scratch.run, "exec 3<>/dev/fuse && unshare -m true")
	local temporary
	before_each(function()
		temporary = folder.new()
		scratch.run(("mkdir %s %s"):format(temporary:join "host", temporary:join "mount"))
	end)
	after_each(function() temporary:close() end)

	-- Runs a script in the mount; the counters.
	local function run(options, script, ...)
		local path = temporary:write("script/work", script)
		local said = scratch.run(("%s/spec/fuse/kernel %s %s '%s' 4 sh %s %s"):format(build.dir, temporary:join "host",
			temporary:join "mount", options, path, table.concat({ ... }, " ")))
		local stats = {}
		for key, value in said:gmatch "(%l+)=(%d+)" do stats[key] = tonumber(value) end
		return stats, said
	end
	local function works(what, test)
		it(what, function()
			if not able then return pending "needs root and /dev/fuse" end
			test()
		end)
	end

	-- Those who ask for what they were told are not hostile; nothing is stale where nobody else changes the folder.
	for _, options in ipairs { "strict", "auto", "always writeback", "strict few", "auto flock passthrough" } do
		works("does what programs need: " .. options, function()
			local stats = run(options, WORK:gsub("UNLINKS", "True"), scratch.run "pwd")
			assert.are.same({ 0, 0, 0 }, { stats.hostile, stats.stale, stats.handles })
			assert.is_true(stats.requests > 1000)
			assert.are.equal(options:find "few" ~= nil, stats.evicted > 0)
			assert.are.equal("550", scratch.run(("cd %s && cat db mapped locked >/dev/null && python3 -c '%s'")
				:format(temporary:join "host",
				'import sqlite3; print(sqlite3.connect("db").execute("select count(*) from t").fetchone()[0] + 50)')))
		end)
	end

	works("goes on in another server, again and again", function()
		local stats = run("strict few save", WORK:gsub("UNLINKS", "False"), scratch.run "pwd")
		assert.are.same({ 0, 0, 0 }, { stats.hostile, stats.stale, stats.handles })
	end)

	works("shows at once what the host does, where nothing is kept", function()
		run("strict", [[
			set -eu
			echo one > f
			cat f > /dev/null
			echo twelve > ../host/f
			[ "$(cat f)" = twelve ]
			exec 3< f
			read -r line <&3
			echo again! > ../host/f
			[ "$(dd if=/dev/fd/3 bs=100 count=1 status=none)" = again! ]
			rm ../host/f
			[ ! -e f ]
			mkdir ../host/d
			[ -d d ]
			touch ../host/d/x
			[ "$(ls d)" = x ]
			mv ../host/d ../host/e
			[ "$(ls e)" = x ] && [ ! -e d ]
		]])
	end)

	works("cannot be written where it is for reading", function()
		temporary:write("host/f", "1")
		run("strict readonly", [[
			for try in 'echo 2 > f' 'rm f' 'mkdir d' 'touch f' 'chmod 777 f' 'mv f g' 'ln f g' 'truncate -s 0 f'; do
				if sh -c "$try" 2>/dev/null; then echo "$try" >&2; exit 1; fi
			done
			[ "$(cat f)" = 1 ]
		]])
	end)

	works("locks with the host", function()
		run("auto flock", [[
			set -eu
			echo > f
			flock ../host/f sh -c 'touch held; while [ ! -e go ]; do sleep 0.01; done' &
			while [ ! -e held ]; do sleep 0.01; done
			! flock -n f true
			flock f touch got &
			[ ! -e got ]
			touch go
			wait
			[ -e got ]
		]])
	end)
end)
