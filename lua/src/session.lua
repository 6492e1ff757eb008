-- Decrypts one direction's frames, and says what is in the way when one does not open (PROTOCOL 4.4, 4.5).
--
-- The chain is unusual: the IV of a frame is the FIRST ciphertext block of the frame before it. So a missing frame
-- costs 16 bytes of the next and nothing more, and that pattern tells a hole from a wrong key.

local constants = spark.constants
local new_context = spark.aes.new
local is_whole_coap, without_padding = spark.is_whole_coap, spark.without_padding
local less = spark.rsa.less
local byte, rep, sub = string.byte, string.rep, string.sub
local min = math.min

local BLOCK = constants.catalogue.BLOCK
local UNKNOWN_IV = constants.session.frames.UNKNOWN_IV
local Obstacle = constants.session.frames.OBSTACLES
local Trouble = constants.session.frames.TROUBLES
local FRAMES_TRIED = constants.session.frames.FRAMES_TRIED
local ENOUGH_PADDING = constants.session.frames.ENOUGH_PADDING
local MOST_CANDIDATES = constants.session.frames.MOST_CANDIDATES
local KEPT_OBSTACLES = constants.session.frames.KEPT_OBSTACLES
local KEPT_RUNS = constants.session.frames.KEPT_RUNS
local MOST_RANGE_VALUES = constants.session.range_test.MOST_RANGE_VALUES
local UNLIKELY = constants.session.range_test.UNLIKELY

-- What an opened frame is: {plaintext, whole, missing, obstacle}. `plaintext` is the CoAP message without padding when
-- `whole`; after a gap what follows the first `missing` bytes (16), nil when that is nothing. Else it is nil, and then
-- one table serves all frames alike.
local NONE = Obstacle.NONE
local GAP_BEFORE = Obstacle.GAP_BEFORE

local function shut(missing, obstacle)
  return { plaintext = nil, whole = false, missing = missing, obstacle = obstacle }
end

local NOTHING_LEFT = shut(BLOCK, GAP_BEFORE)
local BAD_PADDING = shut(0, Obstacle.BAD_PADDING)
local BAD_START = shut(0, Obstacle.BAD_START)
local NOT_COAP = shut(0, Obstacle.NOT_COAP)
local NOT_BLOCKS = shut(0, Obstacle.NOT_BLOCKS)

-- -- one direction ----------------------------------------------------------------------------------------------------

--- Decrypts the frames of one direction in order.
-- `next_iv` is the IV of the frame to come, nil after a gap. A dead-key chain goes on with it (PROTOCOL 9.2).
local FrameDecryptor = {}
FrameDecryptor.__index = FrameDecryptor

--- @param session_key {key, iv, salt}; without `iv` only the AES key is known
-- @param in_step whether the first frame given is the direction's first of the session, so that the session key's IV
-- is its IV; otherwise the first frame loses its first 16 bytes
-- @param context AES with that key, where it is there already: it has no state, so both directions can share it
function FrameDecryptor.new(session_key, in_step, context)
  return setmetatable({
    next_iv = in_step and session_key.iv or nil,
    _context = context or new_context(session_key.key),
  }, FrameDecryptor)
end

--- Notes that frames are missing here.
-- @param first_block the first 16 ciphertext bytes of the last missing frame where the capture still has them: then
-- nothing of the next frame is lost
function FrameDecryptor:skip(first_block)
  if first_block and #first_block == BLOCK then
    self.next_iv = first_block
  else
    self.next_iv = nil
  end
end

--- What is left of a frame whose IV is not known.
local function after_gap(opened)
  if #opened == BLOCK then return NOTHING_LEFT end
  local rest = without_padding(sub(opened, BLOCK + 1))
  if rest == nil then return BAD_PADDING end
  return { plaintext = rest, whole = false, missing = BLOCK, obstacle = GAP_BEFORE }
end

--- Decrypts the next frame (without its length bytes). Never raises on bytes.
function FrameDecryptor:update(ciphertext)
  local size = #ciphertext
  if size == 0 or size % BLOCK ~= 0 then
    self.next_iv = nil
    return NOT_BLOCKS
  end
  local iv = self.next_iv
  self.next_iv = sub(ciphertext, 1, BLOCK)
  if iv == nil then return after_gap(self._context:decrypt_cbc(UNKNOWN_IV, ciphertext)) end

  local plaintext = without_padding(self._context:decrypt_cbc(iv, ciphertext))
  if plaintext == nil then return BAD_PADDING end
  if is_whole_coap(plaintext) then
    return { plaintext = plaintext, whole = true, missing = 0, obstacle = NONE }
  end
  return size == BLOCK and NOT_COAP or BAD_START
end

--- Whether a frame's end is right under this key; asks for its last block alone, however long it is.
-- Where that would save nothing, it says yes.
function FrameDecryptor:may_open(ciphertext)
  local size = #ciphertext
  if size <= BLOCK or size % BLOCK ~= 0 then return true end
  local before = sub(ciphertext, size - 2 * BLOCK + 1, size - BLOCK)
  return without_padding(self._context:decrypt_cbc(before, sub(ciphertext, size - BLOCK + 1))) ~= nil
end

-- -- which session key ------------------------------------------------------------------------------------------------

--- Whether a key shows enough right padding in the first frames of the two directions.
local function fits(key, directions, in_step)
  local context, padding = new_context(key.key), 0
  for _, frames in ipairs(directions) do
    local decryptor = FrameDecryptor.new(key, in_step, context)
    for index = 1, min(#frames, FRAMES_TRIED) do
      local ciphertext = frames[index]
      if decryptor:may_open(ciphertext) then
        local opened = decryptor:update(ciphertext)
        if opened.plaintext then
          padding = padding + #ciphertext - opened.missing - #opened.plaintext
          if padding >= ENOUGH_PADDING then return true end
        end
      else
        decryptor:skip(sub(ciphertext, 1, BLOCK))
      end
    end
  end
  return false
end

--- Returns the first session key that opens the first frames of a conversation; nil when none does.
-- For session keys that were given or logged; one that came out of message 3 needs no test.
-- @param candidates array of session keys
-- @param directions the ciphertexts of each direction's frames, in order and without gaps
-- @param in_step as for FrameDecryptor
local function fitting_session_key(candidates, directions, in_step)
  for index = 1, min(#candidates, MOST_CANDIDATES) do
    if fits(candidates[index], directions, in_step) then return candidates[index] end
  end
  return nil
end

-- -- what failures mean -----------------------------------------------------------------------------------------------

--- Follows one direction's frames and says what the failures among them mean.
local FailurePattern = {}
FailurePattern.__index = FailurePattern

function FailurePattern.new()
  return setmetatable({ frames = 0, opened = 0, runs = {}, _open_run = nil }, FailurePattern)
end

--- Counts one opened frame, in order.
function FailurePattern:note(frame)
  local index = self.frames
  self.frames = index + 1
  local obstacle, run = frame.obstacle, self._open_run
  if obstacle == NONE or obstacle == GAP_BEFORE then
    -- A one-block frame behind a gap opens for any key, so it proves nothing and ends no run.
    if obstacle == NONE or frame.plaintext then
      self.opened = self.opened + 1
      if run then
        run.recovered, self._open_run = true, nil
      end
    end
    return
  end
  if run == nil then
    run = { first = index, obstacles = {}, count = 0, recovered = false }
    self._open_run = run
    if #self.runs < KEPT_RUNS then self.runs[#self.runs + 1] = run end
  end
  run.count = run.count + 1
  if #run.obstacles < KEPT_OBSTACLES then run.obstacles[#run.obstacles + 1] = obstacle end
end

--- What a run of frames that do not open means (PROTOCOL 4.5; DIAGNOSES, SPK501).
function FailurePattern:_meaning(run)
  if self.opened == 0 then return Trouble.WRONG_KEY end
  if #run.obstacles == 1 and run.obstacles[1] == Obstacle.BAD_START then return Trouble.FRAME_MISSING end
  if run.recovered then return Trouble.DAMAGED end
  for _, obstacle in ipairs(run.obstacles) do
    if obstacle == Obstacle.NOT_BLOCKS then return Trouble.FRAMING end
  end
  return Trouble.LOST
end

--- Returns each run with its meaning, oldest first: array of {run = {first, obstacles, count, recovered}, trouble}.
function FailurePattern:troubles()
  local found = {}
  for index, run in ipairs(self.runs) do
    found[index] = { run = run, trouble = self:_meaning(run) }
  end
  return found
end

-- -- public keys alone ------------------------------------------------------------------------------------------------

--- Asks whether a public key can be the one that a series of RSA blocks was made for (PROTOCOL 3.3).
-- A block is a number below its modulus, so one that is not below `n` excludes this key for certain. Without such a
-- block it only grows unlikely: were the key right, all blocks would stay as far below `n` as they do with probability
-- `p_value`. "Not excluded" never means that the key fits.
local RangeTest = {}
RangeTest.__index = RangeTest

--- The first bytes as a fraction of 1, as far as a double holds them.
local function fraction(number)
  local value = 0
  for at = min(#number, 8), 1, -1 do
    value = (value + byte(number, at)) / 256
  end
  return value
end

--- @param n the modulus, big-endian bytes without leading zeros
function RangeTest.new(n)
  return setmetatable({ count = 0, excluded = false, p_value = 1, unlikely = false, _n = n, _seen = {},
    _largest = rep("\0", #n) }, RangeTest)
end

--- Adds one handshake's block. Repeats of the same block and blocks of another length do not count.
function RangeTest:add(block)
  if #block ~= #self._n or self._seen[block] or self.count >= MOST_RANGE_VALUES then return end
  self._seen[block] = true
  self.count = self.count + 1
  if less(self._largest, block) then self._largest = block end
  self.excluded = not less(self._largest, self._n)
  self.p_value = self.excluded and 0 or (fraction(self._largest) / fraction(self._n)) ^ self.count
  self.unlikely = self.p_value < UNLIKELY
end

spark.FrameDecryptor = FrameDecryptor
spark.fitting_session_key = fitting_session_key
spark.FailurePattern = FailurePattern
spark.RangeTest = RangeTest
