-- Where a layer's names lead: what umoci unpacks into a folder is what our image has.
local erofs = require "spec.support.erofs"
local layer = require "spec.support.layer"
local oci_layout = require "spec.support.oci_layout"
local scratch = require "spec.support.scratch"

local LIST = [[
import os, stat, sys
os.chdir(sys.argv[1])
kinds = {stat.S_IFREG: 'file', stat.S_IFDIR: 'directory', stat.S_IFLNK: 'symlink', stat.S_IFIFO: 'fifo'}
for at, folders, files in os.walk('.'):
    for name in ['.'] + files + [f for f in folders if os.path.islink(at + '/' + f)]:
        path = os.path.normpath(at + '/' + name)
        s = os.lstat(path)
        kind = kinds[stat.S_IFMT(s.st_mode)]
        more = open(path).read() if kind == 'file' else os.readlink(path) if kind == 'symlink' else ''
        mode = '' if kind == 'symlink' else oct(s.st_mode & 0o7777)[2:]
        print('' if path == '.' else path, kind, mode, s.st_nlink if kind != 'directory' else '', more, sep='|')
s = os.lstat('.')
print('/', s.st_uid, s.st_gid, s.st_mtime_ns, sep='|')
]]

describe("umoci and we", function()
	local folder
	before_each(function() folder = scratch.folder() end)
	after_each(function() scratch.remove(folder) end)

	-- Both lists, sorted, as text; ours without the whiteouts, which umoci has no files for.  The root's time is umoci's
	-- own where the layer is without a parent in it.
	local function both(code, with_root)
		local tar, image = folder .. "/layer.tar", folder .. "/layer.erofs"
		layer.tar(tar, code)
		local layout = oci_layout.new(folder .. "/oci")
		layout:tag(layout:image { layers = { scratch.read(tar) } }, "it")
		scratch.run(("cd '%s' && umoci unpack %s --image oci:it bundle"):format(folder,
			scratch.is_root() and "" or "--rootless"))
		scratch.write(folder .. "/list.py", LIST)
		local theirs = {}
		for line in scratch.run(("python3 '%s/list.py' '%s/bundle/rootfs'"):format(folder, folder)):gmatch "[^\n]+" do
			if with_root or not line:find "^/|" then theirs[#theirs + 1] = line end
		end
		assert(layer.bake(tar, image))
		layer.fsck(image)
		local reader <close> = erofs.open(image)
		local ours = {}
		for path, node in pairs(reader:tree()) do
			if node.kind ~= "char" then
				ours[#ours + 1] = table.concat({ path, node.kind, node.kind == "symlink" and "" or ("%o"):format(node.mode),
					node.kind == "directory" and "" or node.nlink,
					node.kind == "file" and reader:read(node) or node.target or "" }, "|")
			end
			if path == "" and with_root then
				ours[#ours + 1] = ("/|%d|%d|%d"):format(node.uid, node.gid, node.mtime * 1000000000 + node.mtime_nsec)
			end
		end
		table.sort(theirs)
		table.sort(ours)
		return table.concat(theirs, "\n"), table.concat(ours, "\n")
	end

	for what, code in pairs {
		["symlinks to directories"] = [[
			add('d', 'dir', mode=0o700); add('d/old', data='1')
			add('s', 'symlink', to='d'); add('s/new', data='2'); add('s/sub', 'dir', mode=0o711); add('s/sub/x', data='3')
			add('s/.wh.old'); add('s/.wh..wh..opq'); add('s/l', 'symlink', to='../d/new'); add('s/fifo', 'fifo')
			add('hard', 'link', to='s/new'); add('s/hard', 'link', to='d/old'); add('d/over', data='4'); add('s/over', data='5')
		]],
		["symlinks to nothing yet"] = [[
			add('s', 'symlink', to='not/yet'); add('s/x', data='1'); add('not', 'dir', mode=0o700); add('not/yet/y', data='2')
			add('t', 'symlink', to='s/deeper'); add('t/z', data='3')
		]],
		["symlinks out of the image"] = [[
			add('etc-abs', 'symlink', to='/etc'); add('etc-abs/passwd', data='1')
			add('up', 'symlink', to='..'); add('up/at-root', data='2')
			add('d/up', 'symlink', to='../../../..'); add('d/up/too', data='3')
			add('pr', 'symlink', to='/proc/self/root'); add('pr/there', data='4')
			add('here', 'symlink', to='.'); add('here/x', data='5'); add('here/here/here/y', data='6')
			add('root', 'symlink', to='/'); add('root/root/z', data='7')
			add('mixed', 'symlink', to='/a/./b//../../../c/'); add('mixed/x', data='8'); add('l', 'link', to='etc-abs/passwd')
			add('up/.wh.at-root'); add('root/.wh..wh..opq')
		]],
		["symlinks one after the other"] = "add('s0', 'symlink', to='d')\n"
			.. "for i in range(1, 40): add('s%d' % i, 'symlink', to='s%d' % (i - 1))\nadd('s39/x', data='1')",
		["symlinks and .."] = [[
			add('a/b/c', 'dir'); add('s', 'symlink', to='a/b/c'); add('t', 'symlink', to='s/../x'); add('t/1', data='1')
			add('u', 'symlink', to='t/../../s/./../../y'); add('u/2', data='2'); add('v', 'symlink', to='no/../where/../z')
			add('v/3', data='3'); add('w', 'symlink', to='/s/..//../../../s/'); add('w/4', data='4')
			add('h', 'link', to='u/2')
		]],
		["hard links to symlinks"] = [[
			add('d/f', data='1'); add('s', 'symlink', to='/d'); add('t', 'link', to='s'); add('t/x', data='2')
			add('h', 'link', to='t/f')
		]],
		["what was a directory, a symlink, a file"] = [[
			add('a/x', data='1'); add('b', 'dir'); add('a', 'symlink', to='b'); add('a/y', data='2')
			add('a', 'dir', mode=0o750); add('a/z', data='3'); add('b', data='4')
			add('c', 'symlink', to='nowhere'); add('c', data='5'); add('c', 'dir'); add('c/w', data='6')
		]],
		["no root"] = "add('usr', 'dir')",
		["a root"] = "add('./', 'dir', mode=0o1711, uid=3, gid=4, mtime=1700000000); add('./x', data='1')",
	} do
		it("agree on " .. what, function()
			if not scratch.has "umoci" then return pending "no umoci here" end
			local theirs, ours = both(code, scratch.is_root() and what:find "root")
			assert.is_true(#theirs > 20)
			assert.are.equal(theirs, ours)
		end)
	end
end)
