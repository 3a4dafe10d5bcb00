-- A pull in a process of its own, whose environment and home are the spec's: what it reads there is nobody else's.
local build = require "spec.support.build"
local scratch = require "spec.support.scratch"

local script = [[
local core = require "supermachine.core"
local options = {}
for i = 2, #arg do
	local key, value = arg[i]:match "^([%w_]+)=(.*)$"
	if value == "true" or value == "false" then value = value == "true" end
	options[key] = math.tointeger(value) or value
end
local operation <close> = assert(core.image_pull_begin(arg[1], options))
local image, message, code = operation:finish()
print(image and image:digest() or code, image and "" or message)
]]

-- A home for it: settings as files below it, removed by the caller.
local function home() return scratch.folder() end

-- Returns the digest, or nil, message and code.  env: variable -> value; HOME has to be there.
local function pull(reference, env, options)
	local store = scratch.run("mktemp -d " .. env.HOME .. "/store.XXXXXX")
	local words = { "env", "-i" }
	local path = env.PATH or os.getenv "PATH"
	for name, value in pairs(env) do
		if name ~= "PATH" then words[#words + 1] = scratch.quote(name .. "=" .. value) end
	end
	words[#words + 1] = scratch.quote("PATH=" .. path)
	scratch.write(env.HOME .. "/pull.lua", script)
	words[#words + 1] = scratch.quote(build.dir .. "/supermachine")
	words[#words + 1] = scratch.quote(env.HOME .. "/pull.lua")
	words[#words + 1] = scratch.quote(reference)
	words[#words + 1] = scratch.quote("store=" .. store)
	words[#words + 1] = "platform=amd64"
	for key, value in pairs(options or {}) do
		words[#words + 1] = scratch.quote(("%s=%s"):format(key, value))
	end
	local output = scratch.run(table.concat(words, " "))
	local code, message = output:match "^(%S+)\t(.*)$"
	if not code then error(output) end
	if code:find "^sha256:" then return code end
	return nil, message, code
end

return { pull = pull, home = home }
