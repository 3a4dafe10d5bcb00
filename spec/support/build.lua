-- Where the build that is being tested lies: the folder of the running executable, or $SUPERMACHINE_BUILD, or build/.
local lfs = require "lfs"

local exe = lfs.symlinkattributes("/proc/self/exe", "target") or ""
local folder, name = exe:match "^(.*)/([^/]*)$"

return {
	dir = os.getenv "SUPERMACHINE_BUILD" or (name == "supermachine" and folder) or "build",
}
