-- What a device says about itself in a Describe answer (PROTOCOL 7.2): JSON made by a stranger.
--
-- Size and depth are checked before the JSON reader sees a byte, so that no text can make it slow or fail.
--
-- Values of JSON in Lua: text, booleans and numbers as they are; fractions, exponents and NaN as the text that stood
-- there (a description has no place for them); a list is an array; an object is { order = {keys}, fields = {key to
-- value} }, a repeated key keeping its first place and its last value; null is `spark.NULL`; and a whole number that
-- not every Lua can hold exactly is { digits = "36893488147419103232" }.

local constants = spark.constants
local to_text = spark.to_text
local LARGEST_DESCRIPTION = constants.messages.describe.LARGEST_DESCRIPTION
local DEEPEST_DESCRIPTION = constants.messages.describe.DEEPEST_DESCRIPTION
local MOST_DIGITS = constants.messages.describe.MOST_DIGITS
local PROBLEMS = constants.messages.describe.PROBLEMS
local MODULE_KEYS = constants.messages.describe.MODULE_KEYS
local LOCATIONS = constants.messages.describe.LOCATIONS
local FUNCTIONS = constants.messages.describe.FUNCTIONS
local METRICS_PREFIX = constants.message_table.METRICS_PREFIX
local PLATFORMS = constants.message_table.PLATFORMS
local VARIABLE_TYPES = constants.message_table.VARIABLE_TYPES

local byte, char, find, gsub, match, sub =
  string.byte, string.char, string.find, string.gsub, string.match, string.sub
local concat, floor = table.concat, math.floor

local NULL = {}

-- An object of JSON ----------------------------------------------------------------------------------------------

local function new_object()
  return { order = {}, fields = {} }
end

local function put(object, key, value)
  if object.fields[key] == nil then
    object.order[#object.order + 1] = key
  end
  object.fields[key] = value
end

local function is_object(value)
  return type(value) == "table" and value.order ~= nil
end

local function is_list(value)
  return type(value) == "table" and value ~= NULL and value.order == nil and value.digits == nil
end

-- The reader -----------------------------------------------------------------------------------------------------
-- Functions return the value and the byte behind it, or nil when there is none: the text is no JSON then.

local read_value

local WHITE = "^[ \t\n\r]*()"
local ESCAPES = {
  ['"'] = '"', ["\\"] = "\\", ["/"] = "/",
  b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}
local WORDS = {
  ["true"] = true, ["false"] = false, null = NULL, NaN = "NaN", Infinity = "Infinity", ["-Infinity"] = "-Infinity",
}

local function utf8(code)
  if code < 0x80 then
    return char(code)
  elseif code < 0x800 then
    return char(0xC0 + floor(code / 0x40), 0x80 + code % 0x40)
  elseif code < 0x10000 then
    return char(0xE0 + floor(code / 0x1000), 0x80 + floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
  end
  return char(
    0xF0 + floor(code / 0x40000),
    0x80 + floor(code / 0x1000) % 0x40,
    0x80 + floor(code / 0x40) % 0x40,
    0x80 + code % 0x40
  )
end

-- A lone surrogate ("\ud800") is legal JSON, but no text that could be written anywhere: it becomes a question mark.
-- Until an object is complete it stays what it is, since two keys may differ in nothing else.
local LONE = "\237[\160-\191][\128-\191]"

local function unescaped(text, at)
  local letter = sub(text, at, at)
  if letter ~= "u" then
    return ESCAPES[letter], at + 1
  end
  local digits = match(text, "^%x%x%x%x", at + 1)
  if not digits then
    return nil
  end
  local code = tonumber(digits, 16)
  at = at + 5
  if code >= 0xD800 and code < 0xDC00 then
    local low = tonumber(match(text, "^\\u([dD][c-fC-F]%x%x)", at) or "0", 16)
    if low > 0 then
      return utf8(0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00), at + 6
    end
  end
  return utf8(code), at
end

--- The text of a string whose first character is at `at`, lone surrogates as they are.
local function read_string(text, at)
  local pieces, count = {}, 0
  while true do
    local stop = find(text, '[%z\1-\031"\\]', at)
    local what = stop and byte(text, stop)
    if not what or what < 0x20 then
      return nil
    end
    count = count + 1
    pieces[count] = sub(text, at, stop - 1)
    if what == 0x22 then
      return concat(pieces), stop + 1
    end
    count = count + 1
    pieces[count], at = unescaped(text, stop + 1)
    if not at or not pieces[count] then
      return nil
    end
  end
end

local function read_list(text, at)
  local list, count = {}, 0
  at = match(text, WHITE, at)
  if sub(text, at, at) == "]" then
    return list, at + 1
  end
  while true do
    local value
    value, at = read_value(text, at)
    if value == nil then
      return nil
    end
    count = count + 1
    list[count] = value
    local mark
    mark, at = match(text, "^[ \t\n\r]*([],])()", at)
    if mark == "]" then
      return list, at
    elseif not mark then
      return nil
    end
  end
end

local function read_object(text, at)
  local object, lone = new_object(), false
  local first = match(text, "^[ \t\n\r]*}()", at)
  if first then
    return object, first
  end
  while true do
    local key, value, mark
    at = match(text, '^[ \t\n\r]*"()', at)
    if not at then
      return nil
    end
    key, at = read_string(text, at)
    at = key and match(text, "^[ \t\n\r]*:()", at)
    if not at then
      return nil
    end
    value, at = read_value(text, at)
    if value == nil then
      return nil
    end
    put(object, key, value)
    lone = lone or find(key, LONE) ~= nil
    mark, at = match(text, "^[ \t\n\r]*([},])()", at)
    if mark == "}" then
      break
    elseif not mark then
      return nil
    end
  end
  if not lone then
    return object, at
  end
  local written = new_object()
  for _, key in ipairs(object.order) do
    put(written, (gsub(key, LONE, "?")), object.fields[key])
  end
  return written, at
end

local function read_number(text, at)
  local whole, behind = match(text, "^(%-?%d+)()", at)
  if not whole then
    return nil
  end
  local digits = match(whole, "%d+")
  if byte(digits) == 0x30 and #digits > 1 then
    return nil
  end
  local fraction = match(text, "^%.%d+()", behind)
  local exponent = match(text, "^[eE][+-]?%d+()", fraction or behind)
  if fraction or exponent then
    behind = exponent or fraction
    return sub(text, at, behind - 1), behind
  elseif #digits > MOST_DIGITS then
    return nil
  elseif #digits > 15 then
    return { digits = whole }, behind
  end
  return tonumber(digits) * (#digits < #whole and digits ~= "0" and -1 or 1), behind
end

function read_value(text, at)
  at = match(text, WHITE, at)
  local first = sub(text, at, at)
  if first == '"' then
    local value, behind = read_string(text, at + 1)
    return value and (gsub(value, LONE, "?")), behind
  elseif first == "{" then
    return read_object(text, at + 1)
  elseif first == "[" then
    return read_list(text, at + 1)
  end
  local word = match(text, "^%-?%a+", at)
  if word and WORDS[word] ~= nil then
    return WORDS[word], at + #word
  end
  return read_number(text, at)
end

--- Whether brackets nest deeper than any description's do, judged without reading what is between them.
local function too_deep(payload)
  local depth, at = 0, find(payload, '["%[%]{}]')
  while at do
    local found = byte(payload, at)
    if found == 0x22 then
      at = find(payload, '["\\]', at + 1)
      while at and byte(payload, at) == 0x5C do
        at = find(payload, '["\\]', at + 2)
      end
      if not at then
        return false
      end
    elseif found == 0x5B or found == 0x7B then
      depth = depth + 1
      if depth > DEEPEST_DESCRIPTION then
        return true
      end
    else
      depth = depth - 1
    end
    at = find(payload, '["%[%]{}]', at + 1)
  end
  return false
end

--- The JSON object in `payload`, or nil and a phrase that says why there is none.
local function object_in(payload)
  if #payload > LARGEST_DESCRIPTION then
    return nil, PROBLEMS.too_long
  elseif too_deep(payload) then
    return nil, PROBLEMS.too_deep
  end
  local text = to_text(payload)
  local value, behind = read_value(text, 1)
  if value == nil or match(text, WHITE, behind) <= #text then
    return nil, PROBLEMS.not_json
  elseif not is_object(value) then
    return nil, PROBLEMS.no_object
  end
  return value
end

-- What it tells --------------------------------------------------------------------------------------------------

local function mapped(names, value)
  if type(value) == "string" and names[value] then
    return names[value]
  end
  return value
end

--- The objects of a list of modules or dependencies, with one-letter keys spelled out; unknown keys stay.
local function modules_in(list)
  local modules = {}
  for _, raw in ipairs(list) do
    if is_object(raw) then
      local module = new_object()
      for _, key in ipairs(raw.order) do
        put(module, MODULE_KEYS[key] or key, raw.fields[key])
      end
      local fields = module.fields
      fields.location = mapped(LOCATIONS, fields.location)
      fields["function"] = mapped(FUNCTIONS, fields["function"])
      if is_list(fields.dependencies) then
        fields.dependencies = modules_in(fields.dependencies)
      end
      modules[#modules + 1] = module
    end
  end
  return modules
end

local TOLD = { "functions", "variables", "platform_id", "platform", "modules", "other", "problem", "metrics" }

local function functions_in(list)
  local names = {}
  for _, name in ipairs(list) do
    if type(name) == "string" then
      names[#names + 1] = name
    end
  end
  return names
end

local function variables_in(object)
  local variables = new_object()
  for _, name in ipairs(object.order) do
    local number = object.fields[name]
    put(variables, name, type(number) == "number" and VARIABLE_TYPES[number] or number)
  end
  return variables
end

--- What a Describe answer tells: { functions (array of names), variables (object: name to type, or what stood in
-- place of one), platform_id, platform, modules (array of objects with readable keys), other (object of further
-- values), problem (why the rest is nil), metrics (true for a binary metrics answer) }. Second result: the keys.
local function read_description(payload)
  local told = { metrics = sub(payload, 1, #METRICS_PREFIX) == METRICS_PREFIX }
  if told.metrics then
    return told, TOLD
  end
  local content, problem = object_in(payload)
  if not content then
    told.problem = problem
    return told, TOLD
  end
  local fields = content.fields
  if is_list(fields.f) then
    told.functions = functions_in(fields.f)
  end
  if is_object(fields.v) then
    told.variables = variables_in(fields.v)
  end
  local platform = fields.p
  if type(platform) == "number" then
    told.platform_id, told.platform = platform, PLATFORMS[platform]
  elseif type(platform) == "table" and platform.digits then
    told.platform_id = platform
  end
  if is_list(fields.m) then
    told.modules = modules_in(fields.m)
  end
  local other = new_object()
  for _, key in ipairs(content.order) do
    if key ~= "f" and key ~= "v" and key ~= "p" and key ~= "m" then
      put(other, key, fields[key])
    end
  end
  told.other = #other.order > 0 and other or nil
  return told, TOLD
end

spark.NULL = NULL
spark.read_description = read_description
