-- SPK302, SPK304, SPK305, SPK308, and the proof of SPK203: the server refused "who I am" (SPK203, SPK204). Why?

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local number, plural = wording.number, wording.plural
local fill, saw, not_it = rules.fill, rules.saw, rules.not_it
local keyed = rules.places
local file_of, names_of, with_modulus, server_of =
  keyed.file_of, keyed.names_of, keyed.with_modulus, keyed.server_of

local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE

--- Whether the keys given look like a server's folder: files named after device ids.
local function is_registry(keys)
  for _, key in ipairs(keys.device_keys) do
    if key.device_ids[1] then
      return true
    end
  end
  return false
end

--- None of the private server keys opens it.
local function identity_stays_shut(case, say)
  local private, signs = case.keys.server_private, case.signs
  local because
  if signs then
    local mine
    for _, key in ipairs(private) do
      mine = mine or (with_modulus(signs, key.n) and key)
    end
    if not mine then
      return -- only that server's key would tell
    end
    local signed = with_modulus(signs, mine.n)
    because = fill(constants.rules.words.BECAUSE_SIGNED, { key = file_of(mine), packet = number(signed.packet) })
  elseif #private == 1 then
    because = fill(constants.rules.words.BECAUSE_IF_SERVER_KEY, { file = file_of(private[1]) })
  else
    because = constants.rules.words.BECAUSE_IF_AMONG_SERVER_KEYS
  end
  say("SPK302", "certain", {
    saw("Packet " .. number(case.part.packet) .. ": the " .. number(IDENTITY_SIZE) .. " bytes do not open with "
      .. names_of(private, "server key") .. ".", case.part.packet),
  }, { because = because, ruled_out = { not_it("SPK304", constants.rules.words.RULED_ID_UNREAD) } })
end

--- Public server keys exclude themselves when a block is not below their modulus (PROTOCOL 3.3).
local function identity_by_range(case, say)
  local keys = case.keys.server_keys
  local is_excluded, is_sure, count =
    case.places:excludes("identities", case.conversation.device.address, keys, case.part.data)
  if not is_excluded then
    return
  end
  local premise = #keys == 1 and fill(constants.rules.words.BECAUSE_IF_SERVER_KEY, { file = file_of(keys[1]) })
    or constants.rules.words.BECAUSE_IF_AMONG_SERVER_KEYS
  local which = names_of(keys, "server key")
  say("SPK302", is_sure and "certain" or "strong", {
    saw(plural(count, "attempt") .. " of this device: numbers that are not locked with " .. which .. ".",
      case.part.packet),
  }, {
    because = is_sure and premise
      or fill(constants.rules.words.BECAUSE_IDENTITY_UNLIKELY, { keys = which, premise = premise }),
  })
end

--- The server can read it. Does it know the device?
local function known_or_not(case, found, seen, not_302)
  local filed = keyed.on_file(case.keys, found.device_id)
  if keyed.is_stale(filed, found.device_key) then
    case.say("SPK304", "certain", {
      seen,
      saw("The device offers another key than " .. file_of(filed[1]) .. ", which is on file."),
    }, { because = fill(constants.rules.words.BECAUSE_IF_ON_FILE, { file = file_of(filed[1]) }), ruled_out = not_302 })
    return
  end
  local alike = case.places.servers[server_of(case.conversation)]
  if (alike.refused or 0) > 1 and not (alike.worked and alike.worked >= alike.first) then
    -- A lost folder of keys would look the same; that no device at all gets through is what matters.
    case.say("SPK308", filed[1] and "strong" or "likely", {
      seen,
      saw("All " .. number(alike.refused) .. " devices that call this server are refused like this."),
    }, { because = constants.rules.words.BECAUSE_ALL_ALIKE, ruled_out = not_302 })
    return
  end
  if filed[1] then
    case.say("SPK308", "likely", { seen, saw(file_of(filed[1]) .. " is on file for this device.") }, {
      summary = constants.rules.words.SAYS_KNOWN_AND_REFUSED,
      because = fill(constants.rules.words.BECAUSE_KNOWN_AND_REFUSED, { file = file_of(filed[1]) }),
      ruled_out = not_302,
    })
    return
  end
  case.say("SPK304", is_registry(case.keys) and "strong" or "likely", { seen },
    { because = constants.rules.words.BECAUSE_NOT_ON_FILE, ruled_out = not_302 })
end

--- The server's key opens it, so a server with this key could read it as well.
local function identity_opens(case, say, found)
  local key, part, signs = found.opened_by, case.part, case.signs
  local seen = saw("Packet " .. number(part.packet) .. " opens with " .. file_of(key) .. ": device "
    .. (found.device_id or "without ID") .. ".", part.packet)
  if signs and not with_modulus(signs, key.n) then
    say("SPK302", "certain", {
      seen,
      saw("This server's key is another one: it signed packet " .. number(signs[1].packet) .. ".", signs[1].packet),
    }, { because = fill(constants.rules.words.BECAUSE_LOCKED_FOR_OTHER, { key = file_of(key) }) })
    return
  end
  local not_302 = { not_it("SPK302", fill(constants.rules.words.RULED_SERVER_KEY_FITS, { key = file_of(key) })) }
  if #part.cuts > 1 and case.has("SPK203") then
    say("SPK203", "strong", { seen }, {
      because = constants.rules.words.BECAUSE_OPENED_PIECES,
      ruled_out = not_302,
      words = { how = fill(constants.rules.words.HOW_IN_PIECES, { pieces = #part.cuts }) },
    })
    return
  end
  if found.key_trouble then
    say("SPK305", "certain", {
      seen,
      saw("The public key that the device offers is " .. found.key_trouble .. "."),
    }, { because = constants.rules.words.BECAUSE_SHOWN, ruled_out = not_302 })
    return
  end
  local others = {}
  for _, other in ipairs(case.keys.server_private) do
    if other.n ~= key.n then
      others[#others + 1] = other
    end
  end
  if others[1] and not signs then
    local server = case.conversation.server.ip
    say("SPK302", "hint", { seen }, {
      because = fill(constants.rules.words.BECAUSE_OTHERS_KEY, {
        server = server,
        others = names_of(others, "other server key"),
      }),
    })
    say("SPK304", "hint", { seen }, {
      because = fill(constants.rules.words.BECAUSE_UNKNOWN_DEVICE, { server = server, key = file_of(key) }),
    })
    return
  end
  known_or_not(case, found, seen, not_302)
end

--- Says why, where the rules without keys have found that the server refused the identity.
local function identity_refused(case)
  local part, secrets, say = case.facts.identity, case.secrets, case.say
  if not part or not part.complete or not (case.has("SPK203") or case.has("SPK204")) or not part.data then
    return
  end
  if rules.login.identity_total(case.facts) > IDENTITY_SIZE then
    return -- SPK203: no key of this size has locked it, so what one makes of its first 256 bytes means nothing
  end
  local refused = case.has("SPK204")
  if refused and refused.because == constants.rules.words.BECAUSE_REFUSED_IDENTITY then
    refused.because = constants.rules.words.BECAUSE_REFUSED_WITH_KEY
  end
  case.part = part
  case.places = keyed.places_of(case.facts.trace)
  case.signs = case.places.signs[server_of(case.conversation)]
  if not case.keys.server_private[1] then
    identity_by_range(case, say)
  elseif not secrets.identity then
    if secrets.identity_tried >= #case.keys.server_private then -- else there were too many to try each
      identity_stays_shut(case, say)
    end
  elseif secrets.identity.nonce_matches ~= false then -- else a replay, or two connections taken for one
    identity_opens(case, say, secrets.identity)
  end
end

rules.identity_refused = identity_refused
