-- types.lua is the API reference: what it declares exists, and what exists it declares.
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"

local text = scratch.read "lua/supermachine/types.lua"

local function declared(name)
	local set = {}
	for method in text:gmatch("function " .. name .. "[.:]([%w_]+)") do set[method] = true end
	return set
end

-- For the layers above, not for users.
local internal = {
	process = true, vsock = true, metadata_text = true, done = true, acquire_ready = true, set_origin = true,
	on_restore = true, mounts_forget = true,
}

for class, name in pairs {
	["supermachine.vm"] = "vm", ["supermachine.snapshot"] = "snapshot", ["supermachine.pool"] = "pool",
	["supermachine.image"] = "image",
} do
	describe("types.lua on " .. class, function()
		require "supermachine"
		it("declares what there is, and nothing else", function()
			local methods, types = core.methods(class), declared(name)
			for method in pairs(methods) do
				if not method:match "_begin$" and not (internal[method] and class ~= "supermachine.image") then
					assert.is_true(types[method], method .. " is not declared")
				end
			end
			for method in pairs(types) do assert.is_function(methods[method], method) end
		end)
	end)
end

describe("types.lua on the module", function()
	local sm = require "supermachine"
	it("declares its functions", function()
		for name, value in pairs(sm) do
			if type(value) == "function" then assert.is_true(declared("sm")[name], name) end
			if type(value) == "table" then
				for member, inner in pairs(value) do
					if type(inner) == "function" and not internal[member] then
						assert.is_true(declared(name .. "_module")[member], name .. "." .. member)
					end
				end
			end
		end
	end)
end)
