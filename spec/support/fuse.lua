-- A FUSE driver of a few lines: requests as bytes, replies as tables.  What fails is nil and the error's name.
local core = require "supermachine.core"

local fuse = {}

fuse.op = {
	LOOKUP = 1, FORGET = 2, GETATTR = 3, SETATTR = 4, READLINK = 5, SYMLINK = 6, MKNOD = 8, MKDIR = 9, UNLINK =
	10, RMDIR = 11, RENAME = 12, LINK = 13, OPEN = 14, READ = 15, WRITE = 16, STATFS = 17, RELEASE = 18, FSYNC =
	20, SETXATTR = 21, GETXATTR = 22, LISTXATTR = 23, REMOVEXATTR = 24, FLUSH = 25, INIT = 26, OPENDIR = 27,
	READDIR = 28, RELEASEDIR = 29, FSYNCDIR = 30, GETLK = 31, SETLK = 32, SETLKW = 33, ACCESS = 34, CREATE = 35,
	INTERRUPT = 36, DESTROY = 38, IOCTL = 39, BATCH_FORGET = 42, FALLOCATE = 43, READDIRPLUS = 44, RENAME2 = 45,
	LSEEK = 46, COPY_FILE_RANGE = 47, SETUPMAPPING = 48, REMOVEMAPPING = 49, SYNCFS = 50, TMPFILE = 51, STATX =
	52,
}

-- What INIT can agree on.
fuse.flag = {
	POSIX_LOCKS = 1 << 1, ATOMIC_O_TRUNC = 1 << 3, FLOCK_LOCKS = 1 << 10, AUTO_INVAL_DATA = 1 << 12, READDIRPLUS =
	1 << 13, WRITEBACK = 1 << 16, KILLPRIV = 1 << 19, POSIX_ACL = 1 << 20, MAX_PAGES = 1 << 22, CACHE_SYMLINKS = 1
	<< 23, MAP_ALIGNMENT = 1 << 26, SUBMOUNTS = 1 << 27, KILLPRIV_V2 = 1 << 28, SETXATTR_EXT = 1 << 29, INIT_EXT =
	1 << 30, INODE_DAX = 1 << 33,
}
fuse.all_flags = 0x7fffffff -- all but INIT_RESERVED

fuse.O = { RDONLY = 0, WRONLY = 1, RDWR = 2, CREAT = 64, EXCL = 128, TRUNC = 512, APPEND = 1024, NONBLOCK = 2048 }
fuse.S = {
	FMT = 0xf000, SOCK = 0xc000, LNK = 0xa000, REG = 0x8000, BLK = 0x6000, DIR = 0x4000, CHR = 0x2000, FIFO = 0x1000,
}
fuse.FATTR = {
	MODE = 1, UID = 2, GID = 4, SIZE = 8, ATIME = 16, MTIME = 32, FH = 64, ATIME_NOW = 128, MTIME_NOW = 256, KILL = 2048,
}
fuse.ROOT = 1

local errors = {
	[1] = "EPERM", [2] = "ENOENT", [4] = "EINTR", [5] = "EIO", [6] = "ENXIO", [9] = "EBADF", [11] = "EAGAIN", [13]
	= "EACCES", [14] = "EFAULT", [16] = "EBUSY", [17] = "EEXIST", [18] = "EXDEV", [20] = "ENOTDIR", [21] =
	"EISDIR", [22] = "EINVAL", [23] = "ENFILE", [24] = "EMFILE", [25] = "ENOTTY", [27] = "EFBIG", [28] = "ENOSPC",
	[30] = "EROFS", [34] = "ERANGE", [36] = "ENAMETOOLONG", [37] = "ENOLCK", [38] = "ENOSYS", [39] = "ENOTEMPTY",
		[40] = "ELOOP",
	[61] = "ENODATA", [71] = "EPROTO", [75] = "EOVERFLOW", [95] = "EOPNOTSUPP", [116] = "ESTALE", [7] = "E2BIG",
}

local session = {}
session.__index = session
session.__close = function(self) self:close() end

-- The bytes of a request.  `head` may change unique, uid, gid, pid, len.
function fuse.request(op, node, body, head)
	head = head or {}
	return ("<I4I4I8I8I4I4I4I2I2"):pack(head.len or 40 + #body, fuse.op[op] or op, head.unique or 7, node, head.uid or 0,
		head.gid or 0, head.pid or 1, head.ext or 0, 0) .. body
end

-- The body of a reply, or nil and the error's name.
function fuse.reply(bytes, unique)
	if #bytes == 0 then return nil, "no reply" end
	local len, code, number = ("<I4i4I8"):unpack(bytes)
	assert(len == #bytes, ("a reply of %d bytes says that it has %d"):format(#bytes, len))
	assert(number == (unique or 7), "a reply to another request")
	if code ~= 0 then
		assert(len == 16, "an error with a body")
		return nil, errors[-code] or tostring(code)
	end
	return bytes:sub(17)
end

-- A server of `options`, as core.fuse takes them, with a session begun.
function fuse.new(options)
	local init, flags = options.init, options.flags
	local own = {}
	for key, value in pairs(options) do if key ~= "init" and key ~= "flags" then own[key] = value end end
	local server, message, code = core.fuse(own)
	if not server then return nil, message, code end
	local self = setmetatable({ server = server, room = 65536 }, session)
	if init ~= false then self.agreed = assert(self:init(flags)) end
	return self
end

function session:close() self.server:close() end
function session:stats() return self.server:stats() end

function session:call(op, node, body, head)
	head = head or {}
	local bytes, message, code = self.server:serve(fuse.request(op, node, body or "", head), head.room or self.room,
		head.piece or self.piece, head.cookie)
	if not bytes then return nil, code or message end
	return fuse.reply(bytes, head.unique)
end

function session:init(flags, minor, major)
	flags = flags or (fuse.all_flags | fuse.flag.INODE_DAX)
	local body, code = self:call("INIT", 0, ("<I4I4I4I4I4"):pack(major or 7, minor or 39, 1 << 20, flags & 0xffffffff,
		flags >> 32) .. ("\0"):rep(44))
	if not body then return nil, code end
	local out = {}
	out.major, out.minor, out.max_readahead, out.flags, out.max_background, out.congestion, out.max_write, out.time_gran,
		out.max_pages, out.map_alignment, out.flags2 = ("<I4I4I4I4I2I2I4I4I2I2I4"):unpack(body)
	out.flags = out.flags | out.flags2 << 32
	return out
end

local ATTR <const> = "<I8I8I8I8I8I8I4I4I4I4I4I4I4I4I4I4"
local function attr_at(body, at)
	local attr = {}
	attr.ino, attr.size, attr.blocks, attr.atime, attr.mtime, attr.ctime, attr.atimensec, attr.mtimensec, attr.ctimensec,
		attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev, attr.blksize, attr.flags = ATTR:unpack(body, at)
	return attr
end

local function entry_at(body, at)
	local entry = {}
	entry.node, entry.generation, entry.entry_valid, entry.attr_valid = ("<I8I8I8I8"):unpack(body, at)
	entry.attr = attr_at(body, at + 40)
	return entry
end

local function entry(body, code)
	if not body then return nil, code end
	assert(#body == 128, #body)
	return entry_at(body, 1)
end

local function attr(body, code)
	if not body then return nil, code end
	assert(#body == 104, #body)
	local out = attr_at(body, 17)
	out.valid = ("<I8"):unpack(body)
	return out
end

local function done(body, code)
	if not body then return nil, code end
	assert(#body == 0, #body)
	return true
end

function session:lookup(node, name, head) return entry(self:call("LOOKUP", node, name .. "\0", head)) end
function session:forget(node, count) return self:call("FORGET", node, ("<I8"):pack(count or 1)) end
function session:getattr(node, fh)
	return attr(self:call("GETATTR", node, ("<I4I4I8"):pack(fh and 1 or 0, 0, fh or 0)))
end
function session:setattr(node, what, head)
	local valid = 0
	for key in pairs(what) do valid = valid | (fuse.FATTR[key:upper()] or 0) end
	local function now(key) return what[key] == "now" and 0 or what[key] or 0 end
	if what.atime == "now" then valid = valid | fuse.FATTR.ATIME_NOW end
	if what.mtime == "now" then valid = valid | fuse.FATTR.MTIME_NOW end
	return attr(self:call("SETATTR", node, ("<I4I4I8I8I8I8I8I8I4I4I4I4I4I4I4I4"):pack(valid, 0, what.fh or 0,
		what.size or 0, 0, now "atime", now "mtime", 0, what.atimensec or 0, what.mtimensec or 0, 0, what.mode or 0, 0,
			what.uid or 0,
		what.gid or 0, 0), head))
end
function session:readlink(node) return self:call("READLINK", node) end
function session:access(node, mask) return done(self:call("ACCESS", node, ("<I4I4"):pack(mask, 0))) end
function session:statfs(node)
	local body, code = self:call("STATFS", node or 1)
	if not body then return nil, code end
	local out = {}
	out.blocks, out.bfree, out.bavail, out.files, out.ffree, out.bsize, out.namelen, out.frsize =
		("<I8I8I8I8I8I4I4I4"):unpack(body)
	return out
end
function session:statx(node)
	local body, code = self:call("STATX", node, ("<I4I4I8I4I4"):pack(0, 0, 0, 0, 0xfff))
	if not body then return nil, code end
	local out = {}
	out.mask, out.blksize, out.attributes, out.nlink, out.uid, out.gid, out.mode, out.ino, out.size =
		("<I4I4I8I4I4I4I2xxI8I8"):unpack(body, 33)
	out.btime = ("<i8"):unpack(body, 33 + 80)
	return out
end

function session:mknod(node, name, mode, rdev, head)
	return entry(self:call("MKNOD", node, ("<I4I4I4I4"):pack(mode, rdev or 0, 0, 0) .. name .. "\0", head))
end
function session:mkdir(node, name, mode, head)
	return entry(self:call("MKDIR", node, ("<I4I4"):pack(mode or 493, 0) .. name .. "\0", head))
end
function session:symlink(node, name, target, head)
	return entry(self:call("SYMLINK", node, name .. "\0" .. target .. "\0", head))
end
function session:link(old, node, name) return entry(self:call("LINK", node, ("<I8"):pack(old) .. name .. "\0")) end
local function created(body, code)
	if not body then return nil, code end
	assert(#body == 144, #body)
	local out = entry_at(body, 1)
	out.fh, out.open_flags = ("<I8I4"):unpack(body, 129)
	return out
end
function session:create(node, name, flags, mode, head)
	local body = ("<I4I4I4I4"):pack(flags or 2, mode or 420, 0, 0) .. name .. "\0"
	return created(self:call("CREATE", node, body, head))
end
function session:tmpfile(node, flags, mode, head)
	return created(self:call("TMPFILE", node, ("<I4I4I4I4"):pack(flags or 2, mode or 384, 0, 0) .. "/\0", head))
end
function session:unlink(node, name) return done(self:call("UNLINK", node, name .. "\0")) end
function session:rmdir(node, name) return done(self:call("RMDIR", node, name .. "\0")) end
function session:rename(node, name, newdir, newname, flags)
	local names = name .. "\0" .. newname .. "\0"
	if flags then return done(self:call("RENAME2", node, ("<I8I4I4"):pack(newdir, flags, 0) .. names)) end
	return done(self:call("RENAME", node, ("<I8"):pack(newdir) .. names))
end

local function opened(body, code)
	if not body then return nil, code end
	local fh, flags = ("<I8I4"):unpack(body)
	return fh, flags
end
function session:open(node, flags, open_flags)
	return opened(self:call("OPEN", node, ("<I4I4"):pack(flags or 0, open_flags or 0)))
end
function session:opendir(node) return opened(self:call("OPENDIR", node, ("<I4I4"):pack(0, 0))) end
function session:release(node, fh, flags)
	return done(self:call("RELEASE", node, ("<I8I4I4I8"):pack(fh, 0, flags or 0, 0)))
end
function session:releasedir(node, fh) return done(self:call("RELEASEDIR", node, ("<I8I4I4I8"):pack(fh, 0, 0, 0))) end
function session:flush(node, fh, owner)
	return done(self:call("FLUSH", node, ("<I8I4I4I8"):pack(fh, 0, 0, owner or 0)))
end
function session:fsync(node, fh, data)
	return done(self:call("FSYNC", node, ("<I8I4I4"):pack(fh, data and 1 or 0, 0)))
end
function session:fsyncdir(node, fh) return done(self:call("FSYNCDIR", node, ("<I8I4I4"):pack(fh, 0, 0))) end
function session:syncfs(node) return done(self:call("SYNCFS", node or 1, ("<I8"):pack(0))) end
function session:read(node, fh, offset, size, head)
	head = head or { room = (size > 4000000 and 4000000 or size) + 16 }
	return self:call("READ", node, ("<I8I8I4I4I8I4I4"):pack(fh, offset or 0, size, 0, 0, 0, 0), head)
end
function session:write(node, fh, offset, data, flags, head)
	local args = ("<I8I8I4I4I8I4I4"):pack(fh, offset, #data, flags or 0, 0, 0, 0)
	local body, code = self:call("WRITE", node, args .. data, head)
	if not body then return nil, code end
	return (("<I4"):unpack(body))
end
function session:fallocate(node, fh, mode, offset, len)
	return done(self:call("FALLOCATE", node, ("<I8I8I8I4I4"):pack(fh, offset, len, mode, 0)))
end
function session:lseek(node, fh, offset, whence)
	local body, code = self:call("LSEEK", node, ("<I8I8I4I4"):pack(fh, offset, whence, 0))
	if not body then return nil, code end
	return (("<I8"):unpack(body))
end
function session:copy(node, fh, offset, node2, fh2, offset2, len)
	local args = ("<I8I8I8I8I8I8I8"):pack(fh, offset, node2, fh2, offset2, len, 0)
	local body, code = self:call("COPY_FILE_RANGE", node, args)
	if not body then return nil, code end
	return (("<I4"):unpack(body))
end

-- One READDIR or READDIRPLUS: a list of {name, ino, off, type, entry}.
function session:readdir(node, fh, offset, size, plus, head)
	local args = ("<I8I8I4I4I8I4I4"):pack(fh, offset, size, 0, 0, 0, 0)
	local body, code = self:call(plus and "READDIRPLUS" or "READDIR", node, args, head)
	if not body then return nil, code end
	local list, at = {}, 1
	while at <= #body do
		local one = {}
		if plus then
			one.entry = entry_at(body, at)
			at = at + 128
		end
		local len
		one.ino, one.off, len, one.type = ("<I8I8I4I4"):unpack(body, at)
		one.name = body:sub(at + 24, at + 23 + len)
		at = at + ((24 + len + 7) & ~7)
		list[#list + 1] = one
	end
	assert(at == #body + 1, "entries that do not fill the reply")
	return list
end

-- All of a folder: name -> entry.
function session:list(node, plus, size)
	local fh = assert(self:opendir(node))
	local all, offset = {}, 0
	while true do
		local list = assert(self:readdir(node, fh, offset, size or 4096, plus))
		if #list == 0 then break end
		for _, one in ipairs(list) do
			assert(not all[one.name], one.name .. " comes twice")
			all[one.name] = one
			offset = one.off
		end
	end
	assert(self:releasedir(node, fh))
	return all
end

function session:setxattr(node, name, value, flags)
	local args = ("<I4I4I4I4"):pack(#value, flags or 0, 0, 0)
	return done(self:call("SETXATTR", node, args .. name .. "\0" .. value))
end
-- size 0: how long it is.
local function xattr(size, body, code)
	if not body or size > 0 then return body, code end
	return (("<I4"):unpack(body))
end
function session:getxattr(node, name, size)
	size = size or 4096
	return xattr(size, self:call("GETXATTR", node, ("<I4I4"):pack(size, 0) .. name .. "\0"))
end
function session:listxattr(node, size)
	size = size or 4096
	return xattr(size, self:call("LISTXATTR", node, ("<I4I4"):pack(size, 0)))
end
function session:removexattr(node, name) return done(self:call("REMOVEXATTR", node, name .. "\0")) end

function session:ioctl(node, fh, cmd, data, out_size)
	local args = ("<I8I4I4I8I4I4"):pack(fh, 0, cmd, 0, #data, out_size)
	local body, code = self:call("IOCTL", node, args .. data)
	if not body then return nil, code end
	return body:sub(17), (("<i4"):unpack(body))
end

-- op: GETLK, SETLK, SETLKW.  type: 0 read, 1 write, 2 none.
function session:lock(op, node, fh, owner, type, first, last, flags, head)
	return self:call(op, node, ("<I8I8I8I8I4I4I4I4"):pack(fh, owner, first or 0, last or 0x7fffffffffffffff, type, 99,
		flags or 0, 0), head)
end

function session:map(node, offset, len, at, flags)
	return done(self:call("SETUPMAPPING", node, ("<i8I8I8I8I8"):pack(-1, offset, len, flags or 2, at)))
end
function session:unmap(node, ...)
	local list = { ... }
	local body = ("<I4"):pack(#list // 2)
	for i = 1, #list, 2 do body = body .. ("<I8I8"):pack(list[i], list[i + 1]) end
	return done(self:call("REMOVEMAPPING", node, body))
end

-- A file's content, by its name below a node.
function session:content(node, name)
	local found, code = self:lookup(node, name)
	if not found then return nil, code end
	local fh, why = self:open(found.node, 0)
	if not fh then return nil, why end
	local data = assert(self:read(found.node, fh, 0, 65536))
	assert(self:release(found.node, fh))
	self:forget(found.node)
	return data
end

-- A session that is not begun, over whatever has serve(bytes, room) -> bytes.
function fuse.over(server) return setmetatable({ server = server, room = 65536 }, session) end

return fuse
