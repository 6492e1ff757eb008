-- One TCP connection of a device: what was seen of it, as facts. Judgement comes later.
--
-- A Conversation is fed segments while its packets arrive; `refresh` brings its summary up to date whenever somebody
-- wants to read it. When it has been closed for long it is retired: then it only holds what the rules and the views
-- ask for. Its size does not depend on how long the connection was.

local constants = spark.constants
local Stream, TurnReader, Headers, SessionWatch = spark.Stream, spark.TurnReader, spark.Headers, spark.SessionWatch
local offset_near = spark.offset_near

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local SESSION_SIZE = constants.catalogue.SESSION_SIZE
local SMALLEST_FRAME = constants.catalogue.SMALLEST_FRAME_ON_WIRE
local SEQUENCE_SPACE = constants.streams.SEQUENCE_SPACE
local YOUNG = constants.streams.PATIENCE_NS / 1e9
local SYNS = constants.conversation.SYNS
local CLOSINGS = constants.conversation.CLOSINGS
local OVERTAKEN = constants.conversation.OVERTAKEN
local EARLY_ACKS = constants.conversation.EARLY_ACKS
local HOLES = constants.conversation.HOLES
local FIRST_FRAMES = constants.seen.FIRST_FRAMES
local LAST_FRAMES = constants.conversation.LAST_FRAMES
local DEAD_FRAMES = constants.conversation.DEAD_FRAMES

local PEER = { device = "server", server = "device" }
local SENDERS = { "device", "server" }
-- The sizes on the wire that a hello can have, as a set.
local HELLO_SIZES = {}
for _, size in ipairs(constants.catalogue.HELLO_FRAMES) do HELLO_SIZES[size] = true end
local STEPS = constants.handshake.STEPS
local SERVER_REPLIED = NONCE_SIZE + SESSION_SIZE

local abs, max, min = math.abs, math.max, math.min
local byte, format = string.byte, string.format

-- -- the two ends ------------------------------------------------------------------------------------------------

--- The usual spelling of a packed IPv4 (4 bytes) or IPv6 (16 bytes) address.
local function address_text(address)
  if #address == 4 then return format("%d.%d.%d.%d", byte(address, 1, 4)) end
  local groups, best, longest, run = {}, nil, 1, 0
  for index = 1, 8 do
    local high, low = byte(address, 2 * index - 1, 2 * index)
    groups[index] = high * 256 + low
    run = groups[index] == 0 and run + 1 or 0
    if run > longest then best, longest = index - run + 1, run end
  end
  local out = {}
  for index = 1, 8 do
    if best == nil or index < best or index >= best + longest then
      out[#out + 1] = format("%x", groups[index])
    elseif index == best then
      -- The longest run of zeros is left out; the colons at its ends come from the joints.
      out[#out + 1] = (index == 1 and ":" or "") .. (index + longest == 9 and ":" or "")
    end
  end
  return table.concat(out, ":")
end

--- One end of a conversation; `id` needs a key.
local function endpoint(address, port)
  return { address = address, port = port, ip = address_text(address), id = nil }
end

--- What one end did. Counts and sizes in bytes; nil for what was not seen.
local function side(stream)
  return {
    quality = stream.quality,
    captured = 0,
    sent = 0,
    acked = 0,
    frames = 0,
    dead = 0, -- dead-key frames among them
    first_data = nil,
    first_size = 0,
    last_data = nil,
    last_any = nil,
    unacked_since = nil,
    unacked_tries = 0,
    lost = {},
    skipped = 0,
    rest = 0,
    opening = "",
    parts = {},
    early = 0,
    midway = false,
    before = 0,
  }
end

-- -- what a stream tells -----------------------------------------------------------------------------------------

-- Passes a stream's bytes to its turn reader, and tells the listener what they complete, in stream order.
local Recorder = {}
Recorder.__index = Recorder

local function new_recorder(conversation, sender)
  local self = setmetatable({
    conversation = conversation,
    turn = nil,
    steps = #STEPS[sender],
    told_parts = 0,
    told_lost = 0,
  }, Recorder)
  local turn
  turn = TurnReader.new(sender, function(frame)
    -- What stands before it in the stream is told before it.
    if self.told_parts < self.steps or turn.frames.lost[self.told_lost + 1] then self:tell() end
    conversation:_take_frame(frame)
  end)
  self.turn = turn
  return self
end

function Recorder:receive(data, packet, time)
  self.turn:receive(data, packet, time)
  self:tell()
end

function Recorder:skip(hole)
  self.conversation:_take_hole(hole)
  self.turn:skip(hole)
  self:tell()
end

--- Tells of handshake messages that are whole now, and of places where framing was lost.
function Recorder:tell()
  local turn, conversation = self.turn, self.conversation
  while self.told_parts < self.steps do
    local part = turn.parts[self.told_parts + 1]
    if part == nil or not part.complete then break end
    self.told_parts = self.told_parts + 1
    -- One that was sent before the capture began has no packet to be told in.
    if part.first_packet > 0 then conversation.listener:part(conversation, part) end
  end
  local frames = turn.frames
  while frames and frames.lost[self.told_lost + 1] do
    self.told_lost = self.told_lost + 1
    conversation.listener:lost(conversation, frames.lost[self.told_lost])
  end
end

-- -- the conversation --------------------------------------------------------------------------------------------

local Conversation = {}
Conversation.__index = Conversation

--- Makes the conversation that begins with `segment`. `listener` is told of what its bytes complete, with the methods
-- part, frame (which returns what a dead-key frame says, else nil), hole and lost, each given the conversation first.
-- When its `in_order` is false, no late segment is waited for.
--
-- Kept up to date all the time: first_packet, last_packet, start_time, end_time, syns and syn_count, syn_ack,
-- connected, nonce_acked, reply_acked, closings, closed_by, holes and hole_count, first_frames, dead_frames,
-- server_hello, watch, midway, message_count, last_server_message. As of the last `refresh`: sides, last_frames,
-- hello, kind, reached.
function Conversation.new(number, device, server, segment, listener)
  local self = setmetatable({
    number = number,
    device = endpoint(device.address, device.port),
    server = endpoint(server.address, server.port),
    listener = listener,
    first_packet = segment.number,
    last_packet = segment.number,
    start_time = segment.time,
    end_time = segment.time,
    midway = true, -- no SYN was seen: the capture began when this connection was under way
    syns = {},
    syn_count = 0,
    syn_ack = nil,
    connected = nil,
    closings = {},
    closed_by = "none",
    holes = {},
    hole_count = 0,
    reply_acked = nil, -- the device's acknowledgement of all 384 bytes
    nonce_acked = nil,
    first_frames = {},
    last_frames = {},
    dead_frames = {},
    hello = nil,
    server_hello = nil,
    watch = SessionWatch.new(),
    kind = "empty",
    reached = "syn",
    verdict = nil, -- whose the bytes are, once that is decided: "spark" or "coap"
    dialled_again = nil, -- when the device began its next connection to this server
    later = nil, -- the device's next conversation
    secrets = nil, -- what keys told, when there were any
    message_count = 0,
    last_server_message = nil,
    retired = false,
    lingering = false, -- closed, but open for late packets
    isn = {},
    frames_seen = 0,
    latest = {}, -- the last frames, as a ring
    last_hole = {},
    early_acks = {},
    edges = nil,
  }, Conversation)
  local from_device, from_server = new_recorder(self, "device"), new_recorder(self, "server")
  self.turns = { device = from_device.turn, server = from_server.turn }
  local in_order = listener.in_order
  self.streams = {
    device = Stream.new("device", from_device, in_order),
    server = Stream.new("server", from_server, in_order),
  }
  self.headers = { device = Headers.new(), server = Headers.new() }
  self.sides = { device = side(self.streams.device), server = side(self.streams.server) }
  return self
end

-- -- what the tracker asks ---------------------------------------------------------------------------------------

--- Which end sent this segment.
function Conversation:sender_of(segment)
  local device = self.device
  if segment.source_port == device.port and segment.source == device.address then return "device" end
  return "server"
end

--- Base, end of what was seen, and offset of the FIN of one end's stream: to know late packets by.
local function edge(conversation, sender)
  if conversation.retired then
    local kept = conversation.edges[sender]
    return kept.base, kept.stop, kept.fin_offset
  end
  local stream = conversation.streams[sender]
  return stream.base, max(stream.next, stream.highest), stream.fin_offset
end

--- How far sequence and acknowledgement numbers lie from what was seen so far, in bytes. Nil when they belong to
-- another connection: both beyond `window`, or more data after a FIN.
function Conversation:distance(segment, window)
  local sender = self:sender_of(segment)
  local base, stop, fin_offset = edge(self, sender)
  local peer_base, peer_stop = edge(self, PEER[sender])
  local apart, acked
  if base then
    local offset = offset_near(base, stop, segment.seq)
    if fin_offset and segment.length > 1 and offset >= fin_offset then return nil end
    apart = abs(offset - stop)
  end
  if segment.acks and peer_base then acked = abs(offset_near(peer_base, peer_stop, segment.ack) - peer_stop) end
  if apart == nil or (apart > window and not segment.rst) then
    -- An endpoint takes no reset whose sequence number does not fit, so the other number counts for nothing.
    if acked and acked > window then return nil end
    return acked
  end
  if apart > window then return nil end
  return apart
end

--- Whether the numbers of a segment fit what was seen so far, or nothing is known to compare them with.
function Conversation:continues(segment, window)
  local device, sender = self.device, "server"
  if segment.source_port == device.port and segment.source == device.address then sender = "device" end
  if not self.retired then
    local own = self.streams[sender]
    -- Nearly always:
    if own.base and not own.fin_offset and (segment.seq - own.base - own.next) % SEQUENCE_SPACE <= window then
      return true
    end
  end
  if self:distance(segment, window) then return true end
  return edge(self, sender) == nil and (not segment.acks or edge(self, PEER[sender]) == nil)
end

--- Whether the byte with this sequence number can be the first of the stream, as far as it is known.
local function may_begin(stream, first)
  if stream.base == nil then return true end
  local offset = stream:offset_of(first)
  if stream.base_certain then return offset == 0 end
  return offset <= 0 and offset >= -OVERTAKEN
end

--- Whether this SYN (or SYN-ACK) belongs here: a repeat, or the first one, captured behind a later packet.
function Conversation:accepts_syn(segment)
  if self.retired then return false end
  local sender = self:sender_of(segment)
  local own, peer, isn = self.streams[sender], self.streams[PEER[sender]], self.isn
  local answered = segment.acks and isn[PEER[sender]]
  if answered and (segment.ack - answered) % SEQUENCE_SPACE ~= 1 then return false end
  if isn[sender] then
    if isn[sender] ~= segment.seq then return false end
    -- The same number again, long after the handshake, on a connection that has ended: used again. A connection that
    -- was refused is tried again with the same number by some systems.
    return not (self:closed() and own.highest > 0 and not self.headers[sender]:knows(segment))
  end
  if answered then return own.base == nil or may_begin(own, segment.seq + 1) end
  if own.base_certain then return may_begin(own, segment.seq + 1) end
  local young = segment.time - self.start_time <= YOUNG
  local answers = not segment.acks or may_begin(peer, segment.ack)
  return young and answers and may_begin(own, segment.seq + 1)
end

--- Whether new data of the server of a nonce's size come when the nonce is past. No run of frames has 40 bytes, so
-- it is a piece of something longer, or another connection's nonce.
function Conversation:is_out_of_place(segment)
  if self.retired or self:sender_of(segment) == "device" then return false end
  local nonce = self.turns.server:part("nonce")
  if nonce == nil or not nonce.complete then return false end
  local stream = self.streams.server
  return stream:offset_of(segment.seq) >= stream.highest
end

--- Whether both ends have closed, or one has reset the connection. A refusal is no end of it any more once the same
-- request was made again and accepted.
function Conversation:closed()
  local first
  local accepted = self.syn_ack and self.syn_ack.packet or 0
  for _, closing in ipairs(self.closings) do
    if closing.packet > accepted then
      first = first or closing.sender
      if closing.how == "rst" or closing.sender ~= first then return true end
    end
  end
  return false
end

-- -- feeding -----------------------------------------------------------------------------------------------------

local function seen(segment)
  return { packet = segment.number, time = segment.time, ttl = segment.ttl }
end

--- Notes a packet in the place of the one noted before.
local function note(noted, segment)
  if noted == nil then return seen(segment) end
  noted.packet, noted.time, noted.ttl = segment.number, segment.time, segment.ttl
  return noted
end

--- The first number of a direction comes from something else than its SYN: how it begins is to be seen.
local function start_without_syn(conversation, sender)
  conversation.turns[sender]:begin_midway(not conversation.midway)
end

local function take_syn(conversation, segment, sender)
  local isn, streams, turns = conversation.isn, conversation.streams, conversation.turns
  isn[sender] = isn[sender] or segment.seq
  conversation.midway = false
  streams[sender]:start_at(segment.seq + 1, true)
  turns[sender]:begin()
  if segment.acks then
    streams[PEER[sender]]:start_at(segment.ack, true)
    turns[PEER[sender]]:begin()
    conversation.syn_ack = conversation.syn_ack or seen(segment)
    return
  end
  conversation.syn_count = conversation.syn_count + 1
  if conversation.syn_count <= SYNS then conversation.syns[conversation.syn_count] = seen(segment) end
end

--- Tells what the acknowledgements were of, now that it is known how the server's bytes begin.
local function weigh_acks(conversation)
  local stream, before = conversation.streams.server, conversation.turns.server.before
  local waiting = conversation.early_acks
  for index, early in ipairs(waiting) do
    local acked = before + min(stream:offset_of(early.ack), stream.acked)
    if acked >= NONCE_SIZE then conversation.nonce_acked = conversation.nonce_acked or early.seen end
    if acked >= SERVER_REPLIED then conversation.reply_acked = conversation.reply_acked or early.seen end
    waiting[index] = nil
  end
end

--- Notes when the device acknowledged what.
local function note_milestones(conversation, segment)
  if segment.syn then return end
  -- Only who has the SYN-ACK can acknowledge anything.
  if conversation.connected == nil and not conversation.midway then conversation.connected = seen(segment) end
  local waiting = conversation.early_acks
  if #waiting < EARLY_ACKS then waiting[#waiting + 1] = { ack = segment.ack, seen = seen(segment) } end
  if conversation.turns.server.started then weigh_acks(conversation) end
end

local function close(conversation, sender, how, segment)
  local closings = conversation.closings
  for _, known in ipairs(closings) do
    if known.sender == sender and known.how == how then return end
  end
  if #closings >= CLOSINGS then return end
  closings[#closings + 1] = {
    sender = sender,
    how = how,
    packet = segment.number,
    time = segment.time,
    ttl = segment.ttl,
  }
  conversation.closed_by = closings[1].sender .. "-" .. closings[1].how
end

--- Takes the next segment of this connection, in capture order.
function Conversation:take(segment)
  local device = self.device
  local is_device = segment.source_port == device.port and segment.source == device.address
  local sender, peer_name = "server", "device"
  if is_device then sender, peer_name = "device", "server" end
  local from, stream, peer = self.sides[sender], self.streams[sender], self.streams[peer_name]
  local number, time, length = segment.number, segment.time, segment.length
  if number > self.last_packet then self.last_packet = number end
  if time > self.end_time then self.end_time = time end
  local quality = stream.quality
  if self.headers[sender]:repeats(segment) then
    -- The capture already holds this very packet: seen on two interfaces, or by a mirror port.
    quality.copies = quality.copies + 1
    return
  end
  quality.packets = quality.packets + 1
  from.last_any = note(from.last_any, segment)
  if segment.syn then
    take_syn(self, segment, sender)
  elseif stream.base == nil then
    start_without_syn(self, sender)
  end
  if segment.acks and not segment.rst then
    if peer.base == nil then start_without_syn(self, peer_name) end
    peer:acknowledge(segment.ack, number, time)
    if is_device and self.reply_acked == nil then note_milestones(self, segment) end
  end
  if stream.acks[1] or stream.pending[1] then stream:poll(time) end
  if peer.acks[1] or peer.pending[1] then peer:poll(time) end
  if length > 0 and not segment.rst then
    if self.connected == nil then self.connected = seen(segment) end
    if from.first_data == nil then
      from.first_data, from.first_size = seen(segment), length
    end
    from.last_data = note(from.last_data, segment)
  end
  stream:take(segment)
  if segment.rst then
    stream:finish()
    peer:finish()
    close(self, sender, "rst", segment)
  elseif segment.fin then
    close(self, sender, "fin", segment)
  end
end

--- Lists a hole. What was acknowledged in steps is one hole if nothing was captured between them.
function Conversation:_take_hole(hole)
  local last = self.last_hole[hole.sender]
  self.listener:hole(self, hole)
  if last and last.reason == hole.reason and last.offset + last.length == hole.offset and hole.reason ~= "cut" then
    last.length = last.length + hole.length
    return
  end
  local listed = {}
  for name, value in pairs(hole) do listed[name] = value end
  self.last_hole[hole.sender] = listed
  self.hole_count = self.hole_count + 1
  if self.hole_count <= HOLES then self.holes[self.hole_count] = listed end
end

--- Writes what is remembered of a frame into `place`.
local function remember(place, frame, dead)
  place.sender, place.index, place.size = frame.sender, frame.index, frame.size
  place.packet, place.time, place.follows_gap, place.dead = frame.packet, frame.time, frame.follows_gap, dead
  return place
end

function Conversation:_take_frame(frame)
  local sender = frame.sender
  local from = self.sides[sender]
  from.frames = from.frames + 1
  local dead = self.listener:frame(self, frame)
  local place = self.frames_seen
  self.frames_seen = place + 1
  if place < FIRST_FRAMES then
    self.first_frames[place + 1] = remember({}, frame, dead)
    if sender == "server" and self.server_hello == nil then self.server_hello = self.first_frames[place + 1] end
  end
  place = place % LAST_FRAMES + 1
  self.latest[place] = remember(self.latest[place] or {}, frame, dead)
  if dead then
    from.dead = from.dead + 1
    if #self.dead_frames < DEAD_FRAMES then self.dead_frames[#self.dead_frames + 1] = remember({}, frame, dead) end
  else
    self.watch:take(frame)
  end
end

-- -- what the rules and the views ask ----------------------------------------------------------------------------

--- Returns the stream offset of the segment's first payload byte, nil when the books are closed.
function Conversation:offset_of(segment)
  if self.retired then return nil end
  local offset = self.streams[self:sender_of(segment)]:offset_of(segment.seq)
  return segment.syn and offset + 1 or offset
end

--- Says how much is there of what that sender has begun to send; nil when nothing is unfinished.
function Conversation:waiting(sender)
  local turn = self.turns and self.turns[sender]
  if turn == nil then return nil end
  local last, frames = turn.parts[#turn.parts], turn.frames
  if last and not last.complete then return format("%d of %d bytes of the %s", last.sent, last.size, last.kind) end
  local unread = frames and frames:pending() or 0
  return unread > 0 and format("%d bytes of a message that is not whole yet", unread) or nil
end

--- Returns a handshake message of which anything is known, or nil.
function Conversation:part(kind)
  local parts = self.retired and self.sides[kind == "identity" and "device" or "server"].parts
    or self.turns[kind == "identity" and "device" or "server"].parts
  for _, part in ipairs(parts) do
    if part.kind == kind then return part.first_packet > 0 and part or nil end
  end
  return nil
end

--- Complete frames of that sender, without dead-key frames.
function Conversation:live_frames(sender)
  return self.sides[sender].frames - self.sides[sender].dead
end

--- Brings the summary of one end up to date.
local function refresh_side(to, stream, turn, midway)
  to.captured, to.sent, to.acked = stream.bytes, stream:sent(), stream:acknowledged()
  to.unacked_since = stream.first_unacked_packet
    and { packet = stream.first_unacked_packet, time = stream.first_unacked_time }
  to.unacked_tries = stream.unacked_tries
  to.opening, to.parts, to.early, to.before = turn.opening, turn.parts, turn.early, turn.before
  -- What is still open would be settled like this if nothing more came.
  to.midway = turn.started == "midway" or (turn.started == nil and midway)
  local frames = turn.frames
  if frames then to.lost, to.skipped, to.rest = frames.lost, frames.skipped, frames:pending() end
end

--- The device's first frame after the session offer, when it can be a hello.
local function find_hello(conversation)
  for _, frame in ipairs(conversation.first_frames) do
    if frame.sender == "device" and not frame.dead then
      return frame.index == conversation.sides.device.early and HELLO_SIZES[frame.size] and frame or nil
    end
  end
  return nil
end

--- How far beyond the 384 bytes. What is missing counts as sent, but a hole cannot be told to be dead keys.
local function reached_after_session(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  local live = conversation:live_frames("device") > 0
  local answered = server.before + server.sent >= SERVER_REPLIED + SMALLEST_FRAME
  local unseen = device.sent > device.captured and device.before + device.sent >= IDENTITY_SIZE + SMALLEST_FRAME
  local garbled = device.skipped > 0 and device.lost[1] == nil
  if not live and not ((unseen or garbled) and conversation.dead_frames[1] == nil) then return "session" end
  if answered or conversation:live_frames("server") > 0 then return "established" end
  return (conversation.hello or not live) and "hello" or "session"
end

--- How far the connection got, by what the bytes prove (missing ones included when acknowledged).
local function how_far(conversation)
  local kind, midway = conversation.kind, conversation.midway
  if kind ~= "spark" and kind ~= "empty" then return "connected" end
  local device, server = conversation.sides.device, conversation.sides.server
  local nonce, identity = conversation:part("nonce"), conversation:part("identity")
  local session = conversation:part("session")
  if session and session.complete then return reached_after_session(conversation) end
  local live = conversation:live_frames("device") > 0 or conversation:live_frames("server") > 0
  if midway and live and (device.midway or server.midway) then return "established" end
  local greeted = nonce ~= nil and nonce.complete
  if identity and identity.complete and (midway or greeted) then return "identity" end
  if greeted then return "nonce" end
  return (conversation.connected or conversation.syn_ack or midway) and "connected" or "syn"
end

--- Brings `sides`, `last_frames`, `hello`, `kind` and `reached` up to date with the packets taken so far.
function Conversation:refresh()
  if self.retired then return end
  for _, sender in ipairs(SENDERS) do
    refresh_side(self.sides[sender], self.streams[sender], self.turns[sender], self.midway)
  end
  local latest, total = self.latest, self.frames_seen
  for place = 1, #latest do
    self.last_frames[place] = latest[total <= LAST_FRAMES and place or (total + place - 1) % LAST_FRAMES + 1]
  end
  self.hello = find_hello(self)
  self.kind = spark.kind_of(self)
  self.reached = how_far(self)
end

--- Closes the books: keeps the summary and lets the buffers go. Only late packets are still to come.
function Conversation:retire()
  if self.retired then return end
  self:refresh()
  self.edges = {}
  for _, sender in ipairs(SENDERS) do
    local base, stop, fin_offset = edge(self, sender)
    self.edges[sender] = { base = base, stop = stop, fin_offset = fin_offset }
    if self.kind == "spark" then self.sides[sender].opening = "" end -- random bytes that nobody quotes
  end
  self.retired = true
  self.streams, self.turns, self.headers, self.latest = nil, nil, nil, nil
end

spark.Conversation = Conversation
spark.PEER, spark.SENDERS, spark.HELLO_SIZES = PEER, SENDERS, HELLO_SIZES
