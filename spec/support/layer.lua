-- Tars and the images made of them, for specs.
local core = require "supermachine.core"
local erofs = require "spec.support.erofs"
local scratch = require "spec.support.scratch"

local layer = {}

local PRELUDE = [[
import io, os, sys, tarfile
KINDS = dict(file=tarfile.REGTYPE, dir=tarfile.DIRTYPE, symlink=tarfile.SYMTYPE, link=tarfile.LNKTYPE,
             char=tarfile.CHRTYPE, block=tarfile.BLKTYPE, fifo=tarfile.FIFOTYPE)
tar = tarfile.open(sys.argv[1], sys.argv[2], format=getattr(tarfile, sys.argv[3]))
def add(name, kind='file', data=b'', mode=None, uid=0, gid=0, mtime=0, to='', dev=(0, 0), xattrs={}, pax={}, size=None):
    info = tarfile.TarInfo(name)
    info.type = KINDS.get(kind, kind)
    info.mode = mode if mode is not None else 0o755 if kind == 'dir' else 0o644
    info.uid, info.gid, info.mtime, info.linkname = uid, gid, mtime, to
    info.devmajor, info.devminor = dev
    if isinstance(data, str): data = data.encode()
    info.size = len(data) if size is None else size
    for key, value in xattrs.items():
        info.pax_headers['SCHILY.xattr.' + key] = value.encode('latin-1').decode('utf-8', 'surrogateescape')
    info.pax_headers.update(pax)
    tar.addfile(info, io.BytesIO(data))
def sparse(name, size, map, data=''):  # GNU's format 1.0: the map is text before the content
    pax = dict(major='1', minor='0', name=name, realsize=str(size))
    if isinstance(data, str): data = data.encode()
    add('sparse-' + name, data=(map.replace(' ', '\n') + '\n').ljust(512, '\0').encode() + data,
        pax={'GNU.sparse.' + key: value for key, value in pax.items()})
]]

-- Write a tar with Python's tarfile: `code` calls add(name, kind, ...) and sparse(name, size, map, data).
-- options: mode ("w", "w:gz"), format.
function layer.tar(path, code, options)
	options = options or {}
	local script = path .. ".py"
	-- The code may be indented as a whole, by the tabs before its first line.
	local indent = code:match "^\t*"
	code = ("\n" .. code):gsub("\n" .. indent, "\n")
	scratch.write(script, PRELUDE .. code .. "\ntar.close()\n")
	scratch.run(("python3 '%s' '%s' '%s' '%s'"):format(script, path, options.mode or "w", options.format or "PAX_FORMAT"))
	os.remove(script)
	return path
end

-- The statistics, or nil, message, code.
function layer.bake(tar, out, options)
	local operation <close> = assert(core.erofs_begin(tar, out, options))
	return operation:finish()
end

-- erofs-utils finds nothing to say about the image.
function layer.fsck(image)
	-- It goes into directories by recursion, with a block on the stack each.
	local output = scratch.run(("ulimit -s 65536 2>/dev/null; fsck.erofs '%s'"):format(image))
	output = output:gsub("No errors found\n?", "")
	assert(output == "", output)
	scratch.run(("dump.erofs -s '%s'"):format(image))
end

-- Bake code's tar below `folder` and read the image back: paths, statistics, image path.
function layer.make(folder, code, options)
	local tar, image = folder .. "/layer.tar", folder .. "/layer.erofs"
	layer.tar(tar, code, options)
	os.remove(image)
	local stats = assert(layer.bake(tar, image))
	layer.fsck(image)
	local reader <close> = erofs.open(image)
	local paths = reader:tree()
	for _, node in pairs(paths) do
		if node.kind == "file" and node.size < (1 << 20) then node.data = reader:read(node) end
	end
	return paths, stats, image
end

return layer
