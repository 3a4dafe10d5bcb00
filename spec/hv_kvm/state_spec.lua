-- A vCPU's and a machine's state as records, on any architecture: what travels, and what is refused.
local asm = require "spec.support.microguest"
local bare = require "spec.support.bare_guest"
local records = require "spec.support.records"

-- Loads a word, stops; then stores it and stops again.
local source, target = asm.scratch, asm.scratch + 4
local code = asm.load(source) .. asm.tell(1) .. asm.store_word(target) .. asm.tell(2)
local pattern = "word"

local function stopped() return bare.stopped(code, source, pattern) end

describe("saved state #kvm", function()
	it("goes on in a second machine", function()
		local first <close> = stopped()
		local second <close> = bare.empty()
		bare.move(first, second, 2)
		second:resumed(0)
		assert.are.equal(2, second:run().data)
		assert.are.equal(pattern, second:read(target, 4))
		second:start(1)
		second:kick(1)
		assert.are.equal("kick", second:wait(1).kind)
		assert.is_true(second:halted(1))
	end)

	it("goes back in the same machine, time after time", function()
		local guest <close> = stopped()
		local saved = guest:save_vcpu(0)
		for _ = 1, 5 do
			assert.are.equal(2, guest:run().data)
			assert.is_true(guest:settle())
			assert(guest:write(target, ("\0"):rep(4)))
			assert(guest:load_vcpu(0, saved))
		end
		assert.are.equal(2, guest:run().data)
		assert.are.equal(pattern, guest:read(target, 4))
	end)
end)

describe("damaged state #kvm", function()
	local guest, other, saved
	setup(function()
		guest, other = stopped(), bare.empty()
		saved = guest:save_vcpu(0)
	end)
	teardown(function()
		guest:close()
		other:close()
	end)

	local function refused(bytes, words) bare.refused(words, "EBADMSG", other:load_vcpu(0, bytes)) end

	it("with a flipped bit is refused by name", function()
		local seen = 0
		for _, record in ipairs(records.parse(saved)) do
			local last = records.header + #record.payload - 1
			for _, offset in ipairs { 0, 4, 6, 8, 12, records.header, last } do
				local at = record.at + offset
				refused(records.flipped(saved, at, 1 << (offset % 8)), "record '" .. record.tag .. "'")
				seen = seen + 1
			end
		end
		assert.is_true(seen >= 7)
	end)

	it("that is cut short is refused by name", function()
		for _, record in ipairs(records.parse(saved)) do
			refused(saved:sub(1, record.at - 1), "record '" .. record.tag .. "' is cut short")
			refused(saved:sub(1, record.at + records.header), "record '" .. record.tag .. "'")
		end
	end)

	it("with bytes left over is refused", function()
		refused(saved .. "\0", "left over")
		for _, record in ipairs(records.parse(saved)) do
			for _, bytes in ipairs(records.resized(saved, record.tag)) do refused(bytes, "") end
		end
	end)

	it("of the machine is refused by name", function()
		for call, bytes in pairs { load_vm = guest:save_vm(), load_clock = guest:save_clock() } do
			for _, record in ipairs(records.parse(bytes)) do
				for _, offset in ipairs { 0, 8, 12, records.header, records.header + #record.payload - 1 } do
					local at = record.at + offset
					bare.refused("record '" .. record.tag .. "'", "EBADMSG", other[call](other, records.flipped(bytes, at, 4)))
				end
			end
			assert.are.equal("EBADMSG", select(3, other[call](other, bytes:sub(1, -2))))
			assert(other[call](other, bytes))
		end
	end)
end)
