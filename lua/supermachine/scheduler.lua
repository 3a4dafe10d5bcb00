--- Waiting, written once.  Every blocking call of this library comes down to scheduler.wait: outside of
-- scheduler.run it polls; in a task of scheduler.run it yields, and one poll serves all tasks.  So the same sequential
-- code drives one machine or hundreds.
local core = require "supermachine.core"

local scheduler = {}

-- The run under way; there is one at most.  Tasks are found by their coroutine: code in a coroutine of the caller's
-- own, inside a task, must not yield past its creator, so it polls.
local current

local task_methods = {}
local task_metatable = { __index = task_methods, __name = "supermachine.task" }

local TIMED_OUT <const> = table.pack(nil, "timed out", "ETIMEDOUT")

local function deadline_of(timeout_ms)
	return timeout_ms and timeout_ms >= 0 and core.now_ms() + timeout_ms or nil
end

local function running_task() return current and current.tasks[coroutine.running()] end

-- ---- tasks ------------------------------------------------------------------------------------------------------

-- Take a task out of what it waits for and have it resumed with these values.
local function make_ready(run, task, values)
	if task.entries then
		for _, entry in ipairs(task.entries) do
			local waiters = run.by_fd[entry[1]]
			waiters[task] = nil
			if not next(waiters) then run.by_fd[entry[1]] = nil end
		end
		task.entries = nil
	end
	run.waiting[task] = nil
	task.deadline = nil
	task.values = values
	run.ready[#run.ready + 1] = task
end

-- Called in a task: until a descriptor is ready, the deadline, or make_ready by somebody.
local function park(task, entries, deadline)
	local run = current
	task.entries, task.deadline = entries, deadline
	run.waiting[task] = true
	for _, entry in ipairs(entries) do
		local waiters = run.by_fd[entry[1]] or {}
		run.by_fd[entry[1]] = waiters
		waiters[task] = true
	end
	return coroutine.yield(task)
end

local function new_task(run, fn, ...)
	local task = setmetatable({ co = coroutine.create(fn), values = table.pack(...), joiners = {} }, task_metatable)
	run.tasks[task.co] = task
	run.count = run.count + 1
	run.ready[#run.ready + 1] = task
	return task
end

local function resume(run, task)
	local values = task.values
	task.values = nil
	local results = table.pack(coroutine.resume(task.co, table.unpack(values, 1, values.n)))
	if coroutine.status(task.co) == "suspended" then
		-- A plain coroutine.yield() in a task lets the others run.
		if not run.waiting[task] then
			task.values = table.pack()
			run.ready[#run.ready + 1] = task
		end
		return
	end
	run.tasks[task.co] = nil
	run.count = run.count - 1
	if not results[1] then
		coroutine.close(task.co) -- one that died by an error has its to-be-closed variables still open
		error(results[2], 0)
	end
	task.results = table.pack(table.unpack(results, 2, results.n))
	for joiner in pairs(task.joiners) do
		if run.waiting[joiner] then make_ready(run, joiner, table.pack(true)) end
	end
end

-- One poll for all that wait.
local function poll_all(run, timeout_ms)
	local entries, owners, now = {}, {}, core.now_ms()
	for task in pairs(run.waiting) do
		for _, entry in ipairs(task.entries) do
			entries[#entries + 1] = entry
			owners[#owners + 1] = task
		end
		if task.deadline then
			local left = math.max(task.deadline - now, 0)
			if not timeout_ms or left < timeout_ms then timeout_ms = left end
		end
	end
	if #entries == 0 and not timeout_ms then error("every task waits for another", 0) end
	local ready = assert(core.poll(entries, timeout_ms))
	for _, index in ipairs(ready) do
		if run.waiting[owners[index]] then make_ready(run, owners[index], table.pack(true)) end
	end
	now = core.now_ms()
	for task in pairs(run.waiting) do
		if task.deadline and task.deadline <= now then run.expired[#run.expired + 1] = task end
	end
	for i, task in ipairs(run.expired) do
		run.expired[i] = nil
		make_ready(run, task, TIMED_OUT)
	end
end

--- Run fn(...) as a task, and every task that it or another starts with go; returns fn's results when all have ended.
-- An error in any task ends the run: the other tasks are closed, their to-be-closed variables with them, and it is
-- raised here.
function scheduler.run(fn, ...)
	if current then error("run inside of run", 2) end
	local run = { tasks = {}, waiting = {}, by_fd = {}, ready = {}, expired = {}, count = 0 }
	current = run
	local guard <close> = setmetatable({}, { __close = function() -- luacheck: ignore 211
		-- From here on what the tasks' closing handlers wait for is polled for.
		current = nil
		for co in pairs(run.tasks) do coroutine.close(co) end
	end })
	local main = new_task(run, fn, ...)
	while run.count > 0 do
		local batch = run.ready
		run.ready = {}
		for _, task in ipairs(batch) do resume(run, task) end
		if run.count > 0 then poll_all(run, #run.ready > 0 and 0 or nil) end
	end
	return table.unpack(main.results, 1, main.results.n)
end

--- Start fn(...) as a task of the run under way; it begins when the caller waits next.  Returns a handle with wait().
function scheduler.go(fn, ...)
	if not current then error("go outside of run", 2) end
	return new_task(current, fn, ...)
end

--- Wait for the task's end; returns its results.  Options: timeout_ms.  (A task that raises ends the whole run.)
function task_methods:wait(options)
	local task = running_task()
	if not task then error("a task is waited for in another task", 2) end
	if not self.results then
		self.joiners[task] = true
		local fine, message, code = park(task, {}, deadline_of(options and options.timeout_ms))
		self.joiners[task] = nil
		if not fine then return nil, message, code end
	end
	return table.unpack(self.results, 1, self.results.n)
end

-- ---- waiting ----------------------------------------------------------------------------------------------------

--- Wait until one of { {fd, "r" | "w" | "rw"}, .. } is ready, hung up or in error.  true, or nil, message, "ETIMEDOUT".
-- timeout_ms nil or negative: for ever.  Wake-ups without cause are possible: try the non-blocking call again.
function scheduler.wait(entries, timeout_ms)
	local deadline = deadline_of(timeout_ms)
	local task = running_task()
	if task then return park(task, entries, deadline) end
	while true do
		local left = deadline and math.max(deadline - core.now_ms(), 0)
		local ready, message, code = core.poll(entries, left)
		if not ready then return nil, message, code end
		if ready[1] then return true end
		if deadline and core.now_ms() >= deadline then return table.unpack(TIMED_OUT, 1, 3) end
	end
end

--- The same for one descriptor.
function scheduler.await(fd, events, timeout_ms) return scheduler.wait({ { fd, events } }, timeout_ms) end

--- Let time pass; in a task, for this task alone.
function scheduler.sleep(milliseconds) scheduler.wait({}, math.max(milliseconds, 0)) end

--- Wake the tasks that wait for this descriptor: another has read what they wait for, or is about to close it.
function scheduler.wake(fd)
	local waiters = current and current.by_fd[fd]
	while waiters and next(waiters) do make_ready(current, next(waiters), table.pack(true)) end
end

--- Await an operation and return what its finish() returns.  Past timeout_ms it is cancelled: nil, message,
-- "ETIMEDOUT".
-- A begin function's failure passes through, so scheduler.finish(core.some_begin(..)) is right.
function scheduler.finish(operation, timeout_ms, code)
	if not operation then return nil, timeout_ms, code end
	local held <close> = operation
	local fine, message, why = scheduler.await(held:fd(), "r", timeout_ms)
	if fine then return held:finish() end
	held:cancel()
	scheduler.await(held:fd(), "r") -- its thread looks at the flag now and then
	return nil, message, why
end

--- The same for one that tells of its progress: on_progress is called with each event, here, so in a task it may wait.
-- An error in it ends the operation.
function scheduler.follow(on_progress, timeout_ms, operation, message, code)
	if not operation then return nil, message, code end
	local held <close> = operation
	local deadline = deadline_of(timeout_ms)
	local entries = { { held:fd(), "r" }, { held:progress_fd(), "r" } }
	repeat
		local done = held:done()
		for _, event in ipairs(held:progress()) do on_progress(event) end
		if not done then
			local fine, late, why = scheduler.wait(entries, deadline and math.max(deadline - core.now_ms(), 0))
			if not fine then
				held:cancel()
				scheduler.await(held:fd(), "r")
				return nil, late, why
			end
		end
	until done
	return held:finish()
end

return scheduler
