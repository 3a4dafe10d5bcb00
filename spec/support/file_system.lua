-- A small file system of its own, for what shows guests a folder: ext4 in a file, since an older kernel's tmpfs lacks
-- half of what is asked; without root a folder.  `local fs <close> = file_system.new(40)`
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local scratch = require "spec.support.scratch"

local file_system = {}

-- Why none can be mounted here, or nil.
function file_system.missing()
	if not scratch.is_root() then return "needs root" end
	if not scratch.has "mkfs.ext4" then return "mkfs.ext4 is not installed" end
	if not os.execute "unshare -m true 2>/dev/null" then return "no mount namespaces here" end
	local control = io.open "/dev/loop-control"
	if not control then return "no loop devices here" end
	control:close()
end

-- Runs shell lines where a small ext4 is mounted on `m` of the folder, the current one, in a mount namespace of their
-- own; what they say.  $suite is the POSIX suite, $build and $top are the build's folder and this tree.
function file_system.inside(folder, mib, lines)
	local script = folder:write("script", ([[set -e
suite=%s build=%s top=$PWD
cd %s
truncate -s %dM image
mkfs.ext4 -q -F -b 4096 -O ^has_journal image
mkdir -p m
mount -o loop image m
%s
]]):format(scratch.quote(scratch.run("realpath " .. build.dir .. "/spec/fs/posix")),
		scratch.quote(scratch.run("realpath " .. build.dir)), scratch.quote(folder.path), mib, lines))
	return scratch.run("unshare -m sh " .. script .. " 2>&1 || true")
end

-- What the suite said has no failure in it, and at most so many that could not run.
function file_system.passed(text, cannot)
	local passed, failed, skipped = text:match "(%d+) passed, (%d+) failed, (%d+) cannot run"
	if not passed or failed ~= "0" or passed == "0" or tonumber(skipped) > cannot then error(text, 2) end
end

local methods = {}
local metatable = { __index = methods, __close = function(self) self:close() end }

function file_system.new(mib)
	local self = setmetatable({ folder = folders.new() }, metatable)
	self.path = self.folder:join "m"
	local image = self.folder:join "image"
	scratch.run(("mkdir -m 755 %s && chmod 755 %s"):format(self.path, self.folder.path))
	if scratch.is_root() then
		scratch.run(("truncate -s %dM %s && mkfs.ext4 -q -F -b 4096 -O ^has_journal %s && mount -o loop %s %s")
			:format(mib, image, image, image, self.path))
		self.mounted = true
	end
	return self
end

function methods:join(name) return self.path .. "/" .. name end

function methods:close()
	if self.mounted then scratch.run("umount " .. self.path) end
	self.mounted = nil
	self.folder:close()
end

return file_system
