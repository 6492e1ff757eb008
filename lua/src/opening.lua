-- Opens a handshake's sealed parts: the identity with the server's key, the offer with the device's.
--
-- PROTOCOL 3 says what each key opens and how sure that is. An opened part is believed for its length, the echoed nonce
-- or the HMAC, never because nothing raised. The names are those of `analyzer.session.opening`.

local constants = spark.constants
local rsa, der = spark.rsa, spark.der

local byte, sub, find = string.byte, string.sub, string.find
local fill = spark.wording.fill

local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local SESSION_SIZE = constants.catalogue.SESSION_SIZE
local SEALED_KEY_SIZE = constants.catalogue.SEALED_KEY_SIZE
local SESSION_KEY_SIZE = constants.catalogue.SESSION_KEY_SIZE
local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local DEVICE_ID_SIZE = constants.catalogue.DEVICE_ID_SIZE

-- The private operation ------------------------------------------------------------------------------------------

-- Answers remembered, 400 bytes each. Wireshark goes through a capture again for each change of a preference; the
-- second time then costs nothing.
local MOST_REMEMBERED = 16384
local remembered, remembered_count = {}, 0

--- What a private key makes of a block: the message, or nil when the key is wrong.
local function open_block(key, block)
  local question = key.n .. block
  local answer = remembered[question]
  if answer == nil then
    key.opener = key.opener or rsa.private_key(key.private)
    answer = key.opener:open_block(block) or false
    if remembered_count == MOST_REMEMBERED then
      remembered, remembered_count = {}, 0
    end
    remembered[question], remembered_count = answer, remembered_count + 1
  end
  return answer or nil
end

-- Message 2: the identity ----------------------------------------------------------------------------------------

local CORE_IDENTITY = constants.session.opening.CORE_IDENTITY
local PHOTON_IDENTITY = constants.session.opening.PHOTON_IDENTITY
local MODULUS_IN_SPKI = constants.session.opening.MODULUS_IN_SPKI
local EC_MARKS = constants.session.opening.EC_MARKS
local ERASED_END = constants.session.opening.ERASED_END
local KEY_TROUBLE = constants.session.opening.KEY_TROUBLE
local SMALL_PRIMES = constants.session.opening.SMALL_PRIMES
local SOURCE_IDENTITY = constants.session.opening.SOURCE_IDENTITY
local ROLES = constants.keys.model.ROLES

local function has_small_factor(n)
  for _, prime in ipairs(SMALL_PRIMES) do
    local rest = 0
    for at = 1, #n do
      rest = (rest * 256 + byte(n, at)) % prime
    end
    if rest == 0 then
      return true
    end
  end
  return false
end

--- The public key behind the device id, or nil and what the device copied there in its place.
local function offered_key(spki)
  local modulus = sub(spki, MODULUS_IN_SPKI[1] + 1, MODULUS_IN_SPKI[2])
  if find(modulus, EC_MARKS[1], 1, true) or sub(modulus, 1, #EC_MARKS[2]) == EC_MARKS[2] then
    return nil, KEY_TROUBLE["elliptic-curve"]
  elseif not find(modulus, "[^\255]") or not find(modulus, "[^%z]") then
    return nil, KEY_TROUBLE.erased
  elseif sub(modulus, -#ERASED_END) == ERASED_END then
    return nil, KEY_TROUBLE["ends-erased"]
  elseif not find(modulus, "[^\r\n\32-\126]") then
    return nil, KEY_TROUBLE.text
  end
  local found = der.read_structure(spki)
  if not found or not found.n then
    return nil, byte(modulus, -1) % 2 == 0 and KEY_TROUBLE.even or KEY_TROUBLE.none
  elseif byte(modulus, 1) < 0x80 then
    return nil, KEY_TROUBLE["top-bit"]
  elseif has_small_factor(found.n) then
    return nil, KEY_TROUBLE["small-factors"]
  end
  local bits = der.bit_length(found.n)
  local role = ROLES[bits] or "other"
  return { name = SOURCE_IDENTITY, n = found.n, e = found.e, bits = bits, role = role, device_ids = {} }
end

--- Open message 2 (256 bytes) with the first of the server's private keys that fits; nil when none does. It counts as
--- opened when the plaintext has the length of an identity, or begins with `nonce` (40 bytes, or nil).
--- {opened_by, plaintext_length, nonce, nonce_matches, device_id, offered, device_key, key_trouble}: `device_id` as 24
--- hex digits, `device_key` the public key that the device offers, or `key_trouble` what is there in its place.
local function open_identity(block, server_keys, nonce)
  if #block ~= IDENTITY_SIZE then
    return nil
  end
  for _, key in ipairs(server_keys) do
    local plaintext = key.private and open_block(key, block)
    local echoed = plaintext and sub(plaintext, 1, NONCE_SIZE)
    if plaintext and (#plaintext == CORE_IDENTITY or #plaintext == PHOTON_IDENTITY or echoed == nonce) then
      local identity = { opened_by = key, plaintext_length = #plaintext, nonce = echoed }
      if nonce then
        identity.nonce_matches = echoed == nonce
      end
      local device_id = sub(plaintext, NONCE_SIZE + 1, CORE_IDENTITY)
      if #device_id == DEVICE_ID_SIZE then
        identity.device_id = ("%02x"):rep(DEVICE_ID_SIZE):format(byte(device_id, 1, -1))
      end
      if #plaintext > CORE_IDENTITY then
        identity.offered = sub(plaintext, CORE_IDENTITY + 1)
        identity.device_key, identity.key_trouble = offered_key(identity.offered)
      end
      return identity
    end
  end
  return nil
end

-- Message 3: the session offer -----------------------------------------------------------------------------------

local HMAC_SIZE = constants.session.opening.HMAC_SIZE
local NOTE_LENGTH = constants.session.opening.NOTE_LENGTH
local NOTE_HMAC = constants.session.opening.NOTE_HMAC
local NOTE_OTHER_SIGNER = constants.session.opening.NOTE_OTHER_SIGNER

--- The server keys to check a signature with: the expected one is among them even if no file holds it.
local function signers(server_keys, expected)
  for _, key in ipairs(server_keys) do
    if not expected or key.n == expected.n then
      return server_keys
    end
  end
  if not expected then
    return server_keys
  end
  local all = { expected }
  for place, key in ipairs(server_keys) do
    all[place + 1] = key
  end
  return all
end

-- Signers tried on one offer, 3 ms each in Lua 5.2: nobody runs more servers than this. Of more, those that signed last
-- are tried, and a signature that none of them made is not called bad.
local MOST_SIGNERS = 32

--- Write into `offer` what the signature is: "valid" when the server expected to sign did sign, "invalid" when none of
--- the keys at hand did, another one did, or the HMAC is wrong, "not-checked" without any key.
local function check_signature(offer, signature, sealed, blob, server_keys, expected)
  local candidates = signers(server_keys, expected)
  if #candidates > 0 and #candidates <= MOST_SIGNERS then
    offer.signature, offer.signature_block_ok = "invalid", false
  end
  for place = 1, math.min(#candidates, MOST_SIGNERS) do
    local key = candidates[place]
    key.verifier = key.verifier or rsa.public_key({ n = key.n, e = key.e })
    local content = key.verifier:open_signature(signature)
    if content then
      offer.signature, offer.signed_by, offer.signature_block_ok = "invalid", key, #content == HMAC_SIZE
      if #content ~= HMAC_SIZE then
        offer.signature_note = fill(NOTE_LENGTH, { length = #content, wanted = HMAC_SIZE })
      elseif blob and content ~= spark.hmac_sha1(blob, sealed) then
        offer.signature_note = NOTE_HMAC
      elseif expected and key.n ~= expected.n then
        offer.signature_note = NOTE_OTHER_SIGNER
      else
        offer.signature = "valid"
      end
      return
    end
  end
end

--- Open message 3 (384 bytes) with the first device key that fits, and check its signature. `expected_signer` is the
--- server key this device is known to trust, because it encrypted its identity to it; `untried` how many keys were
--- left out. {opened, opened_by, credentials, tried, untried, signature, signature_block_ok, signed_by,
--- signature_note, identity_key_differs}: `opened` is nil without a key to try; false says that each of `tried` keys
--- fails, and only with `untried` 0 that all do.
local function open_offer(block, device_keys, server_keys, expected_signer, untried)
  local offer = { tried = 0, untried = untried or 0, signature = "not-checked" }
  if #block ~= SESSION_SIZE then
    return offer
  end
  local sealed, blob = sub(block, 1, SEALED_KEY_SIZE), nil
  for _, key in ipairs(device_keys) do
    if key.private then
      offer.tried = offer.tried + 1
      local plaintext = open_block(key, sealed)
      if plaintext and #plaintext == SESSION_KEY_SIZE then
        blob, offer.opened_by, offer.credentials = plaintext, key, spark.session_key(plaintext)
        break
      end
    end
  end
  if offer.tried > 0 then
    offer.opened = blob ~= nil
  end
  check_signature(offer, sub(block, SEALED_KEY_SIZE + 1), sealed, blob, server_keys, expected_signer)
  return offer
end

-- Which key to try first -----------------------------------------------------------------------------------------

-- Private operations with a device's key spent on one capture for keys that nothing points to: 18 s in Lua 5.2, where
-- one takes 9 ms. Python affords ten times as many, and says what this leaves open.
local MOST_TRIES = 2000
-- One with a server's key takes as long as six.
local SERVER_TRY = 6
-- Device keys that are tried on each offer, however much was spent: a bench has no more. Of the rest, one offer gets
-- half of what is left, so that a device whose key is not here leaves something for the others.
local DEVICE_KEYS_ALWAYS = 8
-- Server keys tried on each identity, however much was spent: what an identity costs when it does open.
local SERVER_KEYS_ALWAYS = 1
local MOST_DEVICES = constants.session.opening.MOST_DEVICES

local function copied(list)
  local copy = {}
  for place, value in ipairs(list) do
    copy[place] = value
  end
  return copy
end

--- Put a key that worked to the front.
local function note_success(recent, key)
  for place, other in ipairs(recent) do
    if other == key then
      table.insert(recent, 1, table.remove(recent, place))
      return
    end
  end
end

--- Opens the handshakes of a capture with the keys of a ring, trying the likely ones first: the key whose public half
--- the identity carries, keys in files named after the device id, the key that last worked for this device, those that
--- last worked for others. Further keys are tried as long as the capture's share of `MOST_TRIES` lasts.
local SessionOpener = {}
SessionOpener.__index = SessionOpener

function SessionOpener.new(ring)
  return setmetatable({
    ring = ring,
    tries_left = MOST_TRIES,
    last = {},
    devices = 0,
    recent_device = copied(ring.device_private),
    recent_server = copied(ring.server_private),
    recent_signer = copied(ring.server_keys),
  }, SessionOpener)
end

--- Open message 2; nil when no server key opens it. The second result is the number of keys that were allowed to try.
function SessionOpener:identity(block, nonce)
  local share = math.floor(self.tries_left / (2 * SERVER_TRY))
  local keys = {}
  for place = 1, math.min(#self.recent_server, math.max(share, SERVER_KEYS_ALWAYS)) do
    keys[place] = self.recent_server[place]
  end
  local found = open_identity(block, keys, nonce)
  if found then
    note_success(self.recent_server, found.opened_by)
  else
    self.tries_left = math.max(self.tries_left - #keys * SERVER_TRY, 0)
  end
  return found, #keys
end

--- The keys that something points to, as an array and as a set.
local function pointed_to(self, identity, device)
  local keys, chosen = {}, {}
  local function add(key)
    if key and key.private and not chosen[key] then
      chosen[key], keys[#keys + 1] = true, key
    end
  end
  if identity and identity.device_key then
    add(self.ring:key_with_modulus(identity.device_key.n))
  end
  if identity and identity.device_id then
    for _, key in ipairs(self.ring:keys_of_device(identity.device_id)) do
      add(key)
    end
  end
  add(self.last[device])
  return keys, chosen
end

--- Open message 3 of `device` (whatever tells devices apart, its IP address say; nil when that is not known).
function SessionOpener:offer(block, identity, device)
  device = device or ""
  local keys, chosen = pointed_to(self, identity, device)
  local pointed, rest = #keys, 0
  local allowed = math.max(math.floor(self.tries_left / 2), DEVICE_KEYS_ALWAYS)
  for _, key in ipairs(self.recent_device) do
    if not chosen[key] then
      rest = rest + 1
      if rest <= allowed then
        keys[#keys + 1] = key
      end
    end
  end
  local expected = identity and identity.nonce_matches and identity.opened_by or nil
  local found = open_offer(block, keys, self.recent_signer, expected, math.max(rest - allowed, 0))
  self.tries_left = math.max(self.tries_left - math.max(found.tried - pointed, 0), 0)
  if found.signed_by then
    note_success(self.recent_signer, found.signed_by)
  end
  if found.opened_by then
    note_success(self.recent_device, found.opened_by)
    self:remember(device, found.opened_by)
    if identity and identity.device_key then
      -- Another key than the one the identity carried: the server's record is stale.
      found.identity_key_differs = identity.device_key.n ~= found.opened_by.n
    end
  end
  return found
end

--- Remember which key worked for a device. When there are more devices than one remembers, all are forgotten: each then
--- costs one search more.
function SessionOpener:remember(device, key)
  if not self.last[device] then
    if self.devices == MOST_DEVICES then
      self.last, self.devices = {}, 0
    end
    self.devices = self.devices + 1
  end
  self.last[device] = key
end

spark.open_identity, spark.open_offer, spark.SessionOpener = open_identity, open_offer, SessionOpener
