local core = require "supermachine.core"

describe("JSON from strangers", function()
	local function refused(text, what)
		local ok, message, code = core.json_check(text)
		assert.is_nil(ok)
		assert.are.equal("EBADMSG", code)
		assert.truthy(message:find(what, 1, true), message)
	end

	it("is taken when it is plain", function()
		assert.is_true(core.json_check [[ {"a": [1, 2.5, -3e2, true, null], "b": {"a": "\u00e9\"\\"}} ]])
		assert.is_true(core.json_check(("["):rep(32) .. ("]"):rep(32)))
		assert.is_true(core.json_check('"[[{{\\\\"'))
	end)

	it("is refused when it is not JSON", function()
		for _, text in ipairs { "", "{", '{"a":1,}', "[1 2]", "nul", '{"a" 1}', "'a'" } do refused(text, "not JSON") end
	end)

	it("is refused with bytes after its end", function()
		refused("{} x", "ends at byte 2, but 2 follow")
		refused("[][]", "but 2 follow")
	end)

	it("is refused when it is nested too deeply, even unclosed", function()
		refused(("["):rep(33) .. ("]"):rep(33), "nested too deeply")
		refused(('{"a":'):rep(100000), "nested too deeply")
	end)

	it("is refused with one name twice, at any depth", function()
		refused('{"digest":1,"digest":2}', "'digest' twice")
		refused('[{"x":{"b":0,"a":1,"c":2,"a":3}}]', "'a' twice")
		assert.is_true(core.json_check '{"a":{"a":1},"A":2}')
	end)

	it("is refused with a NUL or a control character in a string", function()
		refused('{"a":"b\0c"}', "NUL byte")
		refused([[{"a\u0000b":1}]], "NUL character")
		refused('{"a":"\1"}', "control character")
		assert.is_true(core.json_check [["\\u0000"]])
	end)

	it("gets no control characters into a message", function()
		local name = [[\u001b[31m\u007f\u009b1m\u00e9\n]]
		refused(('{"%s":1,"%s":2}'):format(name, name), "'?[31m???1m\u{e9}?' twice")
	end)

	it("is refused past 4 MiB, and taken up to there", function()
		local limit = 4 << 20
		assert.is_true(core.json_check('"' .. ("a"):rep(limit - 2) .. '"'))
		refused('"' .. ("a"):rep(limit - 1) .. '"', "the limit is")
	end)

	it("checks the names of a large object", function()
		local names = {}
		for i = 1, 100000 do names[i] = ('"%d":0'):format(i) end
		assert.is_true(core.json_check("{" .. table.concat(names, ",") .. "}"))
		names[#names + 1] = '"500":1'
		refused("{" .. table.concat(names, ",") .. "}", "'500' twice")
	end)
end)
