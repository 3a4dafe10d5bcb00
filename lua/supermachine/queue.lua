--- Bytes that come in pieces and leave in others: what reading by lines, by number and to the end has in common.
local queue = {}

local methods = {}
local metatable = { __index = methods }

--- An empty queue that holds at most `max` bytes (nil: no limit).
function queue.new(max)
	return setmetatable({
		pieces = {}, first = 1, last = 0, -- pieces[first .. last]
		at = 1, -- where in the first one the rest begins
		bytes = 0,
		max = max or math.huge,
		-- A search for the end of a line goes on where it stopped: at this piece, with so many bytes before it.
		search = 1, search_bytes = 0,
	}, metatable)
end

--- True when all of it found room.
function methods:append(piece)
	local fits = self.bytes + #piece <= self.max
	if not fits then piece = piece:sub(1, self.max - self.bytes) end
	if piece ~= "" then
		self.last = self.last + 1
		self.pieces[self.last] = piece
		self.bytes = self.bytes + #piece
	end
	return fits
end

-- The first `count` bytes, which are there.
local function take_bytes(self, count)
	local taken = {}
	self.bytes = self.bytes - count
	while count > 0 do
		local piece = self.pieces[self.first]
		local rest = #piece - self.at + 1
		if count < rest then
			taken[#taken + 1] = piece:sub(self.at, self.at + count - 1)
			self.at = self.at + count
			break
		end
		taken[#taken + 1] = self.at == 1 and piece or piece:sub(self.at)
		self.pieces[self.first] = nil
		self.first, self.at = self.first + 1, 1
		count = count - rest
	end
	self.search, self.search_bytes = self.first, 0
	return table.concat(taken)
end

-- Bytes of the first line, its end included, or nil.
local function line_bytes(self)
	while self.search <= self.last do
		local piece = self.pieces[self.search]
		local from = self.search == self.first and self.at or 1
		local found = piece:find("\n", from, true)
		if found then return self.search_bytes + found - from + 1 end
		self.search_bytes = self.search_bytes + #piece - from + 1
		self.search = self.search + 1
	end
end

--- Take what the format asks for (see check_format), or nil when it is not there yet; at_end: no more will come.
function methods:take(format, at_end)
	if format == "a" then return at_end and take_bytes(self, self.bytes) or nil end
	if self.bytes == 0 then return nil end
	if format ~= "l" and format ~= "L" then return take_bytes(self, math.min(format or self.bytes, self.bytes)) end
	local count = line_bytes(self)
	if not count then return at_end and take_bytes(self, self.bytes) or nil end
	local line = take_bytes(self, count)
	return format == "L" and line or line:sub(1, -2)
end

--- Formats: nil, what is there; a number, at most so many bytes of it; "l" and "L", a line without and with its end;
-- "a", everything up to the end.  Raises at the caller's caller for anything else.
function queue.check_format(format)
	if format == nil or format == "l" or format == "L" or format == "a" then return end
	if math.type(format) == "integer" and format > 0 then return end
	error(("unknown format '%s'"):format(tostring(format)), 3)
end

return queue
