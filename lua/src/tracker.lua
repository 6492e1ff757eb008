-- Segments to conversations: which TCP connection does a segment belong to?
--
-- Ports are used again, copies of packets and late packets turn up, SYNs are missing: this page decides, and everything
-- after it sees one connection at a time.

local constants = spark.constants
local Conversation = spark.Conversation

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local SEQUENCE_SPACE = constants.streams.SEQUENCE_SPACE
local WINDOW = constants.tracker.WINDOW
local LINGER = constants.tracker.LINGER_NS / 1e9
local LIVE = constants.tracker.LIVE
local HELD = constants.tracker.HELD

local PORTS = 65536
local remove = table.remove

local Tracker = {}
Tracker.__index = Tracker

--- Sorts the segments of the given server ports (a set) into conversations. `listener` is the conversations' listener,
-- and is told of each new one with its method begun(conversation).
--
-- Fields to read: `conversations` (all of them, in the order in which they began), `stragglers` (packets of no use),
-- `evicted` (conversations closed for want of room).
function Tracker.new(ports, listener)
  local ends = {}
  ends.older, ends.newer = ends, ends
  return setmetatable({
    ports = ports,
    listener = listener,
    conversations = {},
    stragglers = 0,
    evicted = 0,
    flows = {}, -- by both ports, then by both addresses
    count = 0,
    ends = ends, -- the flows in a ring by last use: `ends.older` is the latest, `ends.newer` the one silent for longest
    closing = {}, -- a queue of {time, flow, conversation} that have closed
    first_closing = 1,
    last_closing = 0,
  }, Tracker)
end

-- -- flows -------------------------------------------------------------------------------------------------------
-- A flow is what is known of one pair of ends: {known, past, doubted}. `known` are its conversations that are open,
-- two at most, the latest last; `past` is the last one that was let go; `doubted` see below.

--- Returns two keys that are the same for both directions of a flow.
local function keys_of(source, source_port, target, target_port)
  if source_port < target_port or (source_port == target_port and source <= target) then
    return source_port * PORTS + target_port, source .. target
  end
  return target_port * PORTS + source_port, target .. source
end

local function link_latest(tracker, flow)
  local ends = tracker.ends
  flow.older, flow.newer = ends.older, ends
  ends.older.newer, ends.older = flow, flow
end

local function unlink(flow)
  flow.older.newer, flow.newer.older = flow.newer, flow.older
end

--- Returns the flow of these ends, or nil.
function Tracker:flow_of(source, source_port, target, target_port)
  local ports, addresses = keys_of(source, source_port, target, target_port)
  local bucket = self.flows[ports]
  return bucket and bucket[addresses]
end

local function forget(tracker, flow)
  local bucket = tracker.flows[flow.ports]
  bucket[flow.addresses] = nil
  if next(bucket) == nil then tracker.flows[flow.ports] = nil end
  unlink(flow)
  tracker.count = tracker.count - 1
end

local function new_flow(tracker, segment)
  local ports, addresses = keys_of(segment.source, segment.source_port, segment.target, segment.target_port)
  local flow = { ports = ports, addresses = addresses, known = {}, past = nil, doubted = nil }
  tracker.flows[ports] = tracker.flows[ports] or {}
  tracker.flows[ports][addresses] = flow
  link_latest(tracker, flow)
  tracker.count = tracker.count + 1
  if tracker.count > LIVE then
    local silent = tracker.ends.newer
    forget(tracker, silent)
    for _, conversation in ipairs(silent.known) do
      tracker.evicted = tracker.evicted + 1
      conversation:retire()
    end
  end
  return flow
end

-- -- inside a flow -----------------------------------------------------------------------------------------------

local function feed(tracker, flow, segment, conversation)
  conversation:take(segment)
  if conversation.closings[1] and not conversation.lingering and conversation:closed() then
    conversation.lingering = true
    local last = tracker.last_closing + 1
    tracker.last_closing = last
    tracker.closing[last] = { time = segment.time, flow = flow, conversation = conversation }
  end
end

--- Returns a segment that stays as it is: who feeds the tracker may use one table for all packets.
local function copy(segment)
  local kept = {}
  for name, value in pairs(segment) do kept[name] = value end
  return kept
end

--- It was no nonce: gives what was held to where it seemed to belong.
local function believe(tracker, flow)
  local doubted = flow.doubted
  if doubted == nil then return end
  flow.doubted = nil
  for _, segment in ipairs(doubted.held) do feed(tracker, flow, segment, doubted.conversation) end
end

local function begin(tracker, flow, segment)
  local ports = tracker.ports
  local from_server
  if segment.syn then
    from_server = segment.acks
  else
    from_server = ports[segment.source_port] and not ports[segment.target_port]
  end
  local device = { address = segment.source, port = segment.source_port }
  local server = { address = segment.target, port = segment.target_port }
  if from_server then device, server = server, device end
  local conversations = tracker.conversations
  local conversation = Conversation.new(#conversations + 1, device, server, segment, tracker.listener)
  conversations[conversation.number] = conversation
  flow = flow or new_flow(tracker, segment)
  flow.past = nil
  local known = flow.known
  known[#known + 1] = conversation
  if #known > 2 then
    believe(tracker, flow)
    remove(known, 1):retire()
  end
  tracker.listener:begun(conversation)
  return conversation, flow
end

--- Returns the conversation of this segment and its flow: a new one if it begins one, nil if it belongs nowhere.
local function find(tracker, flow, segment)
  local known = flow and flow.known
  local current = known and known[#known]
  if current == nil then
    local past = flow and flow.past
    -- Of a conversation that was let go there is nothing more to learn.
    if past and not segment.syn and (segment.length == 0 or past:distance(segment, WINDOW)) then return nil end
    return begin(tracker, flow, segment)
  end
  if tracker.ends.older ~= flow then
    unlink(flow)
    link_latest(tracker, flow)
  end
  if segment.syn then
    for index = #known, 1, -1 do
      if known[index]:accepts_syn(segment) then return known[index], flow end
    end
    return begin(tracker, flow, segment)
  end
  if known[2] then
    local first, second = known[1]:distance(segment, WINDOW), known[2]:distance(segment, WINDOW)
    if first and not (second and second <= first) then current = known[1] end
  end
  if current:continues(segment, WINDOW) then
    if current.retired then return nil end
    return current, flow
  end
  -- Nothing begins with a packet that says nothing: it is late, or somebody else's.
  if segment.length == 0 then return nil end
  return begin(tracker, flow, segment)
end

--- A port used again whose SYN is missing: holds what follows a possible nonce in the place of frames until an answer
-- to it shows what it is. Returns the conversation that the segment belongs to.
local function settle_doubt(tracker, flow, segment, conversation)
  local doubted = flow.doubted
  local held = doubted.held
  local nonce = held[1]
  local again = segment.seq == nonce.seq and segment.length == nonce.length
  local answers = segment.ack == (nonce.seq + nonce.length) % SEQUENCE_SPACE
  if segment.source == nonce.target and segment.length == IDENTITY_SIZE and answers then
    flow.doubted = nil
    local begun = begin(tracker, flow, nonce)
    for _, late in ipairs(held) do feed(tracker, flow, late, begun) end
    conversation = begun
  elseif conversation == doubted.conversation and (segment.length == 0 or again) and #held < HELD then
    held[#held + 1] = copy(segment)
    return conversation
  else
    believe(tracker, flow)
  end
  feed(tracker, flow, segment, conversation)
  return conversation
end

-- -- from outside ------------------------------------------------------------------------------------------------

--- Lets go of conversations that were closed long ago.
local function let_go(tracker, now)
  local closing = tracker.closing
  while tracker.first_closing <= tracker.last_closing do
    local place = tracker.first_closing
    local waiting = closing[place]
    if now - waiting.time <= LINGER then return end
    closing[place] = nil
    tracker.first_closing = place + 1
    local flow, conversation = waiting.flow, waiting.conversation
    if not conversation.retired and not conversation:closed() then
      conversation.lingering = false
    elseif now - conversation.end_time <= LINGER then
      waiting.time = conversation.end_time
      tracker.last_closing = tracker.last_closing + 1
      closing[tracker.last_closing] = waiting
    else
      flow.doubted = nil
      conversation:retire()
      local latest = flow.known[#flow.known]
      if latest and latest.retired and flow.known[1].retired then flow.known, flow.past = {}, latest end
    end
  end
end

--- Takes the next segment of one of the ports, in capture order; it is kept as long as it may matter. Returns the
-- conversation it belongs to, or nil.
function Tracker:take(segment)
  if self.first_closing <= self.last_closing then let_go(self, segment.time) end
  local flow = self:flow_of(segment.source, segment.source_port, segment.target, segment.target_port)
  local conversation
  conversation, flow = find(self, flow, segment)
  if conversation == nil then
    self.stragglers = self.stragglers + 1
    return nil
  end
  if flow.doubted then return settle_doubt(self, flow, segment, conversation) end
  if segment.length == NONCE_SIZE and conversation:is_out_of_place(segment) then
    flow.doubted = { conversation = conversation, held = { copy(segment) } }
    return conversation
  end
  feed(self, flow, segment, conversation)
  return conversation
end

spark.Tracker = Tracker
