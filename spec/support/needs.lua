-- What a spec file needs of this machine: `local check, missing = needs(it, pending, "python3", ..)` gives an `it` that
-- is pending where a program is not there, and which one that is, or nil.
local scratch = require "spec.support.scratch"

return function(it, pending, ...)
	local missing
	for _, name in ipairs { ... } do
		if not scratch.has(name) then missing = name:match "[^/]+$" .. " is not installed" end
	end
	local function check(name, run)
		it(name, function()
			if missing then pending(missing) return end
			run()
		end)
	end
	return check, missing
end
