local folder = require "spec.support.folder"

describe("make layers", function()
	local temporary
	before_each(function() temporary = folder.new() end)
	after_each(function() temporary:close() end)

	local function layers(src)
		local pipe = assert(io.popen(("lua5.4 spec/support/layers '%s' 2>&1"):format(src)))
		local output = pipe:read "a"
		return output, (pipe:close())
	end

	local function refused(file, text, what)
		temporary:write(file, text)
		local output, ok = layers(temporary.path)
		assert.is_nil(ok, output)
		assert.truthy(output:find(what, 1, true), output)
	end

	it("passes on this tree", function()
		local output, ok = layers "src"
		assert.is_true(ok, output)
	end)

	it("passes what goes down", function()
		temporary:write("virtio/blk.c", '#include <stdio.h>\n#include "virtio/queue.h"\n#include "base/fd.h"\n')
		temporary:write("main.c", '#include <lua.h>\n#include "pool/pool.h"\n')
		temporary:write("guest/init.c", '#include "agent/protocol.h"\n#include "guest/wire.h"\n')
		temporary:write("hv_kvm/kvm.c", "#include <linux/kvm.h>\n")
		local output, ok = layers(temporary.path)
		assert.is_true(ok, output)
	end)

	it("catches an include that goes up", function()
		refused("base/fd.c",
			'#include <errno.h>\n\t# include "oci/store.h"\n',
			"base/fd.c:2: base (floor 0) may not include oci/store.h (floor 1)")
	end)

	it("catches an include that goes sideways", function()
		refused("rootfs/tar.c", '#include "fuse/server.h"\n', "rootfs (floor 2) may not include fuse/server.h (floor 2)")
	end)

	it("catches a room that is not in the house, and an include outside it", function()
		refused("attic/box.c", "int box;\n", "attic is in no room")
		refused("base/a.c", '#include "attic/box.h"\n', "attic/box.h is in no room")
		refused("base/b.c", '#include "fd.h"\n', "include paths are relative")
		refused("base/c.c", '#include "base/../plan/plan.h"\n', "leaves its folder")
	end)

	it("catches linux/kvm.h and lua.h where they do not belong", function()
		refused("machine/vcpu.c", "#include <linux/kvm.h>\n", "only hv_kvm/ includes linux/kvm.h")
		refused("pool/pool.c", "#include <lauxlib.h>\n", "only lua/ and main.c include lauxlib.h")
	end)

	it("catches a guest that reaches into the host", function()
		refused("guest/init.c", '#include "base/fd.h"\n', "guest/ shares agent/protocol.h alone")
	end)

	it("does not pass where there is nothing", function()
		local _, ok = layers(temporary.path)
		assert.is_nil(ok)
	end)
end)
