-- Which key is where, as far as the capture itself proves it, and the range test over all attempts of a device.

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local number, plural = wording.number, wording.plural
local fill = rules.fill

local SEALED_KEY_SIZE = constants.catalogue.SEALED_KEY_SIZE
local NAMED_KEYS = constants.rules.keys.places.NAMED_KEYS
local MOST_TESTED = constants.rules.keys.places.MOST_TESTED

--- Conversations under way that are looked at again for what their logins prove; of further ones, what was seen when
-- they were first looked at counts.
local MOST_OPEN = 64

-- Names of keys ------------------------------------------------------------------------------------------------------

--- The base name of a file.
local function base_name(path)
  return path:match("[^/\\]+$") or path
end

--- What a key is called: the file it came from.
local function file_of(key)
  return base_name(key.name)
end

--- Names a few keys, or counts many.
local function names_of(keys, noun)
  if #keys > NAMED_KEYS then
    return "any of " .. plural(#keys, noun)
  end
  local named = {}
  for index, key in ipairs(keys) do
    named[index] = file_of(key)
  end
  return wording.listing(named, "or")
end

-- Places -------------------------------------------------------------------------------------------------------------

--- What one capture proves so far about who holds which key. A device that logged in has opened a reply with its key
-- and has checked the signature with its server key; a device whose "who I am" opens has locked it with its server key
-- (PROTOCOL 3.4).
local Places = {}
Places.__index = Places

function Places.new()
  return setmetatable({
    learnt = 0, -- conversations looked at
    open = {}, -- those that were still under way then
    inside = {}, -- by device modulus: devices whose logins used it, as {conversation}
    trusted = {}, -- by device: array of {n, how} of the server keys that it trusts
    signs = {}, -- by server: array of {n, packet} of the keys that signed its replies
    identities = {}, -- by device: its "who I am" that were refused
    replies = {}, -- by device: the replies that it could not use
    tests = {}, -- by kind, device and modulus: a range test, and how many blocks are in it
    servers = {}, -- by server: devices that it refuses although it could read them, and logins that got through
  }, Places)
end

--- The entry of a list whose modulus is `n`, or nil.
local function with_modulus(list, n)
  for _, item in ipairs(list or {}) do
    if item.n == n then
      return item
    end
  end
  return nil
end

--- The table at a key of another one, made when it is new.
local function at(of, key)
  of[key] = of[key] or {}
  return of[key]
end

--- Adds a modulus to a list, unless it is there.
local function add_once(list, item)
  if not with_modulus(list, item.n) then
    list[#list + 1] = item
  end
end

local function server_of(conversation)
  return conversation.server.address .. ":" .. conversation.server.port
end

local function is_same_device(one, other)
  if one.device.id and other.device.id then
    return one.device.id == other.device.id
  end
  return one.device.address == other.device.address
end

--- Learns from one conversation. Returns whether it has told all that it can: what was refused counts only then.
function Places:look_at(c)
  c:refresh()
  local is_done = c.reached == "established" or c.closings[1] ~= nil or c.later ~= nil
  local device, server, secrets = c.device.address, server_of(c), c.secrets
  local identity, session = c:part("identity"), c:part("session")
  local found, offer = secrets.identity, secrets.offer
  local here = at(self.servers, server)
  if found and found.nonce_matches then
    add_once(at(self.trusted, device), {
      n = found.opened_by.n,
      how = fill(constants.rules.words.OPENED_IT, { packet = number(identity.packet) }),
    })
  end
  if offer and offer.signed_by then
    add_once(at(self.signs, server), { n = offer.signed_by.n, packet = session.packet })
  end
  if c.reached == "established" then
    if offer and offer.opened_by and not self:used_by(offer.opened_by, c) then
      local users = at(self.inside, offer.opened_by.n)
      users[#users + 1] = c
    end
    if offer and offer.signed_by then
      add_once(at(self.trusted, device), {
        n = offer.signed_by.n,
        how = fill(constants.rules.words.SIGNED_A_LOGIN, { packet = number(session.packet) }),
      })
    end
  elseif is_done and c.reached == "identity" then
    if identity.data then
      local blocks = at(self.identities, device)
      blocks[#blocks + 1] = identity.data
    end
    if c.closings[1] and found and found.nonce_matches then
      here.first = math.min(here.first or c.start_time, c.start_time)
      local who = found.device_id or device
      here.refused = (here.refused or 0) + (at(here, "devices")[who] and 0 or 1)
      here.devices[who] = true
    end
  end
  if c.reached == "established" or c.reached == "session" or c.reached == "hello" then
    here.worked = math.max(here.worked or c.start_time, c.start_time)
    if is_done and c.reached ~= "established" and session.data then
      local blocks = at(self.replies, device)
      blocks[#blocks + 1] = session.data:sub(1, SEALED_KEY_SIZE)
    end
  end
  return is_done
end

--- Learns from what is new since the last time.
function Places:learn(conversations)
  local open, kept = self.open, {}
  for index = self.learnt + 1, #conversations do
    open[#open + 1] = conversations[index]
  end
  self.learnt = #conversations
  for index, c in ipairs(open) do
    if not self:look_at(c) and #open - index < MOST_OPEN then
      kept[#kept + 1] = c
    end
  end
  self.open = kept
end

--- A login of this same device that used this key, or nil.
function Places:used_by(key, c)
  for _, other in ipairs(self.inside[key.n] or {}) do
    if is_same_device(other, c) then
      return other
    end
  end
  return nil
end

--- Whether this key is the key of another device: by a login of that device, or by its file's name.
function Places:elsewhere(key, c)
  if self:used_by(key, c) then
    return false
  end
  local is_named = false
  for _, id in ipairs(key.device_ids) do
    is_named = is_named or id == c.device.id
  end
  if c.device.id and key.device_ids[1] and not is_named then
    return true
  end
  return self.inside[key.n] ~= nil
end

--- Those of `keys` that may be the one inside this device. `own_words` is the key that the device itself offers.
function Places:candidates(keys, c, own_words)
  local left, by_name = {}, {}
  for _, key in ipairs(keys) do
    if own_words then
      if key.n == own_words.n then
        left[#left + 1] = key
      end
    elseif not self:elsewhere(key, c) then
      left[#left + 1] = key
      for _, id in ipairs(key.device_ids) do
        if id == c.device.id then
          by_name[#by_name + 1] = key
        end
      end
    end
  end
  return by_name[1] and by_name or left
end

--- Puts a public key to the range test on the blocks of one kind that a device could not use, or that were refused;
-- `own` is the block of the conversation that is judged.
function Places:test(kind, device, key, own)
  local name = kind .. device .. key.n
  local known = self.tests[name]
  if not known then
    known = { test = spark.RangeTest.new(key.n), blocks = 0 }
    self.tests[name] = known
  end
  local blocks = self[kind][device] or {}
  for index = known.blocks + 1, #blocks do
    known.test:add(blocks[index])
  end
  known.blocks = #blocks
  known.test:add(own)
  return known.test
end

--- Puts a few public keys to that test. Returns whether none of them can have been used, whether that is certain, and
-- on how many blocks it rests.
function Places:excludes(kind, device, keys, own)
  if not keys[1] or #keys > MOST_TESTED then
    return false
  end
  local is_sure, count = true, 0
  for _, key in ipairs(keys) do
    local test = self:test(kind, device, key, own)
    if not (test.excluded or test.unlikely) then
      return false
    end
    is_sure, count = is_sure and test.excluded, math.max(count, test.count)
  end
  return true, is_sure, count
end

local function places_of(trace)
  trace.places = trace.places or Places.new()
  trace.places:learn(trace.conversations)
  return trace.places
end

--- The device keys in files named after a device, as a server keeps them on file.
local function on_file(keys, device_id)
  local found = {}
  for _, key in ipairs(device_id and keys:keys_of_device(device_id) or {}) do
    if key.role == "device" then
      found[#found + 1] = key
    end
  end
  return found
end

--- Whether keys are on file for a device, and none of them is the one that it offers.
local function is_stale(filed, offered)
  return offered ~= nil and filed[1] ~= nil and with_modulus(filed, offered.n) == nil
end

rules.places = {
  base_name = base_name,
  file_of = file_of,
  names_of = names_of,
  with_modulus = with_modulus,
  server_of = server_of,
  on_file = on_file,
  is_stale = is_stale,
  places_of = places_of,
}
