-- Segments to byte streams: what each end of a TCP conversation sent, in order, with its holes.
--
-- One Stream is one direction. It is fed every segment of that sender and every acknowledgement of the peer, and it
-- tells its reader two things, in stream order: bytes (`reader:receive(data, packet, time)`) and holes
-- (`reader:skip(hole)`). It delivers as early as it can, so that a message is shown in the packet that completes it.
-- What is missing it waits for, but never for long without a reason:
--
--   - Acknowledged bytes will not be sent again; only a disorder of the capture itself can still bring them.
--   - Bytes that are not acknowledged by a peer that goes on acknowledging others were lost on the way, and TCP sends
--     them again, for minutes if it must. What came behind them has not reached the peer's program either. So they are
--     waited for as long as there is room for what waits behind them, or until a reset ends the connection.
--   - When the peer has been silent since data came behind the hole, its packets are not in the capture: a peer answers
--     data behind a hole at once (RFC 5681 4.2). Then nobody will ever acknowledge the missing bytes here, and they
--     are given up as soon as they should have been sent again.
--
-- When the user wants no late segment put in its place, nothing is waited for.
--
-- It knows TCP and nothing of Spark.

local constants = spark.constants

local SEQUENCE_SPACE = constants.streams.SEQUENCE_SPACE
local HALF_SPACE = constants.streams.HALF_SPACE
local FIN_REACH = constants.streams.FIN_REACH
local PENDING_PIECES = constants.streams.PENDING_PIECES
local PENDING_BYTES = constants.streams.PENDING_BYTES
local REACH = constants.streams.REACH
local RESENT = constants.streams.RESENT_NS / 1e9
local STEPS = constants.streams.STEPS
-- Seconds for which an acknowledged hole stays open. A card with several queues, or a capture on all interfaces at
-- once, shows packets of one machine out of order by some milliseconds at most. Data that come later shall be shown in
-- their own packet, which a longer patience would not allow.
local PATIENCE = 0.010
-- Seconds that a hole stays open when nothing is heard of the peer: by then lost bytes have been sent again. It is the
-- timer that a connection begins with in stacks of the devices' age (RFC 1122 4.2.3.1); later it is shorter.
local REPAIR = 3
-- What the user switches the waiting off with, and why bytes are missing then.
local PREFERENCE = "Put late segments in their place"
local NOT_WAITED_FOR = "not waited for: '" .. PREFERENCE .. "' is off"

local floor, max, min = math.floor, math.max, math.min
local insert, remove = table.insert, table.remove
local sub = string.sub

--- Returns the stream offset of a raw sequence number, `base` being that of offset 0: of all that it can be (the
-- numbers begin again every 4 GiB) the one nearest to the offset `expected`.
local function offset_near(base, expected, sequence)
  local delta = (sequence - base - expected) % SEQUENCE_SPACE
  if delta >= HALF_SPACE then delta = delta - SEQUENCE_SPACE end
  return expected + delta
end

-- -- pieces that wait behind a hole ------------------------------------------------------------------------------
-- A piece is {offset, stop, data, packet, time}: the bytes from one stream offset up to another. Its data are nil
-- when the capture cut them off.

--- Returns the bytes of a piece from one stream offset to another, both clipped to what there is.
local function part_of(piece, start, stop)
  start = min(max(start, piece.offset), piece.stop)
  stop = max(start, min(stop, piece.stop))
  local data = piece.data and sub(piece.data, start - piece.offset + 1, stop - piece.offset)
  return { offset = start, stop = stop, data = data, packet = piece.packet, time = piece.time }
end

--- Returns the index of the first piece whose `field` is at least `offset` (or beyond it, when `behind`).
local function find_piece(pieces, field, offset, behind)
  local low, high = 1, #pieces + 1
  while low < high do
    local middle = floor((low + high) / 2)
    local value = pieces[middle][field]
    if value < offset or (behind and value == offset) then low = middle + 1 else high = middle end
  end
  return low
end

-- -- the stream --------------------------------------------------------------------------------------------------

local Stream = {}
Stream.__index = Stream

--- Makes the stream of one sender ("device" or "server"), which delivers to `reader`. With `in_order` false it waits
-- for no late segment.
--
-- Fields to read: `base` (sequence number of offset 0, nil while unknown), `base_certain` (a SYN, or the answer to
-- one, told it), `next` (offset of the next byte to deliver), `highest` (end of the furthest byte seen), `acked` (the
-- furthest byte the peer has acknowledged), `bytes` (stream bytes captured, those that wait included), `fin_offset`,
-- `last_packet` (the one that delivered last), `first_unacked_packet` and `first_unacked_time` (when the oldest data
-- came that the peer has not acknowledged) with `unacked_tries`, and the counts in `quality`.
function Stream.new(sender, reader, in_order)
  return setmetatable({
    sender = sender,
    reader = reader,
    in_order = in_order ~= false,
    base = nil,
    base_certain = false,
    next = 0,
    highest = 0,
    acked = 0,
    bytes = 0,
    fin_offset = nil,
    last_packet = nil,
    first_unacked_packet = nil,
    first_unacked_time = nil,
    unacked_tries = 0,
    quality = {
      packets = 0, copies = 0, data_segments = 0, retransmitted = 0, retransmitted_bytes = 0, out_of_order = 0,
      keepalives = 0, cut = 0,
    },
    settled = false, -- whether offset 0 can no longer move
    pending = {}, -- what waits behind a hole: apart from each other, in order
    pending_bytes = 0,
    acks = {}, -- {offset, packet, time} of acknowledgements beyond `next` that are not acted upon yet
    last_ack = nil,
    heard = nil, -- when the peer last acknowledged anything, known or not
    base_ack = nil, -- packet and time of the acknowledgement that told the base
  }, Stream)
end

local function skip(stream, length, packet, time, reason)
  stream.settled = true
  local hole = {
    sender = stream.sender,
    offset = stream.next,
    length = length,
    before = stream.last_packet,
    packet = packet,
    time = time,
    reason = reason,
  }
  stream.next = stream.next + length
  stream.reader:skip(hole)
end

--- Files a piece of more than no bytes at an index; returns how many they are.
local function file(stream, index, piece)
  if piece.offset >= piece.stop then return 0 end
  insert(stream.pending, index, piece)
  if piece.data then
    stream.pending_bytes = stream.pending_bytes + #piece.data
    stream.bytes = stream.bytes + #piece.data
  end
  return piece.stop - piece.offset
end

--- Files a piece by its offset and returns how many of its bytes are new. The first copy of a byte wins; but bytes
-- win over the same bytes cut off by the capture.
local function keep(stream, piece)
  local pending, new = stream.pending, 0
  if piece.offset < stream.next then piece = part_of(piece, stream.next, piece.stop) end
  local index = find_piece(pending, "stop", piece.offset)
  while piece.offset < piece.stop do
    local neighbour = pending[index]
    if neighbour == nil or piece.offset < neighbour.offset then
      local stop = neighbour and neighbour.offset or piece.stop
      new = new + file(stream, index, part_of(piece, piece.offset, stop))
      index = index + 1
      piece = part_of(piece, stop, piece.stop)
    else
      if neighbour.data == nil and piece.data and piece.offset < neighbour.stop then
        remove(pending, index)
        new = new + min(piece.stop, neighbour.stop) - piece.offset
        if file(stream, index, part_of(neighbour, neighbour.offset, piece.offset)) > 0 then index = index + 1 end
        if file(stream, index, part_of(piece, piece.offset, neighbour.stop)) > 0 then index = index + 1 end
        if file(stream, index, part_of(neighbour, piece.stop, neighbour.stop)) > 0 then index = index + 1 end
      else
        index = index + 1
      end
      piece = part_of(piece, neighbour.stop, piece.stop)
    end
  end
  return new
end

--- Files what the capture cut off a segment, as far as it lies before or behind all that waits there. It costs the
-- sender of a packet nothing to claim 64 KiB, so it must not cost us a walk through them.
local function keep_cut(stream, piece)
  local pending = stream.pending
  piece = part_of(piece, stream.next, piece.stop)
  local first = find_piece(pending, "stop", piece.offset, true)
  local last = find_piece(pending, "offset", piece.stop)
  if first < last then
    file(stream, last, part_of(piece, pending[last - 1].stop, piece.stop))
    piece = part_of(piece, piece.offset, pending[first].offset)
  end
  file(stream, first, piece)
end

local function deliver(stream, piece)
  local data = piece.data
  if data == nil then
    skip(stream, piece.stop - piece.offset, piece.packet, piece.time, "cut")
    stream.last_packet = piece.packet
    return
  end
  stream.next = piece.stop
  stream.last_packet = piece.packet
  stream.reader:receive(data, piece.packet, piece.time)
end

--- Delivers the pieces that join on to what was delivered.
local function run(stream)
  local pending, acks, done = stream.pending, stream.acks, 0
  local count = #pending
  while done < count and pending[done + 1].offset <= stream.next do
    done = done + 1
    local piece = pending[done]
    if piece.data then stream.pending_bytes = stream.pending_bytes - #piece.data end
    deliver(stream, piece)
  end
  if done > 0 then
    for index = 1, count do pending[index] = pending[index + done] end
  end
  while acks[1] and acks[1].offset <= stream.next do remove(acks, 1) end
end

--- Declares the bytes from `next` on missing, up to the next ones there are, one acknowledgement at a time. `reason`
-- is that of bytes that nobody has acknowledged.
local function give_up(stream, reason)
  local ack, beyond = stream.acks[1], stream.pending[1]
  if ack == nil then
    if stream.acked >= beyond.offset then reason = "not captured" end
    skip(stream, beyond.offset - stream.next, beyond.packet, beyond.time, reason)
  else
    local stop = beyond and min(ack.offset, beyond.offset) or ack.offset
    skip(stream, stop - stream.next, ack.packet, ack.time, "not captured")
  end
  run(stream)
end

--- Whether all that is missing is one last byte: a FIN that was not captured is acknowledged like one.
local function may_be_fin(stream)
  local acks = stream.acks
  return #acks == 1 and acks[1].offset == stream.next + 1 and stream.pending[1] == nil and stream.fin_offset == nil
end

--- Whether the peer's packets are not in the capture, and the missing bytes should have been sent again by now.
local function is_one_way(stream, time)
  local beyond, heard = stream.pending[1], stream.heard
  return beyond and stream.acks[1] == nil and time - beyond.time > REPAIR and not (heard and heard >= beyond.time)
end

--- Delivers what can be delivered, and gives up on what has been waited for long enough. Call it, when anything waits,
-- with each packet of the connection before its data are taken: a keep-alive probe repeats the last byte, which may be
-- one to give up on.
function Stream:poll(time)
  local pending, acks = self.pending, self.acks
  run(self)
  while acks[1] and time - acks[1].time > PATIENCE and not may_be_fin(self) do give_up(self, "lost") end
  while #pending > PENDING_PIECES or self.pending_bytes > PENDING_BYTES do give_up(self, "lost") end
  while is_one_way(self, time) do give_up(self, "lost") end
  while pending[1] and not self.in_order do give_up(self, NOT_WAITED_FOR) end
end

--- Delivers all that waits: the connection was reset, and nothing will be sent again.
function Stream:finish()
  run(self)
  while self.pending[1] or (self.acks[1] and not may_be_fin(self)) do give_up(self, "lost") end
end

-- -- where a sequence number lies --------------------------------------------------------------------------------

--- Moves offset 0 to another sequence number. Nothing has been delivered and nothing waits: the first data settle it.
local function rebase(stream, first)
  local shift, acks = -offset_near(stream.base, 0, first), stream.acks
  stream.base = first
  if stream.highest > 0 then stream.highest = max(0, stream.highest + shift) end -- else nothing was seen yet
  local told = stream.base_ack
  if told or stream.acked > 0 then stream.acked = max(0, stream.acked + shift) end
  if stream.fin_offset then stream.fin_offset = stream.fin_offset + shift end
  if told and acks[1] == nil then acks[1] = { offset = 0, packet = told.packet, time = told.time } end
  for _, ack in ipairs(acks) do ack.offset = ack.offset + shift end
end

--- Takes `first` as the sequence number of the first byte, unless a surer one is known. `certain` when a SYN, or the
-- answer to one, tells it. Nothing is delivered yet: what an earlier acknowledgement proves missing then is given up
-- with the next call, when the reader has been told of the SYN, too.
function Stream:start_at(first, certain)
  first = first % SEQUENCE_SPACE
  if self.base == nil then
    self.base = first
  elseif certain and not self.settled then
    rebase(self, first)
  end
  if certain and self.base == first then
    self.base_certain, self.settled = true, true
  end
end

--- Returns the stream offset of a raw sequence number: the one nearest to the bytes expected next.
function Stream:offset_of(sequence)
  if self.base == nil then return 0 end
  return offset_near(self.base, self.next, sequence)
end

-- -- what the sender sent ----------------------------------------------------------------------------------------

local function close_at(stream, stop)
  if stop < stream.highest then return end -- bytes beyond it were seen: it belongs to something else
  stream.fin_offset = stop
  if stream.acked == stop + 1 then -- its acknowledgement was captured first
    stream.acked = stop
    local acks = stream.acks
    while acks[1] and acks[#acks].offset > stop do remove(acks) end
  end
end

--- Takes a segment that is not simply the next one, or not whole.
local function take_slowly(stream, offset, segment, ahead)
  local quality, data, length = stream.quality, segment.payload, segment.length
  local number, time = segment.number, segment.time
  if offset < 0 and not stream.settled then
    rebase(stream, segment.seq)
    offset = 0
  end
  stream.settled = true
  local overtaken = stream.pending[1] and stream.pending[1].time or time
  local stop = offset + #data
  local new = keep(stream, { offset = offset, stop = stop, data = data, packet = number, time = time })
  if #data < length then
    quality.cut = quality.cut + 1
    keep_cut(stream, { offset = stop, stop = offset + length, packet = number, time = time })
  end
  if not ahead then
    if new == 0 or time - overtaken >= RESENT then
      quality.retransmitted = quality.retransmitted + 1
      quality.retransmitted_bytes = quality.retransmitted_bytes + length
    else
      quality.out_of_order = quality.out_of_order + 1
    end
  end
  stream.highest = max(stream.highest, offset + length)
  stream:poll(time)
end

--- Takes the payload of one segment of this sender (not a copy).
function Stream:take(segment)
  -- Some stacks put a remark into a RST (RFC 9293 3.5.3); it has no place in the stream.
  if segment.rst then return end
  local length, sequence, syn, fin = segment.length, segment.seq, segment.syn, segment.fin
  if self.base == nil then
    -- A bare acknowledgement tells nothing: a keep-alive is one, and its number is one short of the next byte's.
    if length == 0 and not syn and not fin then return end
    self.base = sequence
  end
  local expected = self.next
  local offset = expected
  if (sequence - self.base - expected) % SEQUENCE_SPACE ~= 0 then -- nearly always it is the next one
    offset = offset_near(self.base, expected, sequence)
  end
  if syn then offset = offset + 1 end -- data in a SYN start one behind its sequence number
  local stop = offset + length
  if fin then close_at(self, stop) end
  local quality = self.quality
  if offset == expected - 1 and not syn and not fin and (length == 0 or (length == 1 and self.settled)) then
    quality.keepalives = quality.keepalives + 1
    return
  end
  if length == 0 then return end
  quality.data_segments = quality.data_segments + 1
  if offset <= self.acked and self.acked < stop then
    self.unacked_tries = self.unacked_tries + 1
    if self.first_unacked_packet == nil then
      self.first_unacked_packet, self.first_unacked_time = segment.number, segment.time
    end
  end
  local payload = segment.payload
  if offset == expected and #payload == length and self.pending[1] == nil and self.acks[1] == nil then
    self.settled = true
    self.next, self.highest = stop, stop
    self.bytes = self.bytes + length
    self.last_packet = segment.number
    self.reader:receive(payload, segment.number, segment.time)
    return
  end
  take_slowly(self, offset, segment, offset >= self.highest)
end

-- -- what the peer acknowledged ----------------------------------------------------------------------------------

--- Takes note that the peer has everything before the raw number `ack`.
function Stream:acknowledge(ack, packet, time)
  self.heard = time
  if ack == self.last_ack then return end
  self.last_ack = ack
  if self.base == nil then
    self.base = ack
    self.base_ack = { packet = packet, time = time }
    return
  end
  local offset = offset_near(self.base, self.next, ack)
  -- The FIN has a number but is no byte.
  if self.fin_offset and offset == self.fin_offset + 1 then offset = self.fin_offset end
  if offset <= self.acked then return end
  if offset - max(self.next, self.highest, self.acked) > REACH then
    self.last_ack = nil -- said again when more is known, it may be right
    return
  end
  self.acked = offset
  self.first_unacked_packet, self.first_unacked_time, self.unacked_tries = nil, nil, 0
  if offset > self.next then
    local acks = self.acks
    acks[min(#acks + 1, STEPS)] = { offset = offset, packet = packet, time = time }
  end
end

-- -- what is known so far ----------------------------------------------------------------------------------------

--- Returns how far the sender came, by its data and by the acknowledgements; and whether the last of these is one
-- beyond, so that it may be of a FIN that was not captured.
local function furthest(stream)
  local pending, acks = stream.pending, stream.acks
  local count = #acks
  local last = pending[#pending]
  local stop = last and last.stop or stream.next
  if count == 0 then return stop, false end
  if count > 1 then stop = max(stop, acks[count - 1].offset) end
  local acked = acks[count].offset
  if acked == stop + 1 and stream.fin_offset == nil then return stop, true end
  return max(stop, acked), false
end

--- Returns how many bytes the peer has acknowledged; what may have been a FIN does not count.
function Stream:acknowledged()
  local stop, is_fin = furthest(self)
  return is_fin and stop or self.acked
end

--- Returns how many bytes this end is known to have sent: delivered, waiting behind a hole, acknowledged, or told by
-- its FIN.
function Stream:sent()
  local sent = furthest(self)
  local fin = self.fin_offset
  if fin and sent < fin and fin <= sent + FIN_REACH then sent = fin end
  return sent
end

spark.Stream = Stream
spark.ORDER_PREFERENCE = PREFERENCE
spark.offset_near = offset_near
