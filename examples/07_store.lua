-- What the store holds and costs, and giving back what nothing needs any more.
--   supermachine examples/07_store.lua oci:DIR:TAG
local sm = require "supermachine"

local image <close> = assert(sm.image.pull(arg[1] or "docker.io/library/busybox:latest"))
assert(sm.store.tag(image:digest(), "mine/copy:kept"))

for _, listed in ipairs(assert(sm.store.list())) do print(listed.reference, listed.platform, listed.size) end
for _, used in ipairs(assert(sm.store.du()).images) do
	print(#used.references .. " references", used.bytes .. " bytes, of them unique: " .. used.unique_bytes)
end

-- The image stays: it is open.  A dry run removes nothing anyway.
assert(sm.store.remove "mine/copy:kept")
print(#assert(sm.store.gc { dry_run = true }).removed .. " files would go")
