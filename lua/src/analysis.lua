-- The engine's front: packets in, what they complete out, in one step each. It knows nothing of Wireshark.
--
-- What a packet completes is an array of items in stream order, each with `what` and `conversation`:
--   {what = "part", part = a handshake message that is whole}
--   {what = "frame", frame, dead = what a dead-key frame says, opened = what it is after decryption, message}
--   {what = "hole", hole = bytes that the capture does not have}
--   {what = "lost", lost = a place where a length cannot be one}

local constants = spark.constants
local Tracker, Decryption, DeadKeys = spark.Tracker, spark.Decryption, spark.DeadKeys

local DEAD_KEYS = constants.pipeline.DEAD_KEYS

local NOTHING = {} -- what most packets complete; nobody writes into it

local Analysis = {}
Analysis.__index = Analysis

--- Begins an analysis. `options.ports` is the set of the server's TCP ports, `options.keys` a key ring or nil; with
-- `options.in_order` false, what comes behind missing bytes does not wait for them.
--
-- `trace` is what the rules ask of the capture as a whole: first and last (times of packets), keys, conversations,
-- ports. `late`, when set, is called as late(conversation, frame, opened, message) for a frame of an earlier packet
-- that had to wait until it was known which key opens it.
function Analysis.new(options)
  local self = setmetatable({
    late = nil,
    in_order = options.in_order ~= false,
    items = nil, -- what the packet at hand has completed so far
    decryption = nil,
    dead_keys = nil, -- made when needed: captures without such frames need no AES
    told = nil, -- the verdict on a payload that was asked about before its conversation began
    latest = {}, -- the last conversation of each device and server, and of each device
  }, Analysis)
  self.tracker = Tracker.new(options.ports, self)
  self.trace = { keys = options.keys, conversations = self.tracker.conversations, ports = options.ports }
  if options.keys then
    self.decryption = Decryption.new(options.keys)
    self.decryption.late = function(...)
      if self.late then self.late(...) end
    end
  end
  return self
end

--- Takes the next packet's segment, in capture order. Returns its conversation (nil when it belongs to none) and the
-- items; those of a packet that came before another's doubt was settled may be of another conversation.
function Analysis:take(segment)
  local trace, time = self.trace, segment.time
  if trace.first == nil or time < trace.first then trace.first = time end
  if trace.last == nil or time > trace.last then trace.last = time end
  local conversation = self.tracker:take(segment)
  self.told = nil
  local items = self.items
  if items == nil then return conversation, NOTHING end
  self.items = nil
  return conversation, items
end

--- Returns what is to be said of a conversation, as of the packets taken so far.
function Analysis:judge(conversation)
  return spark.judge(conversation, self.trace, conversation.dialled_again)
end

--- Returns the current conversation between these ends, or nil.
function Analysis:conversation_of(source, source_port, target, target_port)
  local flow = self.tracker:flow_of(source, source_port, target, target_port)
  return flow and flow.known[#flow.known]
end

--- Says whose a payload is, before its segment is taken: "spark"; "coap", not ours, and so for the whole conversation;
-- or "later": not ours as far as can be told, ask again.
-- @param conversation that of its ends, or nil
function Analysis:verdict(payload, from_server, conversation)
  if conversation and conversation.verdict then return conversation.verdict end
  local verdict = conversation and conversation.retired and "later" or spark.whose(payload, from_server, conversation)
  if verdict ~= "later" then
    if conversation then conversation.verdict = verdict else self.told = verdict end
  end
  return verdict
end

-- -- what the tracker and the conversations tell -----------------------------------------------------------------

local function add(analysis, item)
  local items = analysis.items
  if items then items[#items + 1] = item else analysis.items = { item } end
end

--- A conversation has begun.
function Analysis:begun(conversation)
  if self.decryption then self.decryption:begin(conversation) end
  conversation.verdict = self.told
  local latest, device, server = self.latest, conversation.device.address, conversation.server
  local before = latest[device]
  if before then before.later = conversation end
  latest[device] = conversation
  local ends = device .. server.address .. server.port
  before = latest[ends]
  if before then before.dialled_again = conversation.start_time end
  latest[ends] = conversation
end

--- A handshake message is whole.
function Analysis:part(conversation, part)
  if self.decryption then self.decryption:handshake(conversation) end
  add(self, { what = "part", part = part, conversation = conversation })
end

--- Bytes are missing.
function Analysis:hole(conversation, hole)
  add(self, { what = "hole", hole = hole, conversation = conversation })
end

--- Framing is lost.
function Analysis:lost(conversation, lost)
  add(self, { what = "lost", lost = lost, conversation = conversation })
end

--- Returns what a dead-key frame says, nil for any other. Only a device that never logged in can send one, so nothing
-- is tried once the server has answered.
local function look_for_dead(analysis, conversation, frame)
  if frame.sender == "server" or conversation.server_hello or frame.ciphertext == nil then return nil end
  local dead_keys = analysis.dead_keys or DeadKeys.new()
  analysis.dead_keys = dead_keys
  local address = conversation.device.address
  if analysis.decryption then
    local session_key, next_iv = analysis.decryption:left_behind(conversation)
    if session_key then dead_keys:remember_session(address, session_key.key, next_iv) end
  end
  local dead = dead_keys:recognise(address, frame.ciphertext)
  return dead and dead.message .. " under " .. DEAD_KEYS[dead.under]
end

--- A frame was cut. Returns what it says when it is a dead-key frame.
function Analysis:frame(conversation, frame)
  local dead = look_for_dead(self, conversation, frame)
  local opened, message
  if self.decryption and not dead then opened, message = self.decryption:frame(conversation, frame) end
  add(self, {
    what = "frame",
    frame = frame,
    conversation = conversation,
    dead = dead,
    opened = opened,
    message = message,
  })
  return dead
end

spark.Analysis = Analysis
