-- RSA with numbers that are byte strings, highest byte first, and the PKCS#1 v1.5 block checks (PROTOCOL 2.2, 2.3).
--
-- It opens traffic that was captured; it is not constant-time and must never serve as somebody's live key.
--
-- Modulo an odd number, a number is an array of limbs, lowest first, multiplied by R = 2^(width * limbs), as
-- Montgomery has it. A multiplication adds up columns of products and carries only once, at its end, so a limb is as
-- wide as keeps the sum of a column exact: in doubles 23 bits for a 512-bit number, in the integers of Lua 5.3 on 28.
-- The columns are written out as local variables, as far as a function may have so many. Between two steps a number
-- may be up to four times the modulus; R is at least 16 times as large, so a product always ends below twice.

local constants = spark.constants
local load, unpack = loadstring or load, table.unpack or unpack
local byte, char, concat, floor = string.byte, string.char, table.concat, math.floor

local LEAST_PADDING = constants.rsa.LEAST_PADDING
local SMALLEST_MODULUS_BITS = constants.rsa.SMALLEST_MODULUS_BITS
local LARGEST_MODULUS_BITS = constants.rsa.LARGEST_MODULUS_BITS

local INTEGERS = math.type ~= nil
local EXACT = INTEGERS and 2 ^ 63 or 2 ^ 53 -- a sum of products stays below
local ROOM = 4 -- bits of R beyond those of the modulus
local MOST_LOCALS = 200 -- in one function, in every Lua
local OTHER_LOCALS = 12 -- of a multiplication, besides limbs: arguments, loop, the row's own
local LONG_EXPONENT = 64 -- bits; a shorter one does not repay the powers that a window needs
local WINDOW = 5 -- bits of a long exponent taken at once
local PLAIN_WIDTH = 20 -- bits of a limb where no modulus sets the width: 410 products and their carries stay exact

-- Numbers as bytes ---------------------------------------------------------------------------------------------

--- The number without leading zero bytes; "" is zero.
local function stripped(number)
  return number:sub(number:find("[\1-\255]") or #number + 1)
end

--- Length in bytes, leading zero bytes left out.
local function size(number)
  return #stripped(number)
end

--- Length in bits, from the highest bit that is set.
local function bit_length(number)
  number = stripped(number)
  local count, first = 8 * #number, byte(number) or 128
  while first < 128 do
    count, first = count - 1, first * 2
  end
  return count
end

--- Whether number `a` is less than number `b`. (The strings themselves compare in the order of some language.)
local function less(a, b)
  a, b = stripped(a), stripped(b)
  if #a ~= #b then return #a < #b end
  for at = 1, #a do
    local x, y = byte(a, at), byte(b, at)
    if x ~= y then return x < y end
  end
  return false
end

--- The number less one; it must not be zero.
local function less_one(number)
  local at = #number
  while byte(number, at) == 0 do at = at - 1 end
  return stripped(number:sub(1, at - 1) .. char(byte(number, at) - 1) .. ("\255"):rep(#number - at))
end

-- Numbers as limbs ---------------------------------------------------------------------------------------------

--- Limbs of `width` bits, lowest first: as many as the number takes, one at least, and zeros up to `count` if given.
local function limbs_of(number, width, count)
  local base = floor(2 ^ width)
  local limbs, used, sum, weight = {}, 0, 0, 1
  for at = #number, 1, -1 do
    sum = sum + byte(number, at) * weight
    weight = weight * 256
    if weight >= base then
      used = used + 1
      limbs[used] = sum % base
      -- Integers stay integers: one float among the limbs would make all that follows floats.
      sum, weight = floor(sum / base), floor(weight / base)
    end
  end
  if sum > 0 then
    used = used + 1
    limbs[used] = sum
  end
  for place = used + 1, count or 1 do limbs[place] = 0 end
  return limbs
end

--- The number of these limbs, each below 2^width.
local function number_of(limbs, width)
  local bytes, used, sum, weight = {}, 0, 0, 1
  local base = floor(2 ^ width)
  for place = 1, #limbs do
    sum = sum + limbs[place] * weight
    weight = weight * base
    while weight >= 256 do
      used = used + 1
      bytes[used] = char(sum % 256)
      sum, weight = floor(sum / 256), floor(weight / 256)
    end
  end
  bytes[used + 1] = char(sum)
  return stripped(concat(bytes):reverse())
end

--- Whether `a` is at least `b`; both have the same number of limbs.
local function reaches(a, b)
  for place = #a, 1, -1 do
    if a[place] ~= b[place] then return a[place] > b[place] end
  end
  return true
end

--- Take `b` from `a`, which must reach it.
local function subtract(a, b, base)
  local borrow = 0
  for place = 1, #a do
    local limb = a[place] - b[place] - borrow
    borrow = 0
    if limb < 0 then limb, borrow = limb + base, 1 end
    a[place] = limb
  end
end

--- Replace `a` by 2a + bit, less the modulus if it reaches that.
local function double(a, bit, modulus, base)
  local carry = bit
  for place = 1, #a do
    local limb = 2 * a[place] + carry
    carry = 0
    if limb >= base then limb, carry = limb - base, 1 end
    a[place] = limb
  end
  if reaches(a, modulus) then subtract(a, modulus, base) end
end

--- The number a * b + c.
local function product_and_sum(a, b, c)
  local x, y, columns = limbs_of(a, PLAIN_WIDTH), limbs_of(b, PLAIN_WIDTH), limbs_of(c, PLAIN_WIDTH)
  for place = #columns + 1, math.max(#columns, #x + #y) + 1 do columns[place] = 0 end
  for i = 1, #x do
    local limb = x[i]
    for j = 1, #y do columns[i + j - 1] = columns[i + j - 1] + limb * y[j] end
  end
  local base, carry = floor(2 ^ PLAIN_WIDTH), 0
  for place = 1, #columns do
    local sum = columns[place] + carry
    columns[place] = sum % base
    carry = floor(sum / base)
  end
  return number_of(columns, PLAIN_WIDTH)
end

--- The number modulo any number above zero, which may be even.
local function remainder(number, modulus)
  local x, n = limbs_of(number, PLAIN_WIDTH), limbs_of(modulus, PLAIN_WIDTH)
  local count, base = #n, floor(2 ^ PLAIN_WIDTH)
  n[count + 1] = 0
  local function estimate(limbs)
    local value = 0
    for place = count + 1, count - 2, -1 do value = value * 2 ^ PLAIN_WIDTH + (limbs[place] or 0) end
    return value
  end
  local divisor, rest = estimate(n), limbs_of("", PLAIN_WIDTH, count)
  for place = #x, 1, -1 do
    table.insert(rest, 1, x[place])
    -- One less than the estimate is never too much, and three times the modulus is the most that it leaves.
    local digit = math.max(0, floor(estimate(rest) / divisor) - 1)
    local carry = 0
    for column = 1, count + 1 do
      local limb = rest[column] - digit * n[column] + carry
      rest[column] = limb % base
      carry = floor(limb / base)
    end
    while reaches(rest, n) do subtract(rest, n, base) end
    rest[count + 1] = nil
  end
  return number_of(rest, PLAIN_WIDTH)
end

-- Numbers modulo an odd number -----------------------------------------------------------------------------------

--- Width and number of limbs for a modulus of that many bits: the widest limbs whose columns stay exact.
local function layout(bits)
  local count
  local width = 32
  repeat
    width = width - 1
    count = math.max(2, floor((bits + ROOM + width - 1) / width))
  until 2 * count * 2 ^ (2 * width) <= EXACT
  return width, count
end

--- Text that takes an exact sum apart: leaves its low limb; moves what is above down by a limb. (Lua works out the
--- power when it compiles. Printed here, the fraction would have the decimal comma of some languages.)
local function low_of(width) return INTEGERS and (" & %d"):format(2 ^ width - 1) or (" %% %d"):format(2 ^ width) end
local function high_of(width) return (INTEGERS and " >> " or " * 2 ^ -") .. width end

local function names(prefix, count)
  local list = {}
  for number = 1, count do list[number] = prefix .. number end
  return concat(list, ", ")
end

--- Text that carries between the columns t1, t2 and so on, and leaves limbs in `out`.
local function carried(width, count)
  local low, high = low_of(width), high_of(width)
  local lines = {}
  for column = 1, count - 1 do
    local carry = ("((t%d - sum)%s)"):format(column, high)
    local above = column + 1
    local onward = above < count and ("t%d = t%d + %s"):format(above, above, carry)
      or ("out[%d] = %s"):format(above, carry)
    lines[column] = ("sum = t%d%s; out[%d] = sum; "):format(column, low, column) .. onward
  end
  return concat(lines, "\n")
end

--- Text of a multiplication with the columns in local variables. So is the modulus, and then the second factor, where
--- there is room; the rest is read from the tables.
local function multiplication_in_locals(width, count)
  local low, high = low_of(width), high_of(width)
  local free = MOST_LOCALS - OTHER_LOCALS - (count - 1)
  local lines = {"local " .. names("t", count - 1) .. " = 0" .. (", 0"):rep(count - 2)}
  local function write(...) lines[#lines + 1] = concat({...}) end
  local n, b = "n[%d]", "b[%d]"
  if free >= count then
    n, free = "n%d", free - count
    write("local ", names("n", count), " = unpack(n, 1, ", count, ")")
  end
  if free >= count then
    b = "b%d"
    write("local ", names("b", count), " = unpack(b, 1, ", count, ")")
  end
  write("for i = 1, ", count, " do")
  write("local ai = a[i]")
  write("sum = t1 + ai * ", b:format(1))
  write("local m = (sum", low, ") * inverse", low)
  write("sum = (sum + m * ", n:format(1), ")", high)
  for column = 2, count do
    write("t", column - 1, " = ai * ", b:format(column), " + m * ", n:format(column),
      column < count and " + t" .. column or "", column == 2 and " + sum" or "")
  end
  write("end")
  write(carried(width, count))
  return concat(lines, "\n")
end

--- Text of a multiplication for a number of limbs that no function has locals for.
local function multiplication_in_tables(width, count)
  return (([[
    local t = {}
    for j = 1, COUNT do t[j] = 0 end
    for i = 1, COUNT do
      local ai = a[i]
      sum = t[1] + ai * b[1]
      local m = (sum LOW) * inverse LOW
      sum = (sum + m * n[1]) HIGH
      for j = 2, COUNT do t[j - 1] = t[j] + ai * b[j] + m * n[j] end
      t[1] = t[1] + sum
    end
    for j = 1, COUNT do
      sum = t[j] LOW
      out[j] = sum
      if j < COUNT then t[j + 1] = t[j + 1] + ((t[j] - sum) HIGH) end
    end
  ]]):gsub("%u%u+", {COUNT = ("%d"):format(count), LOW = low_of(width), HIGH = high_of(width)}))
end

--- Text of a squaring with all in local variables: each product of two limbs is made once and counts twice, so it is
--- three quarters of a multiplication. The upper columns wait in `out`.
local function squaring_in_locals(width, count)
  local low, high = low_of(width), high_of(width)
  local lines = {"local " .. names("a", count) .. " = unpack(a, 1, " .. count .. ")"}
  local function write(...) lines[#lines + 1] = concat({...}) end
  for column = 1, 2 * count - 1 do
    local products = {}
    for first = math.max(1, column + 1 - count), floor(column / 2) do
      products[#products + 1] = ("a%d * a%d"):format(first, column + 1 - first)
    end
    local middle = (column + 1) / 2
    write(column <= count and "local t" .. column or "out[" .. column - count .. "]", " = ",
      #products > 0 and "2 * (" .. concat(products, " + ") .. ")" or "0",
      column % 2 == 1 and (" + a%d * a%d"):format(middle, middle) or "")
  end
  write("out[", count, "] = 0")
  write("local ", names("n", count), " = unpack(n, 1, ", count, ")")
  write("for i = 1, ", count, " do")
  write("local m = (t1", low, ") * inverse", low)
  write("sum = (t1 + m * n1)", high)
  for column = 2, count do
    write("t", column - 1, " = t", column, " + m * n", column, column == 2 and " + sum" or "")
  end
  write("t", count, " = out[i]")
  write("end")
  write(carried(width, count))
  return concat(lines, "\n")
end

local loaded = {} -- text maker → limbs → what operation() made; a number of limbs goes with one width only

--- The function (a, b, n, inverse, out) that a text of the above makes. It leaves a * b / R modulo n in `out`, which
--- may be `a` or `b`; a squaring takes no `b`. One factor may be anything below R if the other is below twice the
--- modulus. `inverse` is -1/n modulo 2^width.
local function operation(text, width, count)
  local known = loaded[text] or {}
  loaded[text] = known
  if not known[count] then
    local opening = "local unpack = table.unpack or unpack\nreturn function(a, b, n, inverse, out)\nlocal sum\n"
    known[count] = assert(load(opening .. text(width, count) .. "\nend", "=montgomery"))()
  end
  return known[count]
end

local Field = {}
Field.__index = Field

--- Arithmetic modulo an odd number of 3 or more.
function Field.new(modulus)
  local length = bit_length(modulus)
  local width, count = layout(length)
  local base = floor(2 ^ width)
  local n = limbs_of(modulus, width, count)
  local inverse = 1
  for _ = 1, 5 do -- each step doubles the bits that are right; one is right at first
    inverse = inverse * (2 - n[1] * inverse % base) % base
  end
  local in_locals = OTHER_LOCALS + count - 1 <= MOST_LOCALS
  local field = setmetatable({
    width = width, count = count, base = base, n = n, inverse = base - inverse,
    product = operation(in_locals and multiplication_in_locals or multiplication_in_tables, width, count),
    unit = limbs_of("\1", width, count),
  }, Field)

  local one = limbs_of("", width, count) -- becomes R, which is how 1 looks
  one[floor(length / width) + 1] = floor(2 ^ (length % width))
  subtract(one, n, base)
  for _ = length + 1, width * count do double(one, 0, n, base) end
  field.one = one

  -- R * R, which brings any number into this form, is how R looks: 2, raised to the bits of R.
  local entry = {unpack(one)}
  local weight = 1
  while weight * 2 <= width * count do weight = weight * 2 end
  local left = width * count
  while weight >= 1 do
    field:multiply(entry, entry, entry)
    if left >= weight then
      left = left - weight
      double(entry, 0, n, base)
    end
    weight = weight / 2
  end
  field.entry = entry
  return field
end

function Field:multiply(a, b, out)
  self.product(a, b, self.n, self.inverse, out)
  return out
end

--- The number, of any size, in this form; below four times the modulus.
function Field:enter(number)
  local count, base = self.count, self.base
  local limbs = limbs_of(number, self.width)
  local result = limbs_of("", self.width, count)
  for from = floor((#limbs - 1) / count) * count, 0, -count do
    local part = {}
    for place = 1, count do part[place] = limbs[from + place] or 0 end
    self:multiply(part, self.entry, part)
    self:multiply(result, self.entry, result)
    local carry = 0
    for place = 1, count do
      local limb = result[place] + part[place] + carry
      carry = 0
      if limb >= base then limb, carry = limb - base, 1 end
      result[place] = limb
    end
  end
  return result
end

--- The number, below the modulus, that this form stands for.
function Field:leave(form)
  local limbs = self:multiply(form, self.unit, {})
  if reaches(limbs, self.n) then subtract(limbs, self.n, self.base) end
  return number_of(limbs, self.width)
end

--- a - b, where b is below four times the modulus; the result is below six times when a is below twice.
function Field:difference(a, b)
  local base, n, carry, result = self.base, self.n, 0, {}
  for place = 1, self.count do
    local limb = a[place] - b[place] + 4 * n[place] + carry
    local low = limb % base
    result[place] = low
    carry = floor((limb - low) / base)
  end
  return result
end

--- form ^ exponent, the exponent a number; below twice the modulus.
function Field:power(form, exponent)
  local product, n, inverse = self.product, self.n, self.inverse
  local bits, count = {}, 0
  for at = 1, #exponent do
    local value = byte(exponent, at)
    for _ = 1, 8 do
      value = value * 2
      count = count + 1
      bits[count] = value >= 256 and 1 or 0
      value = value % 256
    end
  end

  local window, squaring = 1, product
  if count > LONG_EXPONENT then
    window = WINDOW
    if OTHER_LOCALS + 3 * self.count <= MOST_LOCALS then
      squaring = operation(squaring_in_locals, self.width, self.count)
    end
  end
  local odd_powers = {form}
  local square = self:multiply(form, form, {})
  for odd = 3, 2 ^ window - 1, 2 do
    odd_powers[odd] = self:multiply(odd_powers[odd - 2], square, {})
  end

  local result = {unpack(self.one)}
  local at = 1
  while at <= count do
    local stop, value = at, bits[at]
    if value == 1 then
      stop = math.min(at + window - 1, count)
      while bits[stop] == 0 do stop = stop - 1 end
    end
    for place = at + 1, stop do value = 2 * value + bits[place] end
    for _ = at, stop do squaring(result, result, n, inverse, result) end
    if value > 0 then product(result, odd_powers[value], n, inverse, result) end
    at = stop + 1
  end
  return result
end

-- Keys -----------------------------------------------------------------------------------------------------------

--- Whether the numbers can be those of a key at all: else nothing is tried with them.
local function usable(n, e)
  local length = bit_length(n)
  return length >= SMALLEST_MODULUS_BITS and length <= LARGEST_MODULUS_BITS and byte(n, #n) % 2 == 1
    and less("\1", e) and less(e, n)
end

--- What the block of that many bytes holds behind its padding, and the padding; nil if it is not of this kind.
local function unpadded(number, block_size, kind)
  local block = ("\0"):rep(block_size - #number) .. number
  if block:sub(1, 2) ~= kind then return nil end
  local stop = block:find("\0", 3, true)
  if not stop or stop - 3 < LEAST_PADDING then return nil end
  return block:sub(stop + 1), block:sub(3, stop - 1)
end

local PublicKey = {}
PublicKey.__index = PublicKey

--- A public key of the numbers n and e. Fields: n, e, and `size`, the bytes of a block.
local function public_key(numbers)
  local n, e = stripped(numbers.n), stripped(numbers.e)
  return setmetatable({n = n, e = e, size = #n}, PublicKey)
end

--- Whether a block is one for this key: usable numbers, the length of the modulus, and below it.
function PublicKey:takes(block)
  return #block == self.size and usable(self.n, self.e) and less(block, self.n)
end

--- Arithmetic modulo n, made when it is first needed.
function PublicKey:field()
  self.modulo_n = self.modulo_n or Field.new(self.n)
  return self.modulo_n
end

--- Open a signature block: what was signed, or nil. It must be `00 01 | FF, 8 or more | 00 | content`. For a wrong key
--- that passes in less than one of 2^80 cases.
function PublicKey:open_signature(signature)
  if not self:takes(signature) then return nil end
  local field = self:field()
  local number = field:leave(field:power(field:enter(signature), self.e))
  local content, padding = unpadded(number, self.size, "\0\1")
  if not content or padding:find("[^\255]") then return nil end
  return content
end

local PrivateKey = {}
PrivateKey.__index = PrivateKey

--- A private key of the numbers n, e, d and, as far as known, p, q, dp, dq, qinv. Fields: these numbers without leading
--- zeros ("" for those not known), `size`, the bytes of a block, and `public`, the public key.
local function private_key(numbers)
  local key = {public = public_key(numbers)}
  for _, name in ipairs({"n", "e", "d", "p", "q", "dp", "dq", "qinv"}) do
    key[name] = stripped(numbers[name] or "")
  end
  key.size = key.public.size
  return setmetatable(key, PrivateKey)
end

--- Whether p and q are what they should be to n.
function PrivateKey:has_factors()
  return less("\2", self.p) and less("\2", self.q) and product_and_sum(self.p, self.q, "") == self.n
end

--- Whether all eight numbers fit each other, as they do in every undamaged key file.
function PrivateKey:consistent()
  if not self:has_factors() then return false end
  local below_p, below_q = less_one(self.p), less_one(self.q)
  return remainder(product_and_sum(self.e, self.dp, ""), below_p) == "\1"
    and remainder(product_and_sum(self.e, self.dq, ""), below_q) == "\1"
    and remainder(self.d, below_p) == self.dp
    and remainder(self.d, below_q) == self.dq
    and remainder(product_and_sum(self.qinv, self.q, ""), self.p) == "\1"
end

--- block ^ d modulo n by way of p and q (RFC 8017, 5.1.2), four times as fast as with d; nil if the numbers for it are
--- not there, or damaged.
function PrivateKey:by_remainders(block)
  if self.halves == nil then
    self.halves = self:has_factors() and less("", self.dp) and less(self.dp, self.p) and less("", self.dq)
      and less(self.dq, self.q) and remainder(product_and_sum(self.qinv, self.q, ""), self.p) == "\1"
      and {p = Field.new(self.p), q = Field.new(self.q)}
  end
  if not self.halves then return nil end
  local p, q, e = self.halves.p, self.halves.q, self.e
  local sealed_p, sealed_q = p:enter(block), q:enter(block)
  local at_p, at_q = p:power(sealed_p, self.dp), q:power(sealed_q, self.dq)
  -- Raising to e again is a small part of the work and catches every damaged number in the key file.
  if p:leave(p:power(at_p, e)) ~= p:leave(sealed_p) or q:leave(q:power(at_q, e)) ~= q:leave(sealed_q) then
    return nil
  end
  at_q = q:leave(at_q)
  local difference = p:difference(at_p, p:enter(at_q))
  return product_and_sum(self.q, p:leave(p:multiply(difference, p:enter(self.qinv), difference)), at_q)
end

--- block ^ d modulo n; nil if d and e do not belong together.
function PrivateKey:by_exponent(block)
  if not (less("", self.d) and less(self.d, self.n)) then return nil end
  local field = self.public:field()
  local sealed = field:enter(block)
  local opened = field:power(sealed, self.d)
  return field:leave(field:power(opened, self.e)) == field:leave(sealed) and field:leave(opened) or nil
end

--- Open an encryption block: the message (0 to size - 11 bytes), or nil for a wrong key, a block of another length or
--- not below the modulus, numbers that contradict each other, and any byte of `00 02 | 8 or more nonzero bytes | 00 |
--- message` that is not as it must be. A wrong key still passes about once in 10^5: judge the message, too.
function PrivateKey:open_block(ciphertext)
  if not self.public:takes(ciphertext) then return nil end
  local number = self:by_remainders(ciphertext) or self:by_exponent(ciphertext)
  return number and (unpadded(number, self.size, "\0\2")) or nil
end

spark.rsa = {private_key = private_key, public_key = public_key, size = size, less = less}
