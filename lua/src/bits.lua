-- Bit operations on 32-bit words, for whichever Lua this is.
--
-- Four ways exist, and each Lua has only some: operators of the language (5.3 on, a syntax error before), `bit32`
-- (5.2), `bit` (LuaJIT's library, which every Wireshark brings along), and nothing at all (plain 5.1). A cipher that
-- went through functions of ours would spend most of its time in calls, so ciphers are text in which a few macros
-- stand for the operations, and the text is expanded and loaded for the back end at hand:
--
--   XOR(a, b, ...)     any number of words           ADD(a, b, ...)          sum modulo 2^32, never negative
--   AND(a, b)                                        ROTATE(x, n)            to the left; x a variable, n a literal
--   SPLIT(x, a, b, c, d)  declares four locals: the bytes of the word x, highest first

local load = loadstring or load
local concat = table.concat

local WORD = 4294967296 -- one more than the largest word

--- The arguments of one macro call, parted at its outermost commas.
local function arguments_of(text)
  local arguments, depth, from = {}, 0, 1
  for at, sign in text:gmatch("()([(),])") do
    if sign == "(" then
      depth = depth + 1
    elseif sign == ")" then
      depth = depth - 1
    elseif depth == 0 then
      arguments[#arguments + 1] = text:sub(from, at - 1)
      from = at + 1
    end
  end
  arguments[#arguments + 1] = text:sub(from)
  return arguments
end

--- Expand each macro of a text, the inner ones first.
local function expand(text, macros)
  return (text:gsub("(%u%u%u+)(%b())", function(name, call)
    return macros[name](arguments_of(expand(call:sub(2, -2), macros)))
  end))
end

local OPERATOR_MACROS = {
  XOR = function(words) return "(" .. concat(words, " ~ ") .. ")" end,
  AND = function(words) return "(" .. concat(words, " & ") .. ")" end,
  ADD = function(words) return "((" .. concat(words, " + ") .. ") & 0xFFFFFFFF)" end,
  ROTATE = function(it) return ("((%s << %d | %s >> %d) & 0xFFFFFFFF)"):format(it[1], it[2], it[1], 32 - it[2]) end,
  SPLIT = function(it)
    return ("local %s, %s, %s, %s = X >> 24, X >> 16 & 255, X >> 8 & 255, X & 255")
      :format(it[2], it[3], it[4], it[5]):gsub("X", it[1])
  end,
}

--- Macros over the functions `band`, `bxor` and `rotate`. Bytes are taken out by arithmetic, which costs less than the
--- calls. `highest` finishes the top byte where words may be negative.
local function function_macros(highest)
  return {
    XOR = function(words) return "bxor(" .. concat(words, ", ") .. ")" end,
    AND = function(words) return "band(" .. concat(words, ", ") .. ")" end,
    ADD = function(words) return "((" .. concat(words, " + ") .. ") % 4294967296)" end,
    ROTATE = function(it) return "rotate(" .. it[1] .. ", " .. it[2] .. ")" end,
    SPLIT = function(it)
      local x, a, b, c, d = it[1], it[2], it[3], it[4], it[5]
      return concat({
        "local " .. d .. " = " .. x .. " % 256",
        "local " .. c .. "_ = (" .. x .. " - " .. d .. ") * 0.00390625",
        "local " .. c .. " = " .. c .. "_ % 256",
        "local " .. b .. "_ = (" .. c .. "_ - " .. c .. ") * 0.00390625",
        "local " .. b .. " = " .. b .. "_ % 256",
        "local " .. a .. " = (" .. b .. "_ - " .. b .. ") * 0.00390625" .. highest,
      }, " ")
    end,
  }
end

--- A back end: `band`, `bor`, `bxor`, `lshift`, `rshift` on two numbers of 0 to 2^32 - 1 (shifts by 0 to 31), with
--- results of the same range, and `compile(text, name)`, which runs a text with macros and returns what it returns.
--- `raw_band`, `raw_bxor` (any number of words) and `raw_rotate` may answer negative numbers.
local function backend_of(name, operations, macros, raw_band, raw_bxor, raw_rotate)
  operations.name = name
  operations.compile = function(text, chunk_name)
    local prelude = "local band, bxor, rotate = ... "
    return assert(load(prelude .. expand(text, macros), "=" .. chunk_name))(raw_band, raw_bxor, raw_rotate)
  end
  return operations
end

local makers = {}

function makers.native()
  local operations = load([[return {
    band = function(a, b) return a & b end,
    bor = function(a, b) return a | b end,
    bxor = function(a, b) return a ~ b end,
    lshift = function(a, n) return a << n & 0xFFFFFFFF end,
    rshift = function(a, n) return a >> n end,
  }]])
  return operations and backend_of("native", operations(), OPERATOR_MACROS)
end

function makers.bit32()
  local library = bit32
  if not library then return nil end
  local operations = {
    band = library.band, bor = library.bor, bxor = library.bxor, lshift = library.lshift, rshift = library.rshift,
  }
  return backend_of("bit32", operations, function_macros(""), library.band, library.bxor, library.lrotate)
end

function makers.bit()
  local library = bit
  if not library then return nil end
  local band, bor, bxor, lshift, rshift = library.band, library.bor, library.bxor, library.lshift, library.rshift
  local operations = {
    band = function(a, b) return band(a, b) % WORD end,
    bor = function(a, b) return bor(a, b) % WORD end,
    bxor = function(a, b) return bxor(a, b) % WORD end,
    lshift = function(a, n) return lshift(a, n) % WORD end,
    rshift = function(a, n) return rshift(a, n) % WORD end,
  }
  return backend_of("bit", operations, function_macros(" % 256"), band, bxor, library.rol)
end

function makers.arithmetic()
  local floor = math.floor
  local common = {} -- a * 16 + b → the bits that two hexadecimal digits have in common
  for a = 0, 15 do
    for b = 0, 15 do
      local sum, weight, x, y = 0, 1, a, b
      for _ = 1, 4 do
        if x % 2 + y % 2 == 2 then sum = sum + weight end
        x, y, weight = floor(x / 2), floor(y / 2), weight * 2
      end
      common[a * 16 + b] = sum
    end
  end
  local function band(a, b)
    local sum, weight = 0, 1
    while a > 0 and b > 0 do
      local x, y = a % 16, b % 16
      sum = sum + common[x * 16 + y] * weight
      a, b, weight = (a - x) / 16, (b - y) / 16, weight * 16
    end
    return sum
  end
  local function bxor(a, b, ...)
    local result = a + b - 2 * band(a, b)
    if ... then return bxor(result, ...) end
    return result
  end
  local operations = {
    band = band,
    bor = function(a, b) return a + b - band(a, b) end,
    bxor = bxor,
    lshift = function(a, n) return a * 2 ^ n % WORD end,
    rshift = function(a, n) return floor(a / 2 ^ n) end,
  }
  local function rotate(a, n)
    return a * 2 ^ n % WORD + floor(a / 2 ^ (32 - n))
  end
  return backend_of("arithmetic", operations, function_macros(""), band, bxor, rotate)
end

--- The back end of that name ("native", "bit32", "bit", "arithmetic"), or nil where this Lua has not got it.
local function backend(name)
  return makers[name]() or nil
end

-- The quickest first.
spark.bits = backend("native") or backend("bit32") or backend("bit") or backend("arithmetic")
spark.bits.backend = backend
