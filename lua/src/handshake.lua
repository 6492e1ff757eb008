-- Which bytes are which: nonce, identity, session offer, then frames (PROTOCOL 2.1).
--
-- Each direction is read by itself, because every size is fixed: the server sends 40 bytes, then 384, then frames; the
-- device 256, then frames. A hole counts like the bytes it stands for, so that a message the peer acknowledged but the
-- capture missed is known to have been sent. Knows sizes and turns only: no keys, no cryptography.
--
-- A part is one handshake message, whole or as far as it got: {kind, sender, size, received, missing, sent, complete,
-- data, first_packet, first_time, packet, time, cuts}. `received` counts captured bytes, `missing` those in holes,
-- `sent` both; it is `complete` when that reaches `size`. `data` is nil unless every byte was captured. `cuts` lists
-- {packet, bytes} of the pieces it came in. `packet` and `time` are those of the latest piece. A part whose
-- `first_packet` is 0 stands for a message sent before the capture began.

local constants = spark.constants
local FrameReader, chain = spark.FrameReader, spark.chain

local STEPS = constants.handshake.STEPS
local OPENING = constants.handshake.OPENING
local HELD = constants.handshake.HELD
local CUTS = constants.handshake.CUTS

local min = math.min
local sub = string.sub

local TurnReader = {}
TurnReader.__index = TurnReader

--- Reads one direction of a conversation: its handshake messages, then its frames; it is the reader of a Stream.
-- `emit` is called with each frame.
--
-- Fields to read: `parts` (in order; the last one may be unfinished), `frames` (the FrameReader, nil before any),
-- `early` (frames that came in the place of a handshake message), `opening` (first captured bytes), `started`
-- ("beginning" or "midway"; nil while that is open), `before` (bytes of handshake messages that were sent before the
-- capture began: stream offset 0 is that far into the conversation).
function TurnReader.new(sender, emit)
  return setmetatable({
    sender = sender,
    parts = {},
    frames = nil,
    early = 0,
    opening = "",
    started = "beginning",
    before = 0,
    position = 0, -- stream offset of the next byte, until the frames begin
    emit = emit,
    begins_likely = true,
    in_frames = false,
    unfinished = "",
    held = {}, -- {data, packet, time}
    held_size = 0,
  }, TurnReader)
end

--- Says that the stream's first byte is the conversation's first after all.
function TurnReader:begin()
  if self.started == nil and self.held[1] == nil then self.started = "beginning" end
end

--- Says that the stream's first byte may not be the conversation's first; `likely` when it may well be. Then the first
-- bytes decide whether this is the start of a handshake message or a frame.
function TurnReader:begin_midway(likely)
  if self.position == 0 then
    self.started = nil
    self.begins_likely = likely
  end
end

--- Returns the handshake message of that kind, whole or not, or nil.
function TurnReader:part(kind)
  for _, part in ipairs(self.parts) do
    if part.kind == kind then return part end
  end
  return nil
end

local function add_part(turn, step, missing, packet, time)
  local kind, size = step[1], step[2]
  local part = {
    kind = kind,
    sender = turn.sender,
    size = size,
    received = 0,
    missing = missing,
    sent = missing,
    complete = missing == size,
    data = nil,
    first_packet = packet,
    first_time = time,
    packet = packet,
    time = time,
    cuts = {},
  }
  turn.parts[#turn.parts + 1] = part
  return part
end

--- Returns the handshake message that the next byte belongs to, nil when frames have begun. A device that never got a
-- nonce, or could not use it, may send frames in the place of its identity (PROTOCOL 9.2): a packet that is exactly a
-- run of frames (`data`, nil for a hole) is one.
local function current(turn, packet, time, data)
  local parts, steps = turn.parts, STEPS[turn.sender]
  local done = #parts
  if done > 0 and not parts[done].complete then return parts[done] end
  if done == #steps or (turn.frames and turn.frames:pending() > 0) then return nil end
  if data and done == 0 and turn.sender == "device" then
    local count, exact = chain(data)
    if exact then
      turn.early = turn.early + count
      return nil
    end
  end
  return add_part(turn, steps[done + 1], 0, packet, time)
end

--- Counts a piece of a handshake message, which came or is missing.
local function stamp(turn, part, packet, time, length)
  if packet >= part.packet then part.packet, part.time = packet, time end
  if packet < part.first_packet then part.first_packet, part.first_time = packet, time end
  if #part.cuts < CUTS then part.cuts[#part.cuts + 1] = { packet, length } end
  part.sent = part.received + part.missing
  part.complete = part.sent >= part.size
  turn.position = turn.position + length
end

local function frame_reader(turn, searching)
  if turn.frames == nil then
    turn.frames = FrameReader.new(turn.sender, turn.emit, turn.position, searching)
  elseif not turn.in_frames and turn.frames:pending() == 0 then
    turn.frames.offset = turn.position -- a handshake message may lie between early frames and the rest
  end
  turn.in_frames = #turn.parts == #STEPS[turn.sender]
  return turn.frames
end

local function take(turn, data, packet, time)
  while data ~= "" do
    local part = current(turn, packet, time, data)
    if part == nil then
      frame_reader(turn, false):receive(data, packet, time)
      turn.position = turn.position + #data
      return
    end
    local piece = sub(data, 1, part.size - part.sent)
    data = sub(data, #piece + 1)
    part.received = part.received + #piece
    turn.unfinished = turn.unfinished .. piece
    if part.received == part.size then part.data = turn.unfinished end
    stamp(turn, part, packet, time, #piece)
    if part.complete then turn.unfinished = "" end
  end
end

-- -- a stream whose first byte may not be the conversation's ------------------------------------------------------

--- Takes what was held, as what follows the first `unseen` handshake messages; those were sent before the capture
-- began. `searching` when that is frames, and no boundary is known.
local function settle(turn, unseen, searching)
  local steps = STEPS[turn.sender]
  for index = 1, unseen do
    local size = steps[index][2]
    add_part(turn, steps[index], size, 0, 0)
    turn.before = turn.before + size
  end
  turn.started = unseen == 0 and "beginning" or "midway"
  if unseen == #steps then frame_reader(turn, searching) end
  local held = turn.held
  turn.held, turn.held_size = {}, 0
  for _, piece in ipairs(held) do take(turn, piece.data, piece.packet, piece.time) end
end

--- Settles without proof.
local function settle_anyhow(turn)
  if turn.begins_likely then settle(turn, 0, false) else settle(turn, #STEPS[turn.sender], true) end
end

--- Returns how many handshake messages must be missing for this many bytes to end with one; nil if they do not.
local function parts_before(turn, length)
  local steps, total = STEPS[turn.sender], 0
  local found
  for unseen = #steps - 1, 0, -1 do
    local size = steps[unseen + 1][2]
    total = total + size
    if length == size or length == total then found = unseen end
  end
  return found
end

--- Whether several small packets, that together have the size looked for, are frames cut anyhow.
local function holds_frames(turn)
  local held = turn.held
  if #held == 1 then return false end
  local pieces, begins, position = {}, {}, 0
  for index, piece in ipairs(held) do
    pieces[index] = piece.data
    begins[position] = true
    position = position + #piece.data
  end
  local data = table.concat(pieces)
  for start = 0, position - 1 do
    local count, exact = chain(data, start)
    if count > 1 or (exact and begins[start]) then return true end
  end
  return false
end

--- Decides by the first packets: an exact run of frames, or exactly a handshake message's size. In a single packet the
-- sizes cannot be mistaken: no run of frames has 40 bytes, and one of 384 or 256 has eight frames.
local function guess_start(turn, data, packet, time)
  local held = turn.held
  held[#held + 1] = { data = data, packet = packet, time = time }
  turn.held_size = turn.held_size + #data
  local _, exact = chain(data)
  if exact then
    settle(turn, #STEPS[turn.sender], #held > 1)
    return
  end
  local unseen = parts_before(turn, turn.held_size)
  if unseen and not holds_frames(turn) then
    settle(turn, unseen, false)
  elseif turn.held_size > HELD then
    settle_anyhow(turn)
  end
end

-- -- what a stream tells its reader ------------------------------------------------------------------------------

--- Takes the next bytes, all from one packet.
function TurnReader:receive(data, packet, time)
  local opening = self.opening
  if #opening < OPENING then self.opening = opening .. sub(data, 1, OPENING - #opening) end
  if self.in_frames then
    self.frames:receive(data, packet, time)
  elseif self.started == nil then
    guess_start(self, data, packet, time)
  else
    take(self, data, packet, time)
  end
end

--- Takes note of missing bytes.
function TurnReader:skip(hole)
  local packet, time, length = hole.packet, hole.time, hole.length
  if self.started == nil then
    -- They were acknowledged but not captured: their number may still be a handshake message's size.
    local unseen = self.held[1] == nil and parts_before(self, length)
    if unseen then settle(self, unseen, false) else settle_anyhow(self) end
  end
  while length > 0 do
    local part = current(self, packet, time, nil)
    if part == nil then
      local rest = { offset = hole.offset + hole.length - length, length = length, packet = packet, time = time }
      frame_reader(self, false):skip(rest)
      self.position = self.position + length
      return
    end
    local room = min(length, part.size - part.sent)
    part.missing = part.missing + room
    self.unfinished = ""
    length = length - room
    stamp(self, part, packet, time, room)
  end
end

spark.TurnReader = TurnReader
