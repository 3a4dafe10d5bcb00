-- Tasks that share one poll, and the same calls without them.
local agent = require "spec.support.agent"
local core = require "supermachine.core"
local process = require "supermachine.process"
local scheduler = require "supermachine.scheduler"

describe("the scheduler", function()
	local guest
	setup(function() guest = agent.start() end)
	teardown(function() guest:close() end)

	it("returns what the first task returns, when all have ended", function()
		local order = {}
		local a, b, c = scheduler.run(function(...)
			scheduler.go(function(name)
				scheduler.sleep(20)
				order[#order + 1] = name
			end, "second")
			order[#order + 1] = "first"
			return ...
		end, 1, nil, 3)
		assert.are.same({ 1, 3 }, { a, c })
		assert.is_nil(b)
		assert.are.same({ "first", "second" }, order)
	end)

	it("runs fifty processes at once", function()
		local results, most, now = {}, 0, 0
		scheduler.run(function()
			for i = 1, 50 do
				scheduler.go(function()
					now = now + 1
					most = math.max(most, now)
					results[i] = assert(process.exec(guest, { "sh", "-c", "cat; sleep 0.1; exit " .. i },
						{ stdin = ("x"):rep(i) }))
					now = now - 1
				end)
			end
		end)
		assert.are.equal(50, most)
		for i = 1, 50 do assert.are.same({ i, i }, { results[i].code, #results[i].stdout }) end
	end)

	it("wakes sleepers in the order of their times", function()
		local order = {}
		scheduler.run(function()
			for _, milliseconds in ipairs { 60, 20, 40 } do
				scheduler.go(function()
					scheduler.sleep(milliseconds)
					order[#order + 1] = milliseconds
				end)
			end
		end)
		assert.are.same({ 20, 40, 60 }, order)
	end)

	it("lets tasks wait for each other, and for so long only", function()
		scheduler.run(function()
			local task = scheduler.go(function()
				scheduler.sleep(50)
				return "done", 2
			end)
			assert.are.same({ nil, "timed out", "ETIMEDOUT" }, { task:wait { timeout_ms = 1 } })
			assert.are.same({ "done", 2 }, { task:wait() })
			assert.are.same({ "done", 2 }, { task:wait() })
		end)
	end)

	it("raises what a task raises, and closes the others", function()
		local closed = {}
		local function watched(name) return setmetatable({}, { __close = function() closed[#closed + 1] = name end }) end
		local fault = { "a value" }
		local fine, raised = pcall(scheduler.run, function()
			local here <close> = watched "first" -- luacheck: ignore 211
			scheduler.go(function()
				local there <close> = watched "second" -- luacheck: ignore 211
				scheduler.sleep(10)
				error(fault)
			end)
			scheduler.sleep(60000)
		end)
		assert.is_false(fine)
		assert.are.equal(fault, raised)
		table.sort(closed)
		assert.are.same({ "first", "second" }, closed)
		assert.are.equal(1, scheduler.run(function() return 1 end)) -- and is fit for another run
	end)

	it("kills the processes of tasks that are closed", function()
		assert.has_error(function()
			scheduler.run(function()
				scheduler.go(function() process.exec(guest, { "sleep", "1000" }) end)
				while guest:children() == 0 do scheduler.sleep(5) end
				error("stop", 0)
			end)
		end, "stop")
		local deadline = core.now_ms() + 20000
		while guest:children() > 0 and core.now_ms() < deadline do scheduler.sleep(5) end
		assert.are.equal(0, guest:children())
	end)

	it("keeps pcall and to-be-closed variables working over a wait", function()
		local closed
		scheduler.run(function()
			local fine, message = pcall(function()
				local guard <close> = setmetatable({}, { __close = function() closed = true end }) -- luacheck: ignore 211
				assert.are.equal("x\n", process.exec(guest, { "echo", "x" }).stdout)
				error("after the wait", 0)
			end)
			assert.are.same({ false, "after the wait", true }, { fine, message, closed })
		end)
	end)

	it("polls in a coroutine of the caller's own", function()
		local function lines()
			return coroutine.wrap(function()
				local child <close> = assert(process.spawn(guest, { "printf", "a\\nb\\n" }))
				for line in child:lines() do coroutine.yield(line) end
			end)
		end
		local got = {}
		scheduler.run(function()
			for line in lines() do got[#got + 1] = line end
		end)
		for line in lines() do got[#got + 1] = line end
		assert.are.same({ "a", "b", "a", "b" }, got)
	end)

	it("lets a task pass with a plain yield", function()
		local order = {}
		scheduler.run(function()
			for _, name in ipairs { "a", "b" } do
				scheduler.go(function()
					for i = 1, 2 do
						order[#order + 1] = name .. i
						coroutine.yield()
					end
				end)
			end
		end)
		assert.are.same({ "a1", "b1", "a2", "b2" }, order)
	end)

	it("lets one task write to a process and another read from it", function()
		local data = ("0123456789abcde\n"):rep(100000)
		local count = 0
		scheduler.run(function()
			local child <close> = assert(process.spawn(guest, { "cat" }))
			local writer = scheduler.go(function()
				assert(child:write(data))
				assert(child:close_stdin())
			end)
			for line in child:lines "L" do count = count + #line end
			writer:wait()
			assert.are.equal(0, assert(child:wait()).code)
		end)
		assert.are.equal(#data, count)
	end)

	it("wakes a task whose process another closes", function()
		scheduler.run(function()
			local child = assert(process.spawn(guest, { "cat" }))
			local reader = scheduler.go(function() return child:read() end)
			scheduler.sleep(5)
			child:close()
			assert.are.same({ nil, "the process was closed", "EBADF" }, { reader:wait() })
		end)
	end)

	it("refuses a run in a run, tasks without one, and a wait without an end", function()
		scheduler.run(function() assert.has_error(function() scheduler.run(print) end, "run inside of run") end)
		assert.has_error(function() scheduler.go(print) end, "go outside of run")
		local other
		assert.has_error(function()
			scheduler.run(function()
				local self
				self = scheduler.go(function() other:wait() end)
				other = scheduler.go(function() self:wait() end)
			end)
		end, "every task waits for another")
	end)

	it("passes a begin function's failure through finish", function()
		assert.are.same({ nil, "why", "EWHY" }, { scheduler.finish(nil, "why", "EWHY") })
	end)
end)
