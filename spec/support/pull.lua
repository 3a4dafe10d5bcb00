-- A pull in a process of its own, whose environment and home are the spec's: what it reads there is nobody else's.
local assert = require "luassert"
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
local peak
for line in io.lines "/proc/self/status" do peak = peak or line:match "^VmHWM:%s*(%d+) kB" end
print(image and image:digest() or code, peak, image and "" or message)
]]

-- A home for it: settings as files below it, removed by the caller.
local function home() return scratch.folder() end

-- Returns the digest, or nil, message and code; then the most memory it has had at once, KiB.  env: variable -> value;
-- HOME has to be there.  options: those of a pull, and a store if it is not to be a fresh one.
local function pull(reference, env, options)
	options = options or {}
	local store = options.store or scratch.run("mktemp -d " .. env.HOME .. "/store.XXXXXX")
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
	for key, value in pairs(options) do
		words[#words + 1] = scratch.quote(("%s=%s"):format(key, value))
	end
	local output = scratch.run(table.concat(words, " "))
	local code, peak, message = output:match "^(%S+)\t(%d+)\t(.*)$"
	if not code then error(output) end
	if code:find "^sha256:" then return code, nil, nil, tonumber(peak) end
	return nil, message, code, tonumber(peak)
end

-- That a pull was refused so; in the message its home is HOME.
local function refused(env_home, code, pattern, digest, message, got)
	assert.is_nil(digest)
	assert.matches(pattern, (message:gsub(env_home:gsub("%p", "%%%0"), "HOME")))
	assert.equal(code, got)
end

return { pull = pull, home = home, refused = refused }
