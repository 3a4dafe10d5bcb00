-- `supermachine doctor`.
local build = require "spec.support.build"

describe("doctor", function()
	local function run(arguments)
		local pipe = assert(io.popen(("'%s/supermachine' doctor %s 2>&1"):format(build.dir, arguments)))
		local out = pipe:read "a"
		local _, _, status = pipe:close()
		return out, status
	end

	it("says what is wrong with a device, and exits with 1", function()
		local out, status = run "/dev/null"
		assert.are.equal(1, status)
		assert.truthy(out:find("/dev/null is not a KVM device", 1, true), out)
		assert.truthy(out:find "Linux guests%s+cannot run here", out)
		assert.are.same({ "", 1 }, { run "--quiet /dev/null" })
	end)

	it("refuses what it does not know", function()
		local out, status = run "--no-such-option"
		assert.are.equal(64, status)
		assert.truthy(out:find("usage: supermachine doctor", 1, true), out)
		assert.are.equal(64, (select(2, run "/dev/kvm /dev/kvm")))
	end)

	it("measures #kvm", function()
		local out, status = run ""
		assert.truthy(out:find "kernel mode%s+[%d.]+ ?[GMk]? instructions/s", out)
		assert.are.equal(out:find "Linux guests%s+yes" and 0 or 1, status)
	end)
end)
