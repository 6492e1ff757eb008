-- Frames of a device whose login failed and which talks on all the same, under a key nobody agreed on.
--
-- Cores of 2014 ignore the result of the handshake (PROTOCOL 9.2): they encrypt with whatever key, IV and counters
-- are in RAM. After power-up these are all zero, so the first frames are constants; later they are those of the
-- session before. Key, IV chain and counters go on across reconnects. Recognising such a frame proves that the login
-- failed, and it needs no key of the user's.

local constants = spark.constants
local aes = spark.aes
local bxor = spark.bits.bxor
local is_whole_coap, without_padding = spark.is_whole_coap, spark.without_padding
local byte, char, sub = string.byte, string.char, string.sub
local concat, floor = table.concat, math.floor

local BLOCK = constants.catalogue.BLOCK
local LARGEST_FRAME = constants.catalogue.LARGEST_FRAME
local ZERO_KEY = constants.deadkey.ZERO_KEY
local ZERO_IV = constants.deadkey.ZERO_IV
local CHAIN_LENGTH = constants.deadkey.CHAIN_LENGTH
local COAP_VERSION = constants.deadkey.COAP_VERSION
local GET = constants.deadkey.GET
local POST = constants.deadkey.POST
local PING = constants.deadkey.PING
local TIME_REQUEST = constants.deadkey.TIME_REQUEST
local UNASKED_GETS = constants.deadkey.UNASKED_GETS
local UNASKED_POSTS = constants.deadkey.UNASKED_POSTS
local UNDER_ZERO_KEY = constants.deadkey.UNDER_ZERO_KEY
local UNDER_EARLIER_KEY = constants.deadkey.UNDER_EARLIER_KEY
local AS_CONSTANT = constants.deadkey.AS_CONSTANT
local AS_CHAIN = constants.deadkey.AS_CHAIN
local HEADS = constants.deadkey.FIRST_BLOCK_HEADS
local RESTS = constants.deadkey.FIRST_BLOCK_RESTS

-- -- a table that forgets ---------------------------------------------------------------------------------------------

--- Values by key, for the last `room` keys that were asked for with `of`; others are forgotten.
-- A ring of entries from the oldest to the newest, so that remembering costs the same however many there are.
local Remembered = {}
Remembered.__index = Remembered

function Remembered.new(room)
  local ring = {}
  ring.older, ring.newer = ring, ring
  return setmetatable({ room = room, count = 0, _entries = {}, _ring = ring }, Remembered)
end

--- Returns the value of a key, or nil. That does not make it any newer.
function Remembered:find(key)
  local entry = self._entries[key]
  return entry and entry.value
end

--- Returns the table of a key, an empty one when it is new, and makes it the newest.
function Remembered:of(key)
  local ring, entry = self._ring, self._entries[key]
  if entry then
    entry.older.newer, entry.newer.older = entry.newer, entry.older
  else
    entry = { key = key, value = {} }
    self._entries[key] = entry
    self.count = self.count + 1
  end
  entry.older, entry.newer = ring.older, ring
  ring.older.newer, ring.older = entry, entry
  if self.count > self.room then
    local oldest = ring.newer
    ring.newer, oldest.newer.older = oldest.newer, ring
    self._entries[oldest.key] = nil
    self.count = self.count - 1
  end
  return entry.value
end

-- -- the frames of a freshly booted device ----------------------------------------------------------------------------

local function xor_block(left, right)
  local bytes = {}
  for at = 1, BLOCK do
    bytes[at] = char(bxor(byte(left, at), byte(right, at)))
  end
  return concat(bytes)
end

--- The first 16 plaintext bytes of the message.
local function first_block(message, number, token)
  local own_token = message == TIME_REQUEST and char(token) or ""
  return HEADS[message] .. char(floor(number / 256), number % 256) .. own_token .. RESTS[message]
end

--- Adds the frames of one boot sequence: what is sent once, then what is sent again and again.
local function add_chain(found, encryptor, opening, repeated)
  local iv, token = ZERO_IV, 0
  for number = 1, CHAIN_LENGTH do
    local message = opening[number] or repeated[(number - #opening - 1) % #repeated + 1]
    if message == TIME_REQUEST then token = token + 1 end
    local block = encryptor:encrypt_block(xor_block(first_block(message, number, token), iv))
    if found[block] == nil then found[block] = iv end
    iv = block
  end
end

local known_constants

--- Returns first ciphertext block → IV, for each frame a freshly booted device can send (PROTOCOL 9.2).
-- Made when first asked for: captures without a device's frame need no AES.
local function zero_key_constants()
  if known_constants == nil then
    known_constants = {}
    local encryptor = aes.encryptor(ZERO_KEY)
    for _, sequence in ipairs(constants.deadkey.BOOT_SEQUENCES) do
      add_chain(known_constants, encryptor, sequence[1], sequence[2])
    end
  end
  return known_constants
end

-- -- recognising ------------------------------------------------------------------------------------------------------

--- Names a message that devices send by themselves; nil for any other, well formed or not.
local function unasked_message(plaintext)
  if not is_whole_coap(plaintext) then return nil end
  local first, code = byte(plaintext, 1, 2)
  if #plaintext == 4 and sub(plaintext, 1, 2) == HEADS[PING] then return PING end
  local token_size = first % 16
  if floor(first / 16) % 4 > 1 or token_size > 1 then return nil end
  local path = sub(plaintext, 5 + token_size, 6 + token_size)
  if code == GET then return UNASKED_GETS[path] end
  return code == POST and UNASKED_POSTS[path] or nil
end

--- Decrypts, and returns the message and its name only if it is whole and one that a device sends unasked.
local function open_unasked(context, iv, ciphertext, first)
  -- One block tells nearly every other frame apart, so long frames cost no more than short ones: confirmable or
  -- not, with at most one byte of token, is how all these messages begin.
  local opened = context:decrypt_cbc(iv, first)
  local head = byte(opened, 1)
  if floor(head / 64) ~= COAP_VERSION or floor(head / 16) % 4 > 1 or head % 16 > 1 then return nil end
  if #ciphertext > BLOCK then opened = context:decrypt_cbc(iv, ciphertext) end
  local plaintext = without_padding(opened)
  local message = plaintext and unasked_message(plaintext)
  if not message then return nil end
  return plaintext, message
end

--- Recognises dead-key frames and keeps each device's IV chain across its connections (PROTOCOL 9.2).
local DeadKeys = {}
DeadKeys.__index = DeadKeys

function DeadKeys.new()
  return setmetatable({ _zero_key = nil, _devices = Remembered.new(constants.deadkey.MOST_DEVICES) }, DeadKeys)
end

--- Returns what the frame says when it is a dead-key frame of `device`, else nil.
-- Odds that a frame under any other key passes are below one in 10^8.
-- @param device whatever tells one device from another (its address)
-- @param frame_ciphertext the frame without its two length bytes
-- @return {plaintext, message, under, how}
function DeadKeys:recognise(device, frame_ciphertext)
  local size = #frame_ciphertext
  if size < BLOCK or size > LARGEST_FRAME or size % BLOCK ~= 0 then return nil end
  local first = sub(frame_ciphertext, 1, BLOCK)
  local chains = self._devices:find(device)
  local zero_key = self._zero_key
  if zero_key == nil then
    zero_key = aes.new(ZERO_KEY)
    self._zero_key = zero_key
  end

  local how, plaintext, message = AS_CONSTANT, nil, nil
  local constant_iv = zero_key_constants()[first]
  if constant_iv then plaintext, message = open_unasked(zero_key, constant_iv, frame_ciphertext, first) end
  if not plaintext then
    how = AS_CHAIN
    if chains and chains.zero_iv then
      plaintext, message = open_unasked(zero_key, chains.zero_iv, frame_ciphertext, first)
    end
    if not plaintext then plaintext, message = open_unasked(zero_key, ZERO_IV, frame_ciphertext, first) end
  end
  if plaintext then
    self._devices:of(device).zero_iv = first
    return { plaintext = plaintext, message = message, under = UNDER_ZERO_KEY, how = how }
  end
  if not chains or not chains.session_context then return nil end

  plaintext, message = open_unasked(chains.session_context, chains.session_iv, frame_ciphertext, first)
  if not plaintext then return nil end
  self._devices:of(device).session_iv = first
  return { plaintext = plaintext, message = message, under = UNDER_EARLIER_KEY, how = AS_CHAIN }
end

--- Notes the AES key of a session that worked, and the IV its next device frame would have had.
-- A device that fails its next login goes on with these.
-- @param key, next_iv 16 bytes each; `next_iv` is the first ciphertext block of the device's last frame
function DeadKeys:remember_session(device, key, next_iv)
  local chains = self._devices:of(device)
  if chains.session_key ~= key then
    chains.session_key, chains.session_context = key, aes.new(key)
  end
  chains.session_iv, chains.zero_iv = next_iv, nil
end

spark.Remembered = Remembered
spark.DeadKeys = DeadKeys
spark.zero_key_constants = zero_key_constants
