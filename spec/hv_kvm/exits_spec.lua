-- What a vCPU's exits look like on any architecture, and how it is got out of the guest.
local asm = require "spec.support.microguest"
local bare = require "spec.support.bare_guest"

local mmio = asm.mmio_base
local start, mmio_exit, told = bare.start, bare.mmio_exit, bare.told

describe("a memory access outside RAM #kvm", function()
	it("is handed out with size, address and value, and answered", function()
		local guest <close> = start(asm.store(mmio + 4, 0x11223344) .. asm.load(mmio + 8) .. asm.store_word(mmio + 12))
		assert.are.same(mmio_exit(true, 4, mmio + 4, 0x11223344), guest:run())
		assert.are.same(mmio_exit(false, 4, mmio + 8, 0), guest:run())
		assert.are.same(mmio_exit(true, 4, mmio + 12, 0xfedcba98), guest:run(0, 0xfedcba98))
	end)

	it("to a read-only slot exits when it writes, and reads what is there", function()
		local guest <close> = start(asm.load(mmio) .. asm.store_word(mmio) .. asm.tell(1))
		assert(guest:map(mmio, 0x1000, { read_only = true }))
		assert.are.same(mmio_exit(true, 4, mmio, 0), guest:run())
		assert.are.same(told(1), guest:run())
	end)

	it("goes to a slot while it is mapped", function()
		local store = asm.store(mmio, 5)
		local guest <close> = start(store .. asm.tell(1) .. store)
		assert(guest:map(mmio, 0x1000))
		assert.are.same(told(1), guest:run())
		assert(guest:unmap(mmio))
		assert.are.same(mmio_exit(true, 4, mmio, 5), guest:run())
		local ok, message, code = guest:unmap(mmio)
		assert.are.same({ nil, ("no memory slot at 0x%x"):format(mmio), "ENOENT" }, { ok, message, code })
	end)

	it("overlapping slots are refused by name", function()
		local guest <close> = start ""
		local ok, message = guest:map(asm.bare, 0x1000)
		assert.is_nil(ok)
		assert.truthy(message:find(("memory slot 1: 0x1000 bytes at 0x%x"):format(asm.bare), 1, true), message)
	end)
end)

-- With guests, because a KVM that emulates kernel mode (kvm_pvm) takes it for a device.
describe("an access to memory with nothing behind it #lab", function()
	it("is a fault", function()
		local guest <close> = start(asm.store(mmio, 5))
		assert(guest:map(mmio, 0x1000, { broken = true }))
		assert.are.equal("fault", guest:run().kind)
	end)
end)

describe("a guest that sleeps #kvm", function()
	local function halted(code)
		local guest <close> = start(code)
		guest:start()
		assert.is_nil((guest:wait(0, 50)))
		guest:kick()
		assert.are.equal("kick", guest:wait().kind)
		return guest:halted()
	end

	it("for good is halted", function() assert.is_true(halted(asm.halt())) end)

	it("until an interrupt is not", function() assert.is_false(halted(asm.sleep())) end)
end)

describe("where a vCPU is #kvm", function()
	it("tells whether it has gone on between two looks", function()
		local guest <close> = start(asm.tell(1) .. asm.counter() .. asm.tell(2) .. asm.spin())
		guest:run()
		local first = guest:where()
		assert.are.equal(first, guest:where())
		guest:run()
		assert.are_not.equal(first, guest:where())
		local looks = {}
		for i = 1, 2 do
			guest:start()
			guest:kick()
			assert.are.equal("kick", guest:wait().kind)
			looks[i] = guest:where()
		end
		assert.are.equal(looks[1], looks[2])
	end)
end)

describe("a kick #kvm", function()
	it("gets a spinning vCPU out", function()
		local guest <close> = start(asm.spin())
		for _ = 1, 20 do
			guest:start()
			guest:kick()
			assert.are.equal("kick", guest:wait().kind)
		end
		guest:start()
		assert.is_nil((guest:wait(0, 20)))
		guest:kick()
		assert.are.equal("kick", guest:wait().kind)
	end)

	it("before a run is not lost, and counts once", function()
		local guest <close> = start(asm.tell(1) .. asm.tell(2))
		guest:kick()
		guest:kick()
		assert.are.equal("kick", guest:run().kind)
		assert.are.same(told(1), guest:run())
		guest:kick()
		assert.are.equal("kick", guest:run().kind)
		assert.are.same(told(2), guest:run())
	end)

	it("gets a vCPU out that waits to be started", function()
		local guest <close> = start { code = asm.spin(), vcpus = 2 }
		guest:start(1)
		assert.is_nil((guest:wait(1, 20)))
		guest:kick(1)
		assert.are.equal("kick", guest:wait(1).kind)
		assert.is_true(guest:halted(1))
		assert.is_false(guest:halted(0))
	end)

	it("leaves signals of the process alone", function()
		local function signals()
			local file <close> = assert(io.open "/proc/thread-self/status")
			local text = file:read "a"
			return { text:match "SigPnd:%s*(%x+)", text:match "ShdPnd:%s*(%x+)", text:match "SigBlk:%s*(%x+)",
				text:match "SigIgn:%s*(%x+)", text:match "SigCgt:%s*(%x+)" }
		end
		local before = signals()
		do
			local guest <close> = start(asm.spin())
			guest:start()
			guest:kick()
			guest:wait()
			guest:kick()
			assert.are.same(before, signals())
		end
		assert.are.same(before, signals())
	end)
end)

describe("settling #kvm", function()
	it("finishes a read with its answer and runs no further", function()
		local guest <close> = start(asm.load(mmio) .. asm.store_word(asm.scratch) .. asm.tell(1))
		assert.is_false(guest:run().write)
		assert.is_true(guest:settle(0, 0xcafe))
		assert.are.equal("\0\0\0\0", guest:read(asm.scratch, 4))
		assert.are.same(told(1), guest:run(0, 0xdead)) -- the answer was given
		assert.are.equal(string.pack("<I4", 0xcafe), guest:read(asm.scratch, 4))
	end)

	it("finishes a write, once", function()
		local guest <close> = start(asm.tell(1) .. asm.tell(2))
		assert.are.same(told(1), guest:run())
		assert.is_true(guest:settle())
		assert.is_true(guest:settle())
		assert.are.same(told(2), guest:run())
	end)
end)

describe("a doorbell #kvm", function()
	it("counts 4-byte writes without an exit", function()
		local guest <close> = start(asm.store(mmio + 0x50, 7):rep(3) .. asm.tell(1))
		local fd = assert(guest:ioeventfd(mmio + 0x50))
		assert.are.same(told(1), guest:run())
		assert.are.equal(3, guest:count(fd))
		assert.are.equal(0, guest:count(fd))
	end)

	it("cannot be had twice", function()
		local guest <close> = start ""
		assert(guest:ioeventfd(mmio))
		local fd, message, code = guest:ioeventfd(mmio)
		assert.are.same({ nil, "EEXIST" }, { fd, code })
		assert.truthy(message:find(("KVM_IOEVENTFD at 0x%x"):format(mmio), 1, true), message)
	end)
end)
