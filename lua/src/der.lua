-- The little of ASN.1 that key files need, and the five structures in which RSA keys come (PROTOCOL 8.1, 8.5).
--
-- Read leniently: a Photon's own keys are not minimal DER, and dumps have bytes behind the key. Lengths are followed,
-- values are taken as unsigned, and what is cut off is reported as far as it goes. Numbers stay big-endian strings:
-- a folder of a thousand keys needs no arithmetic before a handshake does.

local constants = spark.constants

local INTEGER = constants.keys.der.INTEGER
local BIT_STRING = constants.keys.der.BIT_STRING
local OCTET_STRING = constants.keys.der.OCTET_STRING
local OBJECT_ID = constants.keys.der.OBJECT_ID
local SEQUENCE = constants.keys.der.SEQUENCE
local EXPLICIT_0 = constants.keys.der.EXPLICIT_0
local RSA_ID = constants.keys.der.RSA_ID
local EC_ID = constants.keys.der.EC_ID
local PBES_IDS = constants.keys.der.PBES_IDS
local MOST_CHILDREN = constants.keys.der.MOST_CHILDREN
local LONGEST_LENGTH = constants.keys.der.LONGEST_LENGTH
local SMALLEST_MODULUS_BITS = constants.keys.structures.SMALLEST_MODULUS_BITS
local LARGEST_MODULUS_BITS = constants.rsa.LARGEST_MODULUS_BITS
local EC_POINT_SIZES = constants.keys.structures.EC_POINT_SIZES
local EXPONENT = constants.keys.model.EXPONENT

local less = spark.rsa.less
local byte, sub, find = string.byte, string.sub, string.find

-- Numbers as strings ---------------------------------------------------------------------------------------------

--- A big-endian number without its leading zeros; zero is the empty string.
local function trimmed(number)
  return sub(number, find(number, "[^%z]") or #number + 1)
end

--- Bits of a trimmed number.
local function bit_length(number)
  local first, bits = byte(number, 1) or 0, 0
  while first > 0 do
    first, bits = math.floor(first / 2), bits + 1
  end
  return bits + 8 * math.max(#number - 1, 0)
end

--- A small number as a trimmed string.
local function from_integer(value)
  local number = ""
  while value > 0 do
    local low = value % 256
    number, value = string.char(low) .. number, (value - low) / 256
  end
  return number
end

local ONE, DEFAULT_EXPONENT = from_integer(1), from_integer(EXPONENT)

-- Elements -------------------------------------------------------------------------------------------------------

--- The length that is written at offset `at`, and where the content starts; nil when that is not all there.
local function read_length(data, at, limit)
  local length, start = byte(data, at + 1), at + 1
  if length >= 0x80 then
    local count = length - 0x80
    if count < 1 or count > LONGEST_LENGTH or start + count > limit then
      return nil
    end
    length = 0
    for position = start + 1, start + count do
      length = length * 256 + byte(data, position)
    end
    start = start + count
  end
  return length, start
end

--- Read the element at offset `at`: {tag, at, start, stop, cut, length}, offsets into `data`; nil when not even its
--- header is there before `limit`. `length` is that of the whole element as it says itself, `cut` when that is more
--- than there is.
local function read_element(data, at, limit)
  limit = limit or #data
  if at + 2 > limit then
    return nil
  end
  local length, start = read_length(data, at + 1, limit)
  if not length then
    return nil
  end
  local stop = start + length
  return {
    tag = byte(data, at + 1),
    at = at,
    start = start,
    stop = math.min(stop, limit),
    cut = stop > limit,
    length = stop - at,
  }
end

--- The elements inside a constructed one, as far as they can be read.
local function children(data, parent)
  local found, at = {}, parent.start
  while at < parent.stop and #found < MOST_CHILDREN do
    local element = read_element(data, at, parent.stop)
    if not element then
      break
    end
    found[#found + 1] = element
    at = element.stop
  end
  return found
end

local function value_of(data, element)
  return sub(data, element.start + 1, element.stop)
end

local function number_of(data, element)
  return trimmed(value_of(data, element))
end

-- Structures -----------------------------------------------------------------------------------------------------

local function plausible(n)
  local bits = bit_length(n)
  return bits >= SMALLEST_MODULUS_BITS and bits <= LARGEST_MODULUS_BITS and byte(n, -1) % 2 == 1
end

local NUMBERS = { "n", "e", "d", "p", "q", "dp", "dq", "qinv" }

--- The private numbers, if there are eight and none is wider than the modulus: an absurd exponent in a damaged file
--- must not cost seconds.
local function private_numbers(numbers)
  if #numbers ~= #NUMBERS then
    return nil
  end
  local private = { n = numbers[1] }
  for index = 2, #NUMBERS do
    if not less(numbers[index], numbers[1]) then
      return nil
    end
    private[NUMBERS[index]] = numbers[index]
  end
  return private
end

local function pkcs1_private(data, outer, members)
  local numbers = {}
  for index = 2, math.min(#members, #NUMBERS + 1) do
    local member = members[index]
    if member.tag == INTEGER and not member.cut then
      numbers[#numbers + 1] = number_of(data, member)
    end
  end
  if #numbers == 0 and outer.cut then
    return { what = "pkcs1" }
  end
  if #numbers == 0 or not plausible(numbers[1]) then
    return nil
  end
  return {
    what = "pkcs1",
    n = numbers[1],
    e = numbers[2] or DEFAULT_EXPONENT,
    private = not outer.cut and private_numbers(numbers) or nil,
    pkcs1_at = outer.at,
  }
end

local function pkcs1_public(data, first, second)
  local n, e = number_of(data, first), number_of(data, second)
  if first.cut or second.cut or not plausible(n) or not less(ONE, e) or not less(e, n) then
    return nil
  end
  return { what = "pkcs1-public", n = n, e = e }
end

--- The object id that an algorithm's SEQUENCE begins with; nil without one.
local function algorithm_of(data, element)
  local first = children(data, element)[1]
  return first and first.tag == OBJECT_ID and value_of(data, first) or nil
end

local function pkcs8(data, members)
  local algorithm, sealed = algorithm_of(data, members[2]), members[3]
  if algorithm == EC_ID then
    return { what = "elliptic-curve" }
  end
  if algorithm ~= RSA_ID or not sealed or sealed.tag ~= OCTET_STRING then
    return nil
  end
  local inner = read_element(data, sealed.start, sealed.stop)
  if not inner or inner.tag ~= SEQUENCE then
    return nil
  end
  local found = pkcs1_private(data, inner, children(data, inner))
  if found then
    found.what = "pkcs8"
  end
  return found
end

local function spki(data, algorithm_element, key)
  local algorithm = algorithm_of(data, algorithm_element)
  if algorithm == EC_ID then
    return { what = "elliptic-curve" }
  end
  if algorithm ~= RSA_ID then
    return nil
  end
  -- The first byte of a BIT STRING counts unused bits; the key follows it.
  local inner = read_element(data, key.start + 1, key.stop)
  if not inner or inner.tag ~= SEQUENCE then
    return nil
  end
  if inner.cut then
    return { what = "spki" }
  end
  local numbers = children(data, inner)
  if #numbers < 2 or numbers[1].tag ~= INTEGER or numbers[2].tag ~= INTEGER then
    return nil
  end
  local found = pkcs1_public(data, numbers[1], numbers[2])
  if found then
    found.what = "spki"
  end
  return found
end

--- The public key in a certificate: version (explicit), serial, four SEQUENCEs, then the key.
local function certificate(data, signed)
  local members = children(data, signed)
  local first = members[1] and members[1].tag == EXPLICIT_0 and 2 or 1
  local serial, key = members[first], members[first + 5]
  if not key or serial.tag ~= INTEGER or key.tag ~= SEQUENCE then
    return nil
  end
  local inside = children(data, key)
  local found = inside[2] and spki(data, inside[1], inside[2])
  if not found then
    return { what = "certificate" }
  end
  if found.what == "spki" then
    found.what = "certificate"
  end
  return found
end

local function encrypted(data, scheme)
  local first = children(data, scheme)[1]
  for _, id in ipairs(PBES_IDS) do
    if first and sub(data, first.start + 1, math.min(first.start + #id, first.stop)) == id then
      return { what = "encrypted" }
    end
  end
  return nil
end

local function elliptic(secret)
  for _, size in ipairs(EC_POINT_SIZES) do
    if secret.stop - secret.start == size then
      return { what = "elliptic-curve" }
    end
  end
  return nil
end

--- Tell a structure by the tags of its first two members, never by a file's name.
local function by_members(data, outer, members)
  local first, second = members[1], members[2]
  if not second then
    return nil
  end
  if first.tag == INTEGER and second.tag == INTEGER then
    if first.stop - first.start <= 1 and number_of(data, first) == "" then
      return pkcs1_private(data, outer, members)
    end
    return #members == 2 and pkcs1_public(data, first, second) or nil
  elseif first.tag == INTEGER and second.tag == SEQUENCE then
    return pkcs8(data, members)
  elseif first.tag == INTEGER and second.tag == OCTET_STRING then
    return number_of(data, first) == ONE and elliptic(second) or nil
  elseif first.tag == SEQUENCE and second.tag == BIT_STRING then
    return spki(data, first, second)
  elseif first.tag == SEQUENCE and second.tag == OCTET_STRING then
    return encrypted(data, first)
  elseif first.tag == SEQUENCE and second.tag == SEQUENCE then
    return certificate(data, first)
  end
  return nil
end

--- Read the key structure at offset `at` (default 0); nil when there is none. It is {what, length, truncated, n, e,
--- private, pkcs1_at}: `what` is pkcs1, pkcs8, spki, pkcs1-public, certificate, elliptic-curve or encrypted;
--- `length` the whole structure's by its own header; n and e trimmed big-endian strings; `private` all eight numbers;
--- `pkcs1_at` where the bare PKCS#1 structure lies. A private key that is cut off may still show its modulus.
local function read_structure(data, at)
  at = at or 0
  local outer = read_element(data, at)
  if not outer or outer.tag ~= SEQUENCE then
    return nil
  end
  local found = by_members(data, outer, children(data, outer))
  if found then
    found.length, found.truncated = outer.length, outer.cut
  end
  return found
end

spark.der = {
  trimmed = trimmed,
  bit_length = bit_length,
  from_integer = from_integer,
  read_element = read_element,
  children = children,
  read_structure = read_structure,
}
