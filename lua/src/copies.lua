-- Packets that the capture holds twice: seen on two interfaces, behind a bridge or by a mirror port (DIAGNOSES 704).
--
-- A copy is not a retransmission: the sender sent it once. It is dropped before anything is counted.

local constants = spark.constants

local COPIES = constants.copies.COPIES
local COPY = constants.copies.COPY_NS / 1e9
local COPY_WITH_ID = constants.copies.COPY_WITH_ID_NS / 1e9

local abs = math.abs

local Headers = {}
Headers.__index = Headers

--- TCP headers of the last packets of one direction, to know a packet that the capture holds twice. `numbered` is
-- false when different packets have the same IP identification: then it says nothing.
--
-- Two generations: when the younger is full it becomes the older, so that nothing is ever moved (and taking one key
-- out of a full table for each put in is what Lua does worst). Each finds by sequence plus acknowledgement number the
-- last header with that sum, which knows the one `before` it, if any.
function Headers.new()
  return setmetatable({ numbered = true, last_id = nil, count = 0, places = {}, younger = {}, older = {} }, Headers)
end

--- Returns what flags say beyond "acknowledges something" as one number.
local function flags_of(segment)
  if not (segment.syn or segment.fin or segment.rst) then return 0 end
  return (segment.syn and 1 or 0) + (segment.fin and 2 or 0) + (segment.rst and 4 or 0) + (segment.acks and 8 or 0)
end

--- Returns the last header like this one, or nil.
local function find(generation, segment, flags)
  local ack, length, ip_id = segment.ack, segment.length, segment.ip_id
  local known = generation[segment.seq + ack]
  while known and (known.ack ~= ack or known.length ~= length or known.ip_id ~= ip_id or known.flags ~= flags) do
    known = known.before
  end
  return known
end

local function remember(headers, segment, flags)
  local count, places = headers.count, headers.places
  if count % COPIES == 0 then headers.older, headers.younger = headers.younger, {} end
  -- The tables of the generation before these two are used again.
  local place = count % (2 * COPIES) + 1
  headers.count = count + 1
  local header = places[place]
  if header == nil then
    header = {}
    places[place] = header
  end
  local key, younger = segment.seq + segment.ack, headers.younger
  header.before = younger[key]
  header.ack, header.length, header.ip_id = segment.ack, segment.length, segment.ip_id
  header.flags, header.time = flags, segment.time
  younger[key] = header
end

local function has_id(headers, segment)
  return headers.numbered and segment.ip_id ~= nil and segment.ip_id ~= 0
end

--- Whether this packet was seen before; if not, remembers it. The IP identification must be the same, or it must
-- come at once.
function Headers:repeats(segment)
  local flags = flags_of(segment)
  local known = find(self.younger, segment, flags) or find(self.older, segment, flags)
  if known then
    if abs(segment.time - known.time) <= (has_id(self, segment) and COPY_WITH_ID or COPY) then return true end
  elseif segment.ip_id == self.last_id then
    self.numbered = false
  end
  self.last_id = segment.ip_id
  remember(self, segment, flags)
  return false
end

--- Whether this may be a copy of a packet seen before; nothing is remembered.
function Headers:knows(segment)
  local flags = flags_of(segment)
  local known = find(self.younger, segment, flags) or find(self.older, segment, flags)
  return known ~= nil and has_id(self, segment)
end

spark.Headers = Headers
