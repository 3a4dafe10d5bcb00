-- An arm64 image runs on x86_64 by the host's emulator.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local sm = require "supermachine"

describe("an image for linux/arm64 #lab", function()
	local store, image
	setup(function()
		store = folders.new()
		image = assert(sm.image.pull(("oci:%s/foreign/busybox:latest"):format(build.dir),
			{ store = store.path, platform = "linux/arm64" }))
	end)
	teardown(function()
		image:close()
		store:close()
	end)

	it("runs, and so do the clones of its snapshot", function()
		assert.equal("linux/arm64", image:platform())
		local snapshot <close> = assert(image:bake { memory_mib = 192, warmup = { "true" } })
		local vm <close> = assert(snapshot:restore())
		assert.equal("aarch64", lab.output(vm, { "uname", "-m" }))
		assert.equal("ok", lab.output(vm, { "sh", "/etc/supermachine/check" }))
		-- From a script's first line, by a child of a child; and whatever its root is.
		assert.equal("aarch64 aarch64", lab.shell(vm, [[
			printf '#!/bin/sh\nsh -c "uname -m"\n' >/tmp/script && chmod +x /tmp/script
			mkdir -p /tmp/root/bin && cp /bin/busybox /tmp/root/bin/uname
			echo $(/tmp/script) $(chroot /tmp/root /bin/uname -m)]]))
		local mounts = vm:mounts()
		assert.equal(1, #mounts)
		assert.equal("/run/supermachine/emulator", mounts[1].guest)
		assert.is_true(mounts[1].readonly)
	end)
end)
