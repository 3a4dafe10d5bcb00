--- Option tables: one flat table, unknown keys and wrong types are misuse and raise.
local options = {}

function options.is_one_of(choices, value)
	for _, choice in ipairs(choices) do
		if choice == value then return true end
	end
	return false
end

--- { "a", "b", "c" } as "a, b or c".
function options.shown(choices)
	return table.concat(choices, ", ", 1, #choices - 1) .. " or " .. choices[#choices]
end

--- What image:bake does with the guest's caches.
options.cache_policies = { "boot", "all", "none" }

--- Check `given` (nil counts as empty) against `types`: key -> type name as type() or math.type() gives it, "list" for
-- a table, "any" for anything, or a list of words of which it is one.  Raises at the caller's caller.  Returns a copy.
function options.check(types, given, level)
	level = (level or 1) + 2
	local copy = {}
	if given == nil then return copy end
	if type(given) ~= "table" then
		error(("options: table expected, got %s"):format(type(given)), level)
	end
	for key, value in pairs(given) do
		local expected = types[key]
		if not expected then
			error(("unknown option '%s'"):format(tostring(key)), level)
		end
		local choices = type(expected) == "table" and expected
		if choices then expected = "string" end
		local got = math.type(value) or type(value)
		if expected == "list" then expected = "table" end
		if expected == "integer" and got == "float" and math.tointeger(value) then
			value, got = math.tointeger(value), "integer"
		end
		if expected ~= "any" and got ~= expected then
			error(("option '%s': %s expected, got %s"):format(key, expected, got), level)
		end
		if choices and not options.is_one_of(choices, value) then
			error(("option '%s': %s, not '%s'"):format(key, options.shown(choices), value), level)
		end
		copy[key] = value
	end
	return copy
end

--- The options of `given` whose keys are in `keys`.
function options.pick(given, keys)
	local picked = {}
	for _, key in ipairs(keys) do picked[key] = given[key] end
	return picked
end

--- Lists of strings: argv and the like.  Raises for anything else, and for an empty list.
function options.argv(argv, level)
	level = (level or 1) + 2
	if type(argv) ~= "table" then
		error(("argv: list of strings expected, got %s"):format(type(argv)), level)
	end
	if #argv == 0 then error("argv: empty", level) end
	for i, word in ipairs(argv) do
		if type(word) ~= "string" then
			error(("argv[%d]: string expected, got %s"):format(i, type(word)), level)
		end
	end
	return argv
end

return options
