-- A reader of uncompressed EROFS images, written from the format's documentation and not from our writer: what a spec
-- looks at when it wants to know what an image says.
local erofs = {}

local BLOCK = 4096
local KINDS = { [0x8000] = "file", [0x4000] = "directory", [0xa000] = "symlink", [0x2000] = "char", [0x6000] = "block",
	[0x1000] = "fifo", [0xc000] = "socket" }
local FILE_TYPES = { "file", "directory", "char", "block", "fifo", "socket", "symlink" }
local XATTR_PREFIXES = { "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", [6] = "security." }

local methods = {}
local metatable = { __index = methods, __close = function(self) self.file:close() end }

function methods:bytes(offset, count)
	if count == 0 then return "" end
	assert(self.file:seek("set", offset))
	local data = self.file:read(count) or ""
	assert(#data == count, ("image ends before %d + %d"):format(offset, count))
	return data
end

local function crc32c(data)
	local crc = 0xffffffff
	for i = 1, #data do
		crc = crc ~ data:byte(i)
		for _ = 1, 8 do crc = (crc >> 1) ~ ((crc & 1) * 0x82f63b78) end
	end
	return crc
end

function erofs.open(path)
	local self = setmetatable({ file = assert(io.open(path, "rb")) }, metatable)
	local block = self:bytes(1024, BLOCK - 1024)
	local super = {}
	super.magic, super.checksum, super.compat, super.block_bits, super.extra_slots, super.root, super.inodes, super.time,
		super.time_nsec, super.blocks, super.meta, super.xattr_block, super.uuid, super.volume, super.incompat =
		("<I4I4I4BBI2I8i8I4I4I4I4c16c16I4"):unpack(block)
	assert(super.magic == 0xe0f5e1e2, "magic")
	assert(super.block_bits == 12, "block size")
	assert(crc32c(block:sub(1, 4) .. "\0\0\0\0" .. block:sub(9)) == super.checksum, "checksum")
	assert(self.file:seek "end" == super.blocks * BLOCK, "length")
	self.super = super
	return self
end

local function read_xattrs(self, offset, count)
	local xattrs, order = {}, {}
	if count == 0 then return xattrs, 0, order end
	local bytes = 12 + (count - 1) * 4
	local area = self:bytes(offset, bytes)
	local at = 13 + area:byte(5) * 4
	assert(area:byte(5) == 0, "shared attributes are not used")
	while at <= #area do
		local name_len, index, value_size = ("<BBI2"):unpack(area, at)
		local name = XATTR_PREFIXES[index] .. area:sub(at + 4, at + 3 + name_len)
		assert(not xattrs[name], "an attribute twice")
		xattrs[name] = area:sub(at + 4 + name_len, at + 3 + name_len + value_size)
		order[#order + 1] = name
		at = at + (4 + name_len + value_size + 3) // 4 * 4
	end
	assert(at == #area + 1, "attribute area")
	return xattrs, bytes, order
end

-- The inode by number.
function methods:inode(nid)
	local offset = self.super.meta * BLOCK + nid * 32
	local node = { nid = nid }
	local format, xattr_count, mode, _, size, union, ino, uid, gid, mtime, mtime_nsec, nlink =
		("<I2I2I2I2I8I4I4I4I4i8I4I4"):unpack(self:bytes(offset, 64))
	assert(format & 1 == 1, "extended inode")
	node.layout = format >> 1
	node.kind, node.mode = KINDS[mode & 0xf000], mode & 0xfff
	node.size, node.union, node.ino, node.uid, node.gid = size, union, ino, uid, gid
	node.mtime, node.mtime_nsec, node.nlink = mtime, mtime_nsec, nlink
	local xattr_bytes
	node.xattrs, xattr_bytes, node.xattr_order = read_xattrs(self, offset + 64, xattr_count)
	node.after = offset + 64 + xattr_bytes
	if node.kind == "char" or node.kind == "block" then
		node.major, node.minor = union >> 8 & 0xfff, union & 0xff | union >> 12 & 0xfff00
	end
	return node
end

-- Content from `offset`, `count` bytes (default: all).
function methods:read(node, offset, count)
	offset = offset or 0
	local stop = math.min(node.size, offset + (count or node.size))
	local parts = {}
	while offset < stop do
		local part = math.min(stop - offset, BLOCK - offset % BLOCK)
		local at
		if node.layout == 4 then
			local bits = node.union & 0x1f
			assert(node.union & ~0x1f == 0, "chunk format")
			local chunk = BLOCK << bits
			local start = ("<I4"):unpack(self:bytes(node.after + offset // chunk * 4, 4))
			at = start ~= 0xffffffff and start * BLOCK + offset % chunk or nil
		elseif node.layout == 2 and offset >= node.size // BLOCK * BLOCK then
			at = node.after + offset % BLOCK
			assert(node.after // BLOCK == (node.after + node.size % BLOCK - 1) // BLOCK, "tail across blocks")
		else
			assert(node.layout == 0 or node.layout == 2, "layout")
			at = node.union * BLOCK + offset
		end
		parts[#parts + 1] = at and self:bytes(at, part) or ("\0"):rep(part)
		offset = offset + part
	end
	return table.concat(parts)
end

-- A directory's entries in the order of the image: { name=, nid=, kind= }.
function methods:entries(node)
	assert(node.kind == "directory")
	local list = {}
	local data = self:read(node)
	for start = 0, #data - 1, BLOCK do
		local block = data:sub(start + 1, start + BLOCK)
		local first = ("<I2"):unpack(block, 9)
		assert(first % 12 == 0 and first > 0, "name offset")
		for i = 0, first // 12 - 1 do
			local nid, name_offset, file_type = ("<I8I2B"):unpack(block, 1 + i * 12)
			local stop = i + 1 < first // 12 and ("<I2"):unpack(block, 1 + (i + 1) * 12 + 8) or #block
			local name = block:sub(name_offset + 1, stop):gsub("%z+$", "")
			assert(#list == 0 or list[#list].name < name, "order")
			list[#list + 1] = { name = name, nid = nid, kind = FILE_TYPES[file_type] }
		end
	end
	return list
end

-- Everything by path ("" is the root), after checks that every image must pass: "." and "..", kinds, links.
function methods:tree()
	local paths, nodes, links = {}, {}, {}
	local function visit(nid, path, parent)
		local node = nodes[nid] or self:inode(nid)
		nodes[nid] = node
		paths[path] = node
		links[nid] = (links[nid] or 0) + 1
		if node.kind == "symlink" then node.target = self:read(node) end
		if node.kind ~= "directory" then return node.kind end
		assert(links[nid] == 1, "directory with two names")
		node.names = {}
		local dots = 0
		for _, entry in ipairs(self:entries(node)) do
			if entry.name == "." or entry.name == ".." then
				assert(entry.nid == (entry.name == "." and nid or parent), entry.name)
				assert(entry.kind == "directory")
				dots = dots + 1
			else
				node.names[#node.names + 1] = entry.name
				local kind = visit(entry.nid, (path == "" and "" or path .. "/") .. entry.name, nid)
				assert(kind == entry.kind, "kind of " .. entry.name)
				if kind == "directory" then links[nid] = links[nid] + 1 end
			end
		end
		assert(dots == 2, ". and ..")
		links[nid] = links[nid] + 1
		return node.kind
	end
	visit(self.super.root, "", self.super.root)
	local count, inos = 0, {}
	for nid, node in pairs(nodes) do
		assert(links[nid] == node.nlink, "links")
		assert(not inos[node.ino], "ino twice")
		inos[node.ino] = true
		count = count + 1
	end
	assert(count == self.super.inodes, "inode count")
	return paths
end

return erofs
