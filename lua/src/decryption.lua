-- What the keys make of a conversation: handshake opened, frames decrypted, messages named.
--
-- One Decryption serves a whole capture, because keys that worked once are tried first again and dead keys go on
-- across connections. It is told of each handshake message and each frame as it is cut, and answers at once: no
-- conversation is ever over, and no message waits for its place. What it learns is kept in the conversation's
-- `secrets`.

local constants = spark.constants
local new_context = spark.aes.new
local FrameDecryptor, FailurePattern = spark.FrameDecryptor, spark.FailurePattern
local fitting_session_key, Remembered = spark.fitting_session_key, spark.Remembered

local QUEUED = constants.decryption.QUEUED
local PROOF = constants.decryption.PROOF
local BAD_FRAMES = constants.decryption.BAD_FRAMES
local KEY_GIVEN = constants.decryption.KEY_GIVEN
local KEY_LOGGED = constants.decryption.KEY_LOGGED
local MOST_DEVICES = constants.deadkey.MOST_DEVICES
local GAP_BEFORE = constants.session.frames.OBSTACLES.GAP_BEFORE

-- -- what was learnt --------------------------------------------------------------------------------------------------

--- What the keys at hand told about one conversation.
-- `identity_tried` and `offer` say what was tried; `session_key` is nil when nothing opened. `key_source` names where
-- it came from. `opened`, `partly`, `lost` count frames (`lost`: a hole left nothing of them). `patterns` is by sender.
-- `bad_frames` are {sender, position, packet, obstacle, behind_gap}: `position` counts the whole frames of its
-- direction from 0. `hellos` has the ends whose hello opened.
local Secrets = {}
Secrets.__index = Secrets

function Secrets.new()
  return setmetatable({
    identity = nil,
    identity_tried = 0,
    offer = nil,
    session_key = nil,
    key_source = nil,
    opened = 0,
    partly = 0,
    lost = 0,
    patterns = {},
    bad_frames = {},
    hellos = {},
    reader = nil,
  }, Secrets)
end

-- -- one capture ------------------------------------------------------------------------------------------------------

--- Opens the conversations of one capture with the keys of a ring.
-- `late`, when set, is called as late(conversation, frame, opened, message) for each frame that had to wait until it
-- was known which key opens it; their rows may be drawn already.
local Decryption = {}
Decryption.__index = Decryption

--- @param keys the key ring
function Decryption.new(keys)
  return setmetatable({
    keys = keys,
    late = nil,
    _opener = spark.SessionOpener.new(keys),
    _sessions = Remembered.new(MOST_DEVICES), -- by device: {latest, before}, conversations that opened; what was told
  }, Decryption)
end

--- The work on one conversation while its packets come.
-- `gap` says, by sender, that bytes are missing since its last message; `primed` that a frame of which only the head
-- was captured has left the next one's IV.
local function new_work()
  return {
    decided = false,
    decryptors = nil,
    primed = {},
    gap = {},
    queue = {}, -- frames that wait
    candidates = nil, -- session keys that may open them
    test_at = 1, -- number of frames that wait at the next test
  }
end

--- Takes charge of a new conversation.
function Decryption.begin(_, conversation)
  conversation.secrets = Secrets.new()
  conversation.secrets._work = new_work()
end

-- -- which key --------------------------------------------------------------------------------------------------------

--- The bytes of a handshake message that was captured whole, or nil.
local function data_of(conversation, kind)
  local part = conversation:part(kind)
  return part and part.data
end

--- Opens what the handshake holds, as soon as it is there. Call it when one of its messages is complete; what was
-- tried once is not tried again.
function Decryption:handshake(conversation)
  local secrets = conversation.secrets
  local block = data_of(conversation, "identity")
  local servers = #self.keys.server_private
  if block and servers > 0 and secrets.identity_tried == 0 then
    local identity
    identity, secrets.identity_tried = self._opener:identity(block, data_of(conversation, "nonce"))
    secrets.identity = identity
    if identity and identity.device_id and identity.nonce_matches ~= false then
      conversation.device.id = identity.device_id
    end
  end
  local session = data_of(conversation, "session")
  if not session or secrets.offer then return end
  local offer = self._opener:offer(session, secrets.identity, conversation.device.address)
  secrets.offer = offer
  if offer.credentials and offer.opened_by then
    secrets.session_key, secrets.key_source = offer.credentials, offer.opened_by.name
  end
end

--- Returns the longest run of one direction's frames without a gap, and whether it begins with the first.
local function longest_run(queue, sender)
  local best, best_is_first, run, first = {}, true, {}, true
  for _, frame in ipairs(queue) do
    if frame.sender == sender then
      if not frame.ciphertext or frame.follows_gap then
        first, run = false, {}
      end
      if frame.ciphertext then
        run[#run + 1] = frame.ciphertext
        if #run > #best then
          best, best_is_first = run, first
        end
      end
    end
  end
  return best, best_is_first
end

--- Puts the session keys that were given or logged to the test on the frames that wait.
function Decryption:_try_session_keys(conversation, work, candidates)
  local device, device_is_first = longest_run(work.queue, "device")
  local server, server_is_first = longest_run(work.queue, "server")
  local in_step = not conversation.midway and device_is_first and server_is_first
  local fitting = fitting_session_key(candidates, { device, server }, in_step)
  if not fitting then return end
  local secrets = conversation.secrets
  secrets.session_key, secrets.key_source = fitting, KEY_LOGGED
  for _, given in ipairs(self.keys.loose_session_keys) do
    if given == fitting then secrets.key_source = KEY_GIVEN end
  end
end

--- Decides, if it can be, which key opens the frames. Returns whether it did.
-- @param full no more frames can wait, so it is decided as it is: a queue that went on would have a hole
function Decryption:_decide(conversation, work, full)
  local secrets = conversation.secrets
  self:handshake(conversation)
  if not secrets.session_key then
    local candidates = work.candidates or self.keys:session_keys_for(data_of(conversation, "nonce"))
    work.candidates = candidates
    if #candidates > 0 then
      if #work.queue < work.test_at and not full then return false end
      self:_try_session_keys(conversation, work, candidates)
      -- The first few frames are tested one by one, because there may be no more; then each time their number has
      -- doubled, because they may have had too little padding to prove anything.
      work.test_at = work.test_at < PROOF and work.test_at + 1 or work.test_at * 2
      if not secrets.session_key and not full then return false end
    end
  end
  work.decided, work.candidates = true, nil
  local session_key = secrets.session_key
  if not session_key then
    work.queue = nil
    return true
  end
  local in_step = not conversation.midway or conversation:part("session") ~= nil
  local context = new_context(session_key.key)
  work.decryptors = {
    device = FrameDecryptor.new(session_key, in_step, context),
    server = FrameDecryptor.new(session_key, in_step, context),
  }
  secrets.patterns = { device = FailurePattern.new(), server = FailurePattern.new() }
  secrets.reader = spark.MessageReader.new(session_key.salt)
  return true
end

-- -- frames and messages ----------------------------------------------------------------------------------------------

--- Notes that the two ends do use this key: from now on the device holds it, and not that of the session before.
function Decryption:_note_session(conversation)
  local sessions = self._sessions:of(conversation.device.address)
  sessions.latest, sessions.before = conversation, sessions.latest
end

--- Decrypts one frame in its turn. Returns what opened and the message in it, or nil.
function Decryption:_decrypt(conversation, work, frame)
  local secrets, sender, ciphertext = conversation.secrets, frame.sender, frame.ciphertext
  local decryptor = work.decryptors[sender]
  if frame.follows_gap then
    work.gap[sender] = true
    if not work.primed[sender] then decryptor:skip() end
  end
  if not ciphertext then
    -- Its first block is the next frame's IV, so a hole behind it costs this frame alone.
    decryptor:skip(frame.head)
    work.primed[sender], work.gap[sender] = true, true
    secrets.lost = secrets.lost + 1
    return nil
  end
  work.primed[sender] = false
  local opened, pattern = decryptor:update(ciphertext), secrets.patterns[sender]
  pattern:note(opened)
  local plaintext = opened.plaintext
  if not plaintext then
    local bad = secrets.bad_frames
    if opened.obstacle == GAP_BEFORE then
      secrets.lost = secrets.lost + 1
    elseif #bad < BAD_FRAMES then
      bad[#bad + 1] = {
        sender = sender,
        position = pattern.frames - 1,
        packet = frame.packet,
        obstacle = opened.obstacle,
        behind_gap = work.gap[sender] or false,
      }
    end
    return opened
  end
  work.gap[sender] = false
  if opened.whole then
    if secrets.opened == 0 then self:_note_session(conversation) end
    secrets.opened = secrets.opened + 1
  else
    secrets.partly = secrets.partly + 1
  end
  local message = secrets.reader:read(sender, plaintext, frame.packet, frame.time, opened.missing)
  if message.name == "Hello" then secrets.hellos[sender] = true end
  conversation.message_count = conversation.message_count + 1
  if sender == "server" then conversation.last_server_message = message end
  return opened, message
end

--- Takes a conversation's next frame (not a dead-key frame).
-- @return opened, message: what it is after decryption and the message in it; nil when it has no key, or has to wait
-- until it is known which one
function Decryption:frame(conversation, frame)
  local work = conversation.secrets._work
  if work.decryptors then return self:_decrypt(conversation, work, frame) end
  if work.decided then return nil end

  local queue = work.queue
  queue[#queue + 1] = frame
  local session = conversation:part("session")
  local full = #queue >= QUEUED
  if not (full or (session and session.complete) or conversation.midway) then return nil end
  if not self:_decide(conversation, work, full) or not work.decryptors then return nil end
  work.queue = nil
  for index = 1, #queue - 1 do
    local opened, message = self:_decrypt(conversation, work, queue[index])
    if opened and self.late then self.late(conversation, queue[index], opened, message) end
  end
  return self:_decrypt(conversation, work, frame)
end

--- Returns the session key, and the IV that the device's next frame would have had, of the device's connection before
-- this one; nil when that is not known or was told already. A device that fails its next login goes on with them.
function Decryption:left_behind(conversation)
  local sessions = self._sessions:find(conversation.device.address)
  if not sessions then return nil end
  local earlier = sessions.latest
  if earlier.number >= conversation.number then earlier = sessions.before end
  if not earlier or earlier.number >= conversation.number then return nil end
  local next_iv = earlier.secrets._work.decryptors.device.next_iv
  if not next_iv or (sessions.told_number == earlier.number and sessions.told_iv == next_iv) then return nil end
  sessions.told_number, sessions.told_iv = earlier.number, next_iv
  return earlier.secrets.session_key, next_iv
end

spark.Secrets = Secrets
spark.Decryption = Decryption
