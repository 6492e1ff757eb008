-- Stream bytes to frames: two bytes of length, then that much ciphertext (PROTOCOL 4.3).
--
-- FrameReader needs no key. It survives holes: a hole inside one frame costs that frame, a larger one costs the
-- boundary, which is found again where lengths chain (PROTOCOL 4.5). What is skipped is counted, never hidden.
--
-- A frame is {sender, index, offset, length, ciphertext, head, first_packet, packet, time, follows_gap, size}: `index`
-- counts those of one direction from 0, `offset` is the stream offset of its length field, `length` its ciphertext in
-- bytes and `size` the same on the wire. `ciphertext` is nil when a hole took part of it; then `head` still holds
-- what was captured of its first block. `follows_gap` says that the frame before it, or a part of it, is missing.

local constants = spark.constants

local BLOCK = constants.catalogue.BLOCK
local LARGEST_FRAME = constants.catalogue.LARGEST_FRAME
local LENGTH_PREFIX = constants.catalogue.LENGTH_PREFIX
local CHAIN = constants.frames.CHAIN
local SEARCH_WINDOW = constants.frames.SEARCH_WINDOW
local STRIDE = constants.frames.STRIDE
local LOST_LISTED = constants.frames.LOST_LISTED

local byte, rep, sub = string.byte, string.rep, string.sub
local floor, max, min = math.floor, math.max, math.min

--- Whether a 16-bit length field can belong to a frame: whole AES blocks, at least one.
local function is_length(field)
  return field % BLOCK == 0 and field >= BLOCK and field <= LARGEST_FRAME
end

--- Returns the 16-bit field that stands at `index` (from 0) of `data`.
local function field_at(data, index)
  local high, low = byte(data, index + 1, index + 2)
  return high * 256 + low
end

--- Follows length fields from `start` (0 if nil): returns how many whole frames follow, and whether they end exactly
-- at the end of `data`. A field that cannot be a length makes the count 0.
local function chain(data, start)
  local count, position, stop = 0, start or 0, #data
  while position + LENGTH_PREFIX <= stop do
    local field = field_at(data, position)
    if not is_length(field) then return 0, false end
    position = position + LENGTH_PREFIX + field
    if position > stop then return count, false end
    count = count + 1
  end
  return count, position == stop and count > 0
end

-- -- a heap of candidates ----------------------------------------------------------------------------------------
-- A candidate is a place where a boundary may be, in stream offsets: {needs, start, stop, count, begins_packet}. The
-- stream must reach as far as `needs` before more can be said; `stop` is the end of the frame it waits for, or of the
-- last one if that one is whole; `count` are the whole frames so far. The one that needs least is on top.

local function is_above(one, other)
  return one.needs < other.needs or (one.needs == other.needs and one.start < other.start)
end

local function push(heap, candidate)
  local place = #heap + 1
  while place > 1 do
    local parent = floor(place / 2)
    if not is_above(candidate, heap[parent]) then break end
    heap[place] = heap[parent]
    place = parent
  end
  heap[place] = candidate
end

local function pop(heap)
  local count = #heap
  local top, moved = heap[1], heap[count]
  heap[count] = nil
  count = count - 1
  local place = 1
  while 2 * place <= count do
    local child = 2 * place
    if child < count and is_above(heap[child + 1], heap[child]) then child = child + 1 end
    if not is_above(heap[child], moved) then break end
    heap[place] = heap[child]
    place = child
  end
  if count > 0 then heap[place] = moved end
  return top
end

-- -- the reader --------------------------------------------------------------------------------------------------

local FrameReader = {}
FrameReader.__index = FrameReader

--- Cuts one direction's stream into frames from stream offset `offset` on, and calls `emit` with each. `searching` when
-- no boundary is known.
--
-- Fields to read: `offset` (of the first byte that no frame was made of yet), `count` (frames), `skipped` (bytes that
-- could not be assigned to a frame), `lost` (the first places where framing was lost, {sender, offset, packet, time,
-- field}: the length field there cannot be one).
function FrameReader.new(sender, emit, offset, searching)
  return setmetatable({
    sender = sender,
    offset = offset,
    count = 0,
    skipped = 0,
    lost = {},
    unread = 0, -- bytes that do not make a whole frame yet
    emit = emit,
    buffer = "", -- the pending bytes are its last ones
    base = offset, -- stream offset of the buffer's first byte
    marks = {}, -- {offset, packet, time} where each packet's bytes begin
    first_mark = 1,
    last_mark = 0,
    searching = searching,
    after_gap = searching,
    frame_hole = nil, -- offset of the first missing byte of the front frame, which stands there as a zero
    scanned = offset, -- offsets before this one are no boundary, or candidates
    candidates = {},
  }, FrameReader)
end

local function begin_search(reader)
  reader.searching, reader.after_gap = true, true
  reader.scanned = reader.offset
  reader.candidates = {}
end

--- Lets go of the bytes before a stream offset. The last mark at or before it stays, unless nothing does.
local function drop(reader, offset)
  reader.unread = reader.unread - (offset - reader.offset)
  reader.offset = offset
  local marks, first, last = reader.marks, reader.first_mark, reader.last_mark
  if reader.unread == 0 then
    if last > 0 then reader.marks, reader.first_mark, reader.last_mark = {}, 1, 0 end
    return
  end
  while first < last and marks[first + 1].offset <= offset do
    marks[first] = nil
    first = first + 1
  end
  reader.first_mark = first
end

--- Makes the frame that begins the pending bytes, and lets go of them.
local function make(reader, length)
  local start, marks, hole = reader.offset, reader.marks, reader.frame_hole
  local stop = start + LENGTH_PREFIX + length
  local index = reader.first_mark
  local first = marks[index]
  local last = first
  while index < reader.last_mark and marks[index + 1].offset < stop do
    index = index + 1
    -- The packet that completed it is the latest one that holds any of its bytes.
    if marks[index].packet > last.packet then last = marks[index] end
  end
  local position = start - reader.base + LENGTH_PREFIX
  local body = sub(reader.buffer, position + 1, position + length)
  local known = hole and min(BLOCK, hole - start - LENGTH_PREFIX) or BLOCK
  local frame = {
    sender = reader.sender,
    index = reader.count,
    offset = start,
    length = length,
    ciphertext = not hole and body or nil,
    head = sub(body, 1, known),
    first_packet = first.packet,
    packet = last.packet,
    time = last.time,
    follows_gap = reader.after_gap,
    size = LENGTH_PREFIX + length,
  }
  reader.frame_hole = nil
  reader.count = reader.count + 1
  reader.after_gap = hole ~= nil
  drop(reader, stop)
  reader.emit(frame)
end

--- Cuts off all whole frames. Returns false when a length field cannot be one, and the search is on.
local function cut(reader)
  while reader.unread >= LENGTH_PREFIX do
    local length = field_at(reader.buffer, reader.offset - reader.base)
    if not is_length(length) then
      if #reader.lost < LOST_LISTED then
        local mark = reader.marks[reader.first_mark]
        reader.lost[#reader.lost + 1] = {
          sender = reader.sender,
          offset = reader.offset,
          packet = mark.packet,
          time = mark.time,
          field = length,
        }
      end
      begin_search(reader)
      return false
    end
    if LENGTH_PREFIX + length > reader.unread then break end
    make(reader, length)
  end
  return true
end

-- -- finding a boundary again ------------------------------------------------------------------------------------

--- Notes where a length field may stand among the next bytes not looked at before; false without any.
local function scan(reader)
  local buffer, base, marks = reader.buffer, reader.base, reader.marks
  local first = max(reader.scanned, reader.offset)
  local last = min(first + STRIDE, reader.offset + reader.unread - LENGTH_PREFIX + 1)
  local mark = reader.last_mark + 1
  while mark > reader.first_mark and marks[mark - 1].offset >= first do mark = mark - 1 end
  for start = first, last - 1 do
    while mark <= reader.last_mark and marks[mark].offset < start do mark = mark + 1 end
    local length = field_at(buffer, start - base)
    if is_length(length) then
      local stop = start + LENGTH_PREFIX + length
      local begins = mark <= reader.last_mark and marks[mark].offset == start
      push(reader.candidates, { needs = stop, start = start, stop = stop, count = 0, begins_packet = begins })
    end
  end
  reader.scanned = max(first, last)
  return last > first
end

--- Follows the lengths from each candidate as far as the data go; returns the first boundary that is sure.
local function follow(reader)
  local base, heap = reader.base, reader.candidates
  local reached, found = reader.offset + reader.unread, nil
  while heap[1] and heap[1].needs <= reached do
    local candidate = pop(heap)
    if candidate.start >= reader.offset then -- else it left the window
      if candidate.needs == candidate.stop then
        candidate.count = candidate.count + 1
        local enough = candidate.begins_packet and 1 or 2
        if candidate.count >= CHAIN or (candidate.stop == reached and candidate.count >= enough) then
          found = min(found or candidate.start, candidate.start)
        else
          candidate.needs = candidate.needs + LENGTH_PREFIX
          push(heap, candidate)
        end
      else
        local length = field_at(reader.buffer, candidate.stop - base)
        if is_length(length) then
          candidate.stop = candidate.needs + length
          candidate.needs = candidate.stop
          push(heap, candidate)
        end
      end
    end
  end
  return found
end

--- Returns the first boundary that will do when nothing comes that joins on.
local function best_guess(reader)
  local found
  for _, candidate in ipairs(reader.candidates) do
    local sure = candidate.count > 1
      or (candidate.count == 1 and candidate.begins_packet and candidate.needs == candidate.stop)
    if sure and candidate.start >= reader.offset then found = min(found or candidate.start, candidate.start) end
  end
  return found
end

--- Looks for a boundary, each byte once: goes on where the last packet ended. CHAIN frames must follow one another, or
-- two that end exactly with the data; or one, if it begins where a packet begins. When `final`, one frame that begins
-- a packet will do if another legal length follows it.
local function search(reader, final)
  local found
  while found == nil and scan(reader) do found = follow(reader) end
  if found == nil and final then found = best_guess(reader) end
  if found then
    reader.skipped = reader.skipped + found - reader.offset
    drop(reader, found)
    reader.searching = false
    reader.candidates = {}
    return true
  end
  local excess = reader.unread - SEARCH_WINDOW
  if excess > 0 then
    reader.skipped = reader.skipped + excess
    drop(reader, reader.offset + excess)
  end
  return false
end

--- Adds bytes to those pending and makes of them what can be made.
local function append(reader, data, packet, time)
  local reached = reader.offset + reader.unread
  reader.last_mark = reader.last_mark + 1
  reader.marks[reader.last_mark] = { offset = reached, packet = packet, time = time }
  if reader.unread > 0 then data = sub(reader.buffer, reader.offset - reader.base + 1) .. data end
  reader.buffer, reader.base, reader.unread = data, reader.offset, #data
  while (not reader.searching or search(reader, false)) and not cut(reader) do end
end

--- Takes the next bytes of the stream, all from one packet.
function FrameReader:receive(data, packet, time)
  if self.unread == 0 and not self.searching then
    -- Nearly every packet is one whole frame, or several.
    local position, stop = 0, #data
    while position + LENGTH_PREFIX < stop do
      local high, low = byte(data, position + 1, position + 2)
      local length = high * 256 + low
      local following = position + LENGTH_PREFIX + length
      if following > stop or length % BLOCK ~= 0 or length < BLOCK or length > LARGEST_FRAME then break end
      local body = sub(data, position + LENGTH_PREFIX + 1, following)
      local index = self.count
      local frame = {
        sender = self.sender,
        index = index,
        offset = self.offset,
        length = length,
        ciphertext = body,
        head = sub(body, 1, BLOCK),
        first_packet = packet,
        packet = packet,
        time = time,
        follows_gap = self.after_gap,
        size = LENGTH_PREFIX + length,
      }
      self.offset = self.offset + LENGTH_PREFIX + length
      self.count = index + 1
      self.after_gap = false
      self.emit(frame)
      position = following
    end
    if position == stop then return end
    if position > 0 then data = sub(data, position + 1) end
  end
  append(self, data, packet, time)
end

--- Takes note of missing bytes. They cost the frame they lie in, or the boundary if they reach further.
function FrameReader:skip(hole)
  -- Nothing comes that joins on: accept a boundary that the end of the data confirms.
  while self.searching and search(self, true) and not cut(self) do end
  self.after_gap = true
  if not self.searching and self.unread >= LENGTH_PREFIX then
    local length = field_at(self.buffer, self.offset - self.base)
    if hole.length <= LENGTH_PREFIX + length - self.unread then
      self.frame_hole = self.frame_hole or self.offset + self.unread
      append(self, rep("\0", hole.length), hole.packet, hole.time)
      return
    end
  end
  local gone = self.unread
  self.skipped = self.skipped + gone
  drop(self, self.offset + gone)
  self.offset = self.offset + hole.length
  self.frame_hole = nil
  begin_search(self)
end

--- Returns how many bytes were received that do not make a whole frame yet.
function FrameReader:pending()
  return self.unread
end

spark.chain = chain
spark.FrameReader = FrameReader
