-- SPK301-306, SPK308, SPK509 and what else the given keys prove.
--
-- A key that does not open a block proves that this very key was not used, no more. What it means for the device rests
-- on a premise ("if core-a.der is the key inside this device"), which is said with it, unless the capture itself proves
-- it (Places). Keys explain what was seen, they never make a fault of it: nothing here speaks of a login that the rules
-- without keys do not call failed.

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local duration, number, packets, plural = wording.duration, wording.number, wording.packets, wording.plural
local apart, fill, saw, not_it = rules.apart, rules.fill, rules.saw, rules.not_it
local SENDERS = rules.SENDERS
local keyed = rules.places
local file_of, names_of, with_modulus = keyed.file_of, keyed.names_of, keyed.with_modulus
local is_less = spark.rsa.less

local SEALED_KEY_SIZE = constants.catalogue.SEALED_KEY_SIZE
local HANGS_UP = constants.rules.keys.session.HANGS_UP / 1e9
local LONG_ARGUMENT = constants.rules.keys.session.LONG_ARGUMENT
local IGNORES_REFUSALS = constants.messages.peers.IGNORES_REFUSALS
local EARLY_CORE = constants.messages.peers.G1A
local WRONG_KEY = constants.session.frames.TROUBLES.WRONG_KEY

--- What opened the session, by name.
local function source_of(secrets)
  return keyed.base_name(secrets.key_source or "a session key")
end

-- The device could not use the reply (SPK206, SPK207). Why? ----------------------------------------------------------

--- Whether the signature opens and yet is not one over these 128 bytes.
local function is_forged(offer)
  return offer.signature == "invalid" and offer.signed_by ~= nil and offer.signature_note ~= nil
    and (offer.signature_block_ok == false or offer.signature_note:find("HMAC", 1, true) ~= nil)
end

--- What proves that the signature is not that of the server which the device trusts; nil without a proof.
local function not_the_trusted_server(case)
  local offer, trusted = case.offer, case.trusted
  if offer.signature_block_ok == nil then
    return nil
  end
  local by_trusted = offer.signed_by and with_modulus(trusted, offer.signed_by.n) ~= nil
  if is_forged(offer) and (not trusted or by_trusted) then
    return offer.signature_note .. "."
  end
  if trusted then
    local key = case.keys:key_with_modulus(trusted[1].n)
    if by_trusted or not key then
      return nil
    end
    return fill(constants.rules.words.BECAUSE_TRUSTS, { key = file_of(key), how = trusted[1].how })
  end
  local sealed = case.facts.identity and case.facts.identity.data
  if offer.signed_by and sealed and not is_less(sealed, offer.signed_by.n) then
    return fill(constants.rules.words.BECAUSE_NOT_LOCKED, { key = file_of(offer.signed_by) })
  end
  return nil
end

--- What became of the sealed key of the reply.
local function first_block(case, what)
  return saw("Packet " .. number(case.packet) .. ": the first " .. number(SEALED_KEY_SIZE) .. " bytes " .. what .. ".",
    case.packet)
end

--- SPK303, for the reason given.
local function impostor(case, confidence, because, evidence)
  local opened_by = case.offer.opened_by
  case.say("SPK303", confidence, {
    evidence or saw("Packet " .. number(case.packet) .. ": the last 256 bytes are not signed by the server that this"
      .. " device trusts.", case.packet),
  }, {
    because = because,
    ruled_out = opened_by
      and { not_it("SPK301", fill(constants.rules.words.RULED_REPLY_OPENS, { key = file_of(opened_by) })) },
  })
end

--- Nothing is wrong with this key and this reply; so this key may not be the device's.
local function all_is_well(case, seen, key, is_readable)
  local signer, server_keys = case.offer.signed_by, case.keys.server_keys
  if case.offer.signature_block_ok == nil then
    return -- the device may also refuse the signature
  end
  if signer and not with_modulus(case.trusted, signer.n) and #server_keys > 1 then
    return -- which server key this device trusts is not known
  end
  case.say("SPK301", "likely", { seen }, {
    summary = fill(constants.rules.words.SAYS_LOCKED_FOR_OTHER, { file = file_of(key) }),
    because = fill(constants.rules.words.BECAUSE_HOLDS_OTHER, { file = file_of(key) }),
    ruled_out = is_readable
      and { not_it("SPK306", fill(constants.rules.words.RULED_READABLE, { keys = file_of(key) })) },
  })
end

--- The device key opens the reply here; yet the device did not go on.
local function reply_opens(case)
  local offer, key, server_keys = case.offer, case.offer.opened_by, case.keys.server_keys
  local seen = first_block(case, "open with " .. file_of(key))
  if case.identity and offer.identity_key_differs then
    case.say("SPK301", "certain", { seen }, {
      summary = fill(constants.rules.words.SAYS_LOCKED_FOR_OTHER, { file = file_of(key) }),
      because = constants.rules.words.BECAUSE_OFFERS_OTHER,
    })
    return
  end
  local proof = not_the_trusted_server(case)
  if proof then
    impostor(case, "certain", ": " .. proof, seen)
    return
  end
  if offer.signature_block_ok == false then
    impostor(case, "certain", #server_keys == 1
      and fill(constants.rules.words.PREMISE_ONE_SERVER_KEY, { file = file_of(server_keys[1]) })
      or constants.rules.words.PREMISE_AMONG_SERVER_KEYS, seen)
    return
  end
  local reading = case.keys:firmware_reading(key)
  if reading and not reading.ok then
    local offered = case.identity and case.identity.device_key
    case.say("SPK306", "certain", {
      seen,
      saw("The firmware misreads " .. file_of(key) .. ": " .. wording.listing(reading.differences) .. "."),
    }, {
      because = offered and offered.n == key.n and constants.rules.words.BECAUSE_OFFERS_THIS
        or fill(constants.rules.words.BECAUSE_IF_HELD, { file = file_of(key) }),
      ruled_out = { not_it("SPK301", constants.rules.words.RULED_PAIR) },
    })
    return
  end
  all_is_well(case, seen, key, reading ~= nil)
end

--- Public device keys exclude themselves when a reply is not below their modulus (PROTOCOL 3.3).
local function reply_by_range(case, own_words)
  local c, places = case.conversation, case.places
  local keys = { own_words }
  if not own_words then
    local public = {}
    for _, key in ipairs(case.keys.device_keys) do
      if not key.private then
        public[#public + 1] = key
      end
    end
    keys = places:candidates(public, c, nil)
  end
  local block = case.facts.session.data:sub(1, SEALED_KEY_SIZE)
  local is_excluded, is_sure, count = places:excludes("replies", c.device.address, keys, block)
  if not is_excluded then
    return
  end
  local premise = constants.rules.words.BECAUSE_IF_AMONG
  if own_words then
    premise = fill(constants.rules.words.PREMISE_OFFERED, { key = "" })
  elseif #keys == 1 then
    premise = fill(constants.rules.words.PREMISE_PUBLIC_HALF, { file = file_of(keys[1]) })
  end
  local whose = own_words and constants.rules.words.OWN_KEY or names_of(keys, "device key")
  case.say("SPK301", is_sure and "certain" or "strong", {
    saw(plural(count, "reply", "replies") .. " to this device: numbers that are not locked with " .. whose .. ".",
      case.packet),
  }, {
    because = is_sure and premise
      or fill(constants.rules.words.BECAUSE_REPLY_UNLIKELY, { keys = whose, premise = premise }),
  })
end

--- The key that does not open the reply is the device's: by what proof, or under what premise.
local function mismatch(case, candidates, own_words)
  local key, offer = candidates[1], case.offer
  local used = case.places:used_by(key, case.conversation)
  local because
  if own_words then
    because = fill(constants.rules.words.BECAUSE_SAYS_ITSELF, { key = file_of(key) })
  elseif used then
    because = fill(constants.rules.words.BECAUSE_LOGGED_IN_WITH, {
      file = file_of(key),
      packet = number(used.first_packet),
    })
  elseif #candidates == 1 then
    because = fill(constants.rules.words.BECAUSE_IF_INSIDE, { file = file_of(key), check = "" })
  else
    because = constants.rules.words.BECAUSE_IF_AMONG
  end
  case.say("SPK301", offer.untried > 0 and not own_words and "strong" or "certain", {
    first_block(case, "do not open with " .. names_of(candidates, "device key")),
  }, {
    because = because,
    ruled_out = offer.signed_by and offer.signature == "valid"
      and { not_it("SPK303", fill(constants.rules.words.RULED_SIGNATURE, { key = file_of(offer.signed_by) })) },
  })
end

--- No device key given opens the reply.
local function reply_stays_shut(case)
  local proof = not_the_trusted_server(case)
  local own_words = case.identity and case.identity.device_key
  local tried = case.keys.device_private
  local candidates = case.places:candidates(tried, case.conversation, own_words)
  if proof then
    impostor(case, "certain", ": " .. proof, first_block(case, "do not open with " .. names_of(tried, "device key")))
  end
  if not candidates[1] then
    reply_by_range(case, own_words)
    return
  end
  local is_sure = own_words ~= nil
  for _, key in ipairs(candidates) do
    is_sure = is_sure or case.places:used_by(key, case.conversation) ~= nil
  end
  -- Else the signature alone explains it; whether this is the device's key is then anybody's guess.
  if is_sure or not proof then
    mismatch(case, candidates, own_words)
  end
end

--- No private device key was given.
local function without_device_key(case)
  local proof = not_the_trusted_server(case)
  if proof then
    impostor(case, "certain", ": " .. proof)
  end
  local own_words = case.identity and case.identity.device_key
  local filed = keyed.on_file(case.keys, case.conversation.device.id)
  if keyed.is_stale(filed, own_words) then
    case.say("SPK301", "certain", {
      saw("The device offers another key than " .. file_of(filed[1]) .. ", which is on file.", case.packet),
    }, { because = fill(constants.rules.words.BECAUSE_IF_ON_FILE, { file = file_of(filed[1]) }) })
    return
  end
  reply_by_range(case, own_words)
  if not proof and case.offer.signature_block_ok == false then
    impostor(case, "likely",
      fill(constants.rules.words.BECAUSE_OTHER_SERVER, { keys = names_of(case.keys.server_keys, "server key") }))
  end
end

--- Says why, where the rules without keys have found that the device could not use the reply.
local function reply_not_used(case)
  local session, offer, identity = case.facts.session, case.secrets.offer, case.secrets.identity
  local silent = {}
  for _, finding in ipairs(case.findings) do
    if (finding.code == "SPK206" or finding.code == "SPK207") and finding.severity == "critical" then
      silent[#silent + 1] = finding
    end
  end
  if not silent[1] or not session or not offer then
    return
  end
  case.packet, case.offer, case.identity = session.packet, offer, identity
  if identity and identity.key_trouble then
    case.say("SPK305", "certain", {
      saw('The public key that the device offers in "who I am" is ' .. identity.key_trouble .. ".",
        case.facts.identity.packet),
    }, { because = constants.rules.words.BECAUSE_SHOWN })
    return
  end
  case.places = keyed.places_of(case.facts.trace)
  case.trusted = case.places.trusted[case.conversation.device.address]
  if offer.opened then
    reply_opens(case)
    for _, finding in ipairs(silent) do
      -- The key that opens it is on file; whether it is the device's is just what is in question.
      finding.because = constants.rules.words.BECAUSE_CANNOT_USE_IT
    end
  elseif offer.opened == false then
    reply_stays_shut(case)
  else
    without_device_key(case)
  end
end

-- Messages -----------------------------------------------------------------------------------------------------------

--- SPK208: is what the server did not answer a hello? If it opens, the fault is at the server.
local function hello_checked(case)
  local found, secrets = case.has("SPK208"), case.secrets
  if not found or not secrets.session_key then
    return
  end
  if secrets.hellos.device then
    found.confidence = "certain"
    found.because = fill(constants.rules.words.BECAUSE_HELLO_OPENS, { source = source_of(secrets) })
    return
  end
  if secrets.opened > 0 then
    return
  end
  for _, bad in ipairs(secrets.bad_frames) do
    if bad.sender == "device" then
      case.drop(found)
      case.say("SPK206", "strong", {
        saw("Packet " .. number(found.packet) .. " does not open under the key of this session ("
          .. source_of(secrets) .. "): it is no hello.", found.packet),
      }, {
        because = constants.rules.words.BECAUSE_CANNOT_USE_IT,
        ruled_out = { not_it("SPK208", fill(constants.rules.words.RULED_NO_HELLO, { packet = number(found.packet) })) },
      })
      return
    end
  end
end

--- SPK509: the device hangs up on a message that its firmware is known not to bear (PROTOCOL 5.2, 5.4.10).
local function hung_up_on_answer(case)
  local c, facts, reader = case.conversation, case.facts, case.secrets.reader
  local closing, last = facts.first_closing, c.last_server_message
  if not closing or closing.sender ~= "device" or facts.reached ~= "established" or not reader or not last
    or not reader.generation then
    return
  end
  local round_trip = c.connected and c.syns[1] and apart(c.connected.time, c.syns[1].time) or 0
  local waited = apart(closing.time, last.time)
  if waited < 0 or waited > HANGS_UP + round_trip then
    return
  end
  local why
  if last.code and last.code:find("^[45]") and not IGNORES_REFUSALS[reader.generation] then
    why = fill(constants.rules.words.HANGS_UP_ON_REFUSAL, { firmware = reader.firmware, code = last.code })
  elseif last.name == "FunctionCall" and #tostring(last.values.argument or "") >= LONG_ARGUMENT
    and reader.generation == EARLY_CORE then
    why = fill(constants.rules.words.HANGS_UP_ON_LONG, { firmware = reader.firmware, limit = LONG_ARGUMENT })
  else
    return
  end
  local label = spark.label(last)
  case.say("SPK509", "strong", {
    saw("Packet " .. number(last.packet) .. " is " .. label .. " from the server; the device hangs up "
      .. duration(waited) .. " later (" .. packets({ closing.packet }) .. ").", last.packet, closing.packet),
  }, { because = ": " .. why .. ".", words = { message = label } })
end

--- The first frame of a run that did not open and has no gap before it, or nil.
local function first_bad(secrets, sender, run)
  for _, bad in ipairs(secrets.bad_frames) do
    if bad.sender == sender and bad.position >= run.first and not bad.behind_gap then
      return bad.position < run.first + run.count and bad or nil
    end
  end
  return nil
end

--- SPK501: frames under a right key that are no messages, without a hole to explain it.
local function frames_do_not_open(case)
  local secrets, facts = case.secrets, case.facts
  if not secrets.bad_frames[1] or not secrets.session_key or facts.reached ~= "established" then
    return
  end
  for _, sender in ipairs(SENDERS) do
    local pattern = secrets.patterns[sender]
    for _, item in ipairs(pattern and pattern:troubles() or {}) do
      local bad = first_bad(secrets, sender, item.run)
      if bad then
        local goes_on = false
        for _, side in pairs(case.conversation.sides) do
          goes_on = goes_on or (side.last_data ~= nil and side.last_data.packet > bad.packet)
        end
        local values = { sender = sender, packet = number(bad.packet), source = source_of(secrets) }
        local says = item.trouble == WRONG_KEY and constants.rules.words.SAYS_NONE_OPENS
          or constants.rules.words.SAYS_OUT_OF_STEP
        case.say("SPK501", pattern.opened > 0 and "certain" or "strong", {
          saw("Packet " .. number(bad.packet) .. ": message " .. number(bad.position + 1) .. " from the " .. sender
            .. " does not open under the session key (" .. item.trouble .. ").", bad.packet),
        }, {
          summary = fill(says, values),
          because = pattern.opened > 0 and fill(constants.rules.words.BECAUSE_OTHERS_OPEN, values) or "",
          -- When both ends went on as if nothing had happened.
          severity = item.run.recovered and goes_on and "minor" or nil,
        })
        break
      end
    end
  end
end

-- All of it ----------------------------------------------------------------------------------------------------------

local EXPLAIN_SILENCE = {}
for _, code in ipairs(constants.rules.keys.EXPLAIN_SILENCE) do
  EXPLAIN_SILENCE[code] = true
end

--- Adds what the keys prove about one conversation to what was found without them (`findings`, an array).
local function add_proofs(facts, findings)
  local secrets = facts.conversation.secrets
  local case = {
    facts = facts,
    conversation = facts.conversation,
    secrets = secrets,
    keys = facts.trace.keys,
    findings = findings,
  }
  --- The finding of a code so far, or nil.
  function case.has(code)
    for index, finding in ipairs(findings) do
      if finding.code == code then
        return finding, index
      end
    end
    return nil
  end
  function case.drop(finding)
    local _, index = case.has(finding.code)
    table.remove(findings, index)
  end
  --- Adds a finding; one of the same code says the same with less.
  function case.say(...)
    local said = facts:finding(...)
    local _, index = case.has(said.code)
    findings[index or #findings + 1] = said
  end
  hello_checked(case)
  reply_not_used(case)
  rules.identity_refused(case)
  frames_do_not_open(case)
  hung_up_on_answer(case)
  local is_explained = false
  for _, finding in ipairs(findings) do
    is_explained = is_explained or EXPLAIN_SILENCE[finding.code] ~= nil
  end
  for _, finding in ipairs(findings) do
    if is_explained and (finding.code == "SPK206" or finding.code == "SPK207") then
      -- Which key it is, is now told by a finding that has tried them.
      finding.because = constants.rules.words.BECAUSE_CANNOT_USE_IT
    end
  end
end

--- Raises SPK001 to certain when both hellos open.
local function proof_of_health(secrets, finding)
  if secrets.hellos.device and secrets.hellos.server then
    finding.confidence = "certain"
    finding.because = fill(constants.rules.words.BECAUSE_BOTH_HELLOS, { source = source_of(secrets) })
  end
end

rules.keys = { add_proofs = add_proofs, proof_of_health = proof_of_health }
