-- From facts to findings: `judge` says what the packets taken so far tell about one conversation. Codes, severities and
-- confidences are those of the command line's report on the same packets.

local rules = spark.rules
local Facts, login, reply, running, capture, keys =
  rules.Facts, rules.login, rules.reply, rules.running, rules.capture, rules.keys

--- The rules about one conversation. Each returns a finding or nil; those that may have several put them into the array
-- that is their second argument.
local RULES = {
  capture.begun_midway,
  capture.one_way,
  capture.bytes_missing,
  capture.artefacts,
  login.never_answers,
  login.refused,
  login.something_else,
  login.silence,
  capture.other_protocol,
  login.wrong_nonce,
  login.nonce_not_answered,
  login.identity_in_pieces,
  login.refused_identity,
  reply.wrong_reply,
  reply.silent_after_reply,
  reply.dead_without_reply,
  reply.hello_not_answered,
  reply.slow,
  running.framing_lost,
  running.ping_unanswered,
  running.packets_lost,
  running.update_fails,
}

--- Whether a finding is to be shown before another; among equals, the rule that comes first has the word.
local function is_before(one, other)
  local before = rules.is_before(one, other)
  if before == nil then
    return one.place < other.place
  end
  return before
end

--- Judge a conversation by the packets taken so far. Returns findings, worst first: {code, severity, confidence,
-- summary, evidence (array of {text, packets}), because (behind the word of confidence), ruled_out (array of {code,
-- because}), packet (where it is best shown)}. `trace` has `last` (time of the capture's last packet), `conversations`
-- and `keys` (nil without any); `dialled_again` is the time at which the device began its next connection to this
-- server, and `conversation.later` its next connection to whatever server, if there is one.
local function judge(conversation, trace, dialled_again)
  conversation:refresh()
  local facts = Facts.new(conversation, trace, dialled_again)
  local findings, secrets = {}, trace.keys and conversation.secrets
  for _, rule in ipairs(RULES) do
    local found = rule(facts, findings) -- apart from the next line: it may have put others in before
    findings[#findings + 1] = found
  end
  if secrets then
    keys.add_proofs(facts, findings)
  end
  local is_bad = false
  for _, finding in ipairs(findings) do
    is_bad = is_bad or rules.BAD[finding.severity] ~= nil
  end
  local healthy = not is_bad and running.healthy(facts)
  if healthy then
    if secrets then
      keys.proof_of_health(secrets, healthy)
    end
    findings[#findings + 1] = healthy
  end
  findings[#findings + 1] = rules.device.left_open(facts, conversation.later)
  for place, finding in ipairs(findings) do
    finding.place = place
  end
  table.sort(findings, is_before)
  return findings
end

spark.judge = judge
