-- What the whole capture says: each device's story (a state, a sentence, how sure, what to do), and all of them in one.
-- States and sentences are those of the command line's report on the same packets.

local constants, wording = spark.constants, spark.wording
local rules = spark.rules
local fill, plural, listing, duration = wording.fill, wording.plural, wording.listing, wording.duration
local format, lower, sub = string.format, string.lower, string.sub
local concat, sort = table.concat, table.sort

local FINDINGS = constants.findings.FINDINGS
local CONFIDENCE_WORDS = constants.findings.CONFIDENCE_WORDS
local STATE_OF_GROUP = constants.findings.STATE_OF_GROUP
local NOT_CONNECTING, WORKING = STATE_OF_GROUP.connectivity, STATE_OF_GROUP.healthy
local CANNOT_TELL = constants.report.story.CANNOT_TELL
local CONNECTED = constants.report.story.CONNECTED
local NO_TRAFFIC = constants.report.story.NO_TRAFFIC
local TOO_LITTLE = constants.report.story.TOO_LITTLE
local CAPTURE_AGAIN = constants.report.story.CAPTURE_AGAIN
local REPEATED = constants.report.story.REPEATED
local NAMED = constants.report.several.NAMED
local EFFECTS = constants.causes.EFFECTS
local STEADY, LASTS = constants.histories.STEADY, constants.histories.LASTS

local BAD, UNSAID, SIDE_REMARK = rules.BAD, {}, {}
for _, code in ipairs(constants.report.story.UNSAID) do UNSAID[code] = true end
for place, code in ipairs(constants.report.story.SIDE_REMARKS) do SIDE_REMARK[code] = place end

-- -- the findings of one device --------------------------------------------------------------------------------------

--- Faults first, then what works, then remarks; remarks that are never a device's state come last.
local function drawer(finding)
  if BAD[finding.severity] then return 0 end
  if finding.severity == "ok" then return 1 end
  return 2 + (SIDE_REMARK[finding.code] or 0)
end

local function is_before(a, b)
  local one, other = a.finding, b.finding
  local place, behind = drawer(one), drawer(other)
  if place ~= behind then return place < behind end
  local before = rules.is_before(one, other)
  if before == nil then return one.code < other.code end
  return before
end

--- Puts a conversation's findings to those of its device: each code once, at its worst, with the conversations it is
-- of.
local function add_findings(story, conversation, findings)
  for _, finding in ipairs(findings) do
    local entry = story.by_code[finding.code]
    if not entry then
      entry = { finding = finding, exemplar = conversation, conversations = {} }
      story.by_code[finding.code] = entry
      story.findings[#story.findings + 1] = entry
    elseif is_before({ finding = finding }, entry) then
      entry.finding, entry.exemplar = finding, conversation
    end
    entry.conversations[#entry.conversations + 1] = conversation
  end
end

--- Which findings explain which others, as far as at least half of the connections of these show both.
local function explain(story)
  for _, cause in ipairs(story.findings) do
    local own = {}
    for _, conversation in ipairs(cause.conversations) do own[conversation] = true end
    local leads = BAD[cause.finding.severity] and cause.finding.confidence ~= "hint"
    for _, code in ipairs(leads and EFFECTS[cause.finding.code] or {}) do
      local effect, shared = story.by_code[code], 0
      for _, conversation in ipairs(effect and effect.conversations or {}) do
        if own[conversation] then shared = shared + 1 end
      end
      if effect and not effect.cause and 2 * shared >= #effect.conversations then effect.cause = cause end
    end
  end
end

--- Puts each cause before what it caused; otherwise the order stays.
local function causes_first(findings)
  local ordered, placed = {}, {}
  local function place(entry)
    if placed[entry] then return end
    if entry.cause then place(entry.cause) end
    placed[entry] = true
    ordered[#ordered + 1] = entry
  end
  for _, entry in ipairs(findings) do place(entry) end
  return ordered
end

--- The findings that answer "why": the faults, or without one everything but remarks on the capture.
local function said(story)
  local faults, others = {}, {}
  for _, entry in ipairs(story.findings) do
    if BAD[entry.finding.severity] then faults[#faults + 1] = entry end
    if not UNSAID[entry.finding.code] then others[#others + 1] = entry end
  end
  return #faults > 0 and faults or others
end

-- -- its story -------------------------------------------------------------------------------------------------------

local function why_unknown(story)
  local one_way = story.by_code.SPK702
  return one_way and one_way.finding.summary or TOO_LITTLE
end

--- What became of one connection: "worked", "failed", or nil where the capture cannot tell.
local function outcome_of(conversation, findings)
  local worked = conversation.midway and conversation.kind == "spark"
    and conversation:live_frames("device") > 0 and conversation:live_frames("server") > 0
  for _, finding in ipairs(findings) do
    if BAD[finding.severity] then return "failed" end
    worked = worked or finding.code == "SPK001"
  end
  return worked and "worked" or nil
end

--- The packet that shows first what became of a connection: a session fails at its end.
local function sign_of(attempt)
  local conversation = attempt.conversation
  if attempt.outcome == "worked" or conversation.reached ~= "established" then return conversation.first_packet end
  local closing = conversation.closings[1]
  return closing and closing.packet or conversation.last_packet
end

--- Attempts of one outcome that follow each other, as {outcome, count, first (its place among the judged)}.
local function runs_of(judged)
  local runs = {}
  for place, attempt in ipairs(judged) do
    local run = runs[#runs]
    if run and run.outcome == attempt.outcome then
      run.count = run.count + 1
    else
      runs[#runs + 1] = { outcome = attempt.outcome, count = 1, first = place }
    end
  end
  return runs
end

--- Whether the last run is a state of its own, and not one more of the changes to and fro.
local function is_steady(runs)
  if #runs == 2 or (#runs == 3 and runs[2].count > 1) then return true end
  local last, longest = runs[#runs], 0
  for place = #runs - 2, 1, -2 do longest = math.max(longest, runs[place].count) end
  return last.count >= STEADY and last.count >= LASTS * longest
end

--- Some connections worked and some failed.
local function tell_changes(story, summary)
  local judged, runs = story.judged, runs_of(story.judged)
  local last, steady = runs[#runs], is_steady(runs)
  local words = { failed = wording.number(story.failed), attempts = plural(#judged, "attempt"), summary = summary }
  if last.outcome == "worked" then
    story.state, story.mark = WORKING, "warns"
    words.packet = wording.number(judged[last.first].conversation.first_packet)
    if not steady then
      story.at_times, story.sentence = true, fill(constants.report.story.AT_TIMES_NOT_NOW, words)
      return
    end
    words.attempts = plural(story.failed, "attempt")
    story.sentence = fill(constants.report.story.LOGS_IN_NOW, words)
  elseif steady then
    local since = sign_of(judged[last.first])
    words.since = wording.number(since)
    words["until"] = wording.number(math.min(judged[last.first - 1].conversation.last_packet, since))
    story.sentence = story.sentence .. fill(constants.report.story.FAILS_NOW, words)
  else
    story.sentence = story.sentence .. fill(constants.report.story.AT_TIMES, words)
  end
end

--- Something fails, or did.
local function tell_fault(story, lead)
  local spec, own, came_up = FINDINGS[lead.finding.code], story.conversations, false
  for _, conversation in ipairs(lead.conversations) do
    came_up = came_up or conversation.reached == "established"
  end
  story.mark, story.sentence = "fails", lead.finding.summary
  -- What never came up cannot drop.
  story.state = came_up and STATE_OF_GROUP[spec.group] or NOT_CONNECTING
  if story.failed < #story.judged then
    tell_changes(story, lower(sub(lead.finding.summary, 1, 1)) .. sub(lead.finding.summary, 2))
  elseif #own > REPEATED and not came_up then
    story.sentence = story.sentence .. fill(constants.report.story.NO_SUCCESS, {
      attempts = plural(#own, "attempt"),
      span = duration(own[#own].end_time - own[1].start_time),
    })
  end
end

--- What the capture lacks of a device's conversations.
local function missing_from(story)
  local total, cut = 0, true
  for _, conversation in ipairs(story.conversations) do
    for _, hole in ipairs(conversation.holes) do
      total, cut = total + hole.length, cut and hole.reason == "cut"
    end
  end
  return fill(cut and constants.report.story.CUT_SHORT or constants.report.story.MISSES,
    { size = wording.size(total) })
end

--- It works, as far as the capture shows it.
local function tell_health(story, lead)
  story.state, story.mark, story.sentence = WORKING, "works", lead.finding.summary
  local one_way = story.by_code.SPK702
  if one_way then
    local sender = one_way.exemplar.sides.device.quality.packets > 0 and "device" or "server"
    story.sentence = fill(constants.report.story.ONE_WAY_WORKS, { sender = sender })
  elseif story.by_code.SPK703 then
    story.sentence = fill(constants.report.story.WORKS_DESPITE, { missing = missing_from(story) })
  end
end

local function tell(story)
  local lead = story.findings[1]
  local code = lead and lead.finding.code
  story.lead, story.mark = lead, "unknown"
  if lead and BAD[lead.finding.severity] then
    tell_fault(story, lead)
  elseif code == "SPK001" then
    tell_health(story, lead)
  elseif code == "SPK701" then
    story.state, story.sentence = CONNECTED, lead.finding.summary
    if lead.exemplar.reached == "established" then
      story.sentence = string.gsub(story.sentence, "%.$", "") .. constants.report.story.LOOKS_HEALTHY
    end
  elseif code == "SPK801" then
    story.state, story.sentence = NO_TRAFFIC, lead.finding.summary
  else
    story.state, story.sentence = CANNOT_TELL, why_unknown(story)
  end
end

--- How sure it is, with the reason: of the leading finding, and of one as grave that rests on something else.
local function how_sure(story, has_keys)
  local lead = story.lead
  if not lead or not (BAD[lead.finding.severity] or lead.finding.severity == "ok") then return "" end
  local words, given = {}, {}
  for _, entry in ipairs(said(story)) do
    local finding, because = entry.finding, entry.finding.because
    if #words < 2 and finding.severity == lead.finding.severity and because ~= "" and not given[because] then
      given[because] = true
      if #words == 0 then because = string.gsub(because, "^because ", "") end
      local joint = string.find(because, "^[,:]") and ""
        or (string.find(because, "^that ") or string.find(because, "^because ")) and " " or ": "
      words[#words + 1] = CONFIDENCE_WORDS[finding.confidence] .. joint .. because
    end
  end
  if #words == 0 then
    words[1] = CONFIDENCE_WORDS[lead.finding.confidence] .. "."
    if lead.finding.code == "SPK001" and not has_keys then words[2] = "Certain with the device's private key." end
  end
  if story.mark ~= "warns" then return concat(words, " ") end
  local now = story.by_code.SPK001.finding.confidence
  return format("%s that it works now. Before that: %s", CONFIDENCE_WORDS[now],
    lower(sub(words[1], 1, 1)) .. sub(words[1], 2))
end

--- The steps of a finding, with this device's names in them.
local function steps_of(entry)
  local conversation, steps = entry.exemplar, {}
  local words = { server = conversation.server.ip, port = format("%d", conversation.server.port), mac = "" }
  local id = conversation.device.id
  for place, text in ipairs(FINDINGS[entry.finding.code].fix) do
    text = fill(text, words)
    steps[place] = id and string.gsub(text, "DEVICE_ID", id) or text
  end
  return steps
end

--- What to do: about the fault, about the capture, or nothing.
local function steps_for(story)
  local lead = story.lead
  if story.mark == "fails" or story.at_times then
    -- Every fault has a remedy.
    return steps_of(said(story)[1])
  elseif story.mark == "warns" then
    return { constants.report.story.IF_IT_FAILS_AGAIN, "  sparkshark explain " .. lead.finding.code }
  elseif story.mark == "works" then
    -- It works, but something was in the way of seeing it.
    local hindered = story.by_code.SPK703 or story.by_code.SPK702
    return hindered and steps_of(hindered) or {}
  end
  if not lead or UNSAID[lead.finding.code] or #FINDINGS[lead.finding.code].fix == 0 then return CAPTURE_AGAIN end
  return steps_of(lead)
end

-- -- all devices ---------------------------------------------------------------------------------------------------

local function names_of(stories)
  if #stories > NAMED then return plural(#stories, "device") end
  local names = {}
  for place, story in ipairs(stories) do names[place] = story.address end
  return listing(names)
end

--- One sentence about one device among several.
local function sentence_of(story)
  local lead = story.lead
  if not lead then return story.address .. ": " .. story.sentence end
  local server = lead.exemplar.server
  local words = { server = server.ip, port = format("%d", server.port) }
  return format("%s %s.", story.address, fill(FINDINGS[lead.finding.code].of, words))
end

local function with_mark(stories, mark)
  local chosen = {}
  for _, story in ipairs(stories) do
    if story.mark == mark then chosen[#chosen + 1] = story end
  end
  return chosen
end

--- Whether all stories have the state of the first.
local function agree(stories)
  for _, story in ipairs(stories) do
    if story.state ~= stories[1].state then return false end
  end
  return true
end

local function sum_up_without_failure(verdict, stories, working)
  verdict.state = agree(stories) and stories[1].state or format("%d OF %d %s", #working, #stories, WORKING)
  local sentences = {}
  for _, story in ipairs(stories) do
    if story.mark ~= "works" and #sentences < 2 then sentences[#sentences + 1] = sentence_of(story) end
  end
  if #working > 0 then
    local does = constants.report.several.WORKS[#working > 1 and 2 or 1]
    sentences[#sentences + 1] = format("%s %s.", names_of(working), does)
  end
  verdict.sentence = concat(sentences, " ")
end

--- When (s) the failures began that a device ends with.
local function failing_since(story)
  local runs = runs_of(story.judged)
  return story.judged[runs[#runs].first].conversation.start_time
end

--- Whether a device works with one of these servers while another one fails; what worked before proves nothing.
local function works_beside(story, servers, since)
  for _, attempt in ipairs(story.judged) do
    local conversation = attempt.conversation
    if attempt.outcome == "worked" and conversation.end_time >= since and servers[conversation.server.ip] then
      return true
    end
  end
  return false
end

local function sum_up_failures(verdict, stories, failing, working)
  local first = failing[1]
  local what = agree(failing) and first.state or constants.report.several.FAILING
  verdict.state = #failing == #stories and what or format("%d OF %d %s", #failing, #stories, what)
  local sentences, same, here, beside = { sentence_of(first) }, {}, {}, {}
  for place = 2, #failing do
    if failing[place].lead.finding.code == first.lead.finding.code then same[#same + 1] = failing[place] end
  end
  if #same > 0 then sentences[2] = fill(constants.report.several.THE_SAME, { names = names_of(same) }) end
  local others = #failing - #same - 1
  if others == 1 then
    sentences[#sentences + 1] = constants.report.several.OTHER_WAY
  elseif others > 1 then
    sentences[#sentences + 1] = fill(constants.report.several.OTHER_WAYS, { devices = plural(others, "other device") })
  end
  for _, conversation in ipairs(first.conversations) do here[conversation.server.ip] = true end
  for _, story in ipairs(working) do
    if works_beside(story, here, failing_since(first)) then beside[#beside + 1] = story end
  end
  if #beside > 0 then
    local does = { names = names_of(beside), works = #beside == 1 and "works" or "work" }
    sentences[#sentences + 1] = fill(constants.report.several.SAME_SERVER, does)
  end
  verdict.sentence = concat(sentences, " ")
end

local MARK_ORDER = { fails = 1, warns = 2, unknown = 3, works = 4 }

--- Whether a story is to be told before another: worst first, equals as they come in the capture.
local function is_worse(one, other)
  if one.mark ~= other.mark then return MARK_ORDER[one.mark] < MARK_ORDER[other.mark] end
  local own, its, before = one.lead, other.lead, nil
  if own and its then
    before = rules.is_before(own.finding, its.finding)
  elseif own or its then
    before = own ~= nil
  end
  if before == nil then return one.number < other.number end
  return before
end

--- Tells the stories of all devices and sums them up. Returns {state, sentence, sure, stories (worst first: {address,
-- conversations, findings, state, mark, sentence, sure, steps})}, and the codes for each conversation.
local function verdict_of(analysis, has_keys)
  local stories, by_address, codes = {}, {}, {}
  for _, conversation in ipairs(analysis.trace.conversations) do
    local address = conversation.device.ip
    local story = by_address[address]
    if not story then
      story = {
        address = address,
        conversations = {},
        judged = {},
        failed = 0,
        findings = {},
        by_code = {},
        number = #stories,
      }
      by_address[address] = story
      stories[#stories + 1] = story
    end
    story.conversations[#story.conversations + 1] = conversation
    local findings, own = analysis:judge(conversation), {}
    for place, finding in ipairs(findings) do own[place] = finding.code end
    codes[conversation] = own
    add_findings(story, conversation, findings)
    local outcome = outcome_of(conversation, findings)
    if outcome then story.judged[#story.judged + 1] = { conversation = conversation, outcome = outcome } end
    if outcome == "failed" then story.failed = story.failed + 1 end
  end
  for _, story in ipairs(stories) do
    sort(story.findings, is_before)
    explain(story)
    story.findings = causes_first(story.findings)
    tell(story)
    story.sure, story.steps = how_sure(story, has_keys), steps_for(story)
  end
  sort(stories, is_worse)
  local worst = stories[1]
  local verdict = { state = worst.state, sentence = worst.sentence, sure = worst.sure, stories = stories }
  local failing, working = with_mark(stories, "fails"), with_mark(stories, "works")
  if #stories > 1 and #failing == 0 then
    sum_up_without_failure(verdict, stories, working)
  elseif #stories > 1 then
    sum_up_failures(verdict, stories, failing, working)
  end
  return verdict, codes
end

spark.verdict_of, spark.evidence_of = verdict_of, said
