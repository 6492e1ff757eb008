-- sparkshark.lua: Wireshark plugin for the Spark Core and Particle Photon cloud protocol, version 0.1.0
-- Made by sparkshark from its own tables. Do not edit: change lua/src and generate it again.
-- Licence: GPL-2.0-or-later. Wireshark 3.6 to 4.6; Lua 5.1 to 5.4.

local spark = { version = "0.1.0" }

-- What follows up to the first part is data of the analyzer, by the name it has there.
spark.constants = {
  catalogue = {
    BLOCK = 16,
    CHUNK_FRAMES = { 274, 290, 530, 546 },
    CHUNK_SILENCE = 3.0,
    DEVICE_ID_SIZE = 12,
    DEVICE_READ_LIMIT = 20.0,
    HELLO_FRAMES = { 18, 34 },
    IDENTITY_SIZE = 256,
    LARGEST_FRAME = 1024,
    LENGTH_PREFIX = 2,
    NONCE_SIZE = 40,
    PING_AFTER = 15.0,
    PING_ANSWER_LIMIT = 10.0,
    SEALED_KEY_SIZE = 128,
    SERVER_LOGIN_LIMITS = { 10.0, 120.0 },
    SESSION_KEY_SIZE = 40,
    SESSION_SIZE = 384,
    SMALLEST_FRAME_ON_WIRE = 18,
    SPARK_PORT = 5683,
  },
  causes = {
    EFFECTS = {
      SPK105 = { "SPK101", "SPK102", "SPK103", "SPK104" },
      SPK106 = { "SPK101", "SPK102", "SPK103", "SPK104" },
      SPK203 = { "SPK204" },
      SPK301 = { "SPK206", "SPK207" },
      SPK302 = { "SPK204" },
      SPK303 = { "SPK206", "SPK207" },
      SPK304 = { "SPK204" },
      SPK305 = { "SPK206", "SPK207", "SPK204" },
      SPK306 = { "SPK206", "SPK207" },
      SPK308 = { "SPK204" },
      SPK501 = { "SPK503", "SPK508", "SPK509" },
      SPK502 = { "SPK508", "SPK509" },
      SPK504 = { "SPK503", "SPK508" },
      SPK505 = { "SPK503", "SPK508", "SPK601" },
      SPK506 = { "SPK503", "SPK505", "SPK508" },
      SPK507 = { "SPK508" },
      SPK509 = { "SPK508" },
    },
  },
  coap = {
    ACK = 2,
    ANOMALIES = {
      TRUNCATED = "ends inside the header or the token",
      BAD_VERSION = "version is not 1",
      RESERVED_TOKEN_LENGTH = "token length above 8",
      RESERVED_OPTION_NIBBLE = "option delta or length 15",
      OPTION_PAST_END = "an option runs past the end",
      OPTION_NUMBER_TOO_LARGE = "option number above 65535",
      EMPTY_WITH_BYTES = "code 0.00 with more than a header",
      EMPTY_ACK_WITH_TOKEN = "empty ACK with a token",
      EMPTY_PAYLOAD = "payload marker without a payload",
    },
    CODES = {
      ["0.00"] = 0,
      ["0.01"] = 1,
      ["0.02"] = 2,
      ["0.03"] = 3,
      ["0.04"] = 4,
      ["0.05"] = 5,
      ["0.06"] = 6,
      ["0.07"] = 7,
      ["0.08"] = 8,
      ["0.09"] = 9,
      ["0.10"] = 10,
      ["0.11"] = 11,
      ["0.12"] = 12,
      ["0.13"] = 13,
      ["0.14"] = 14,
      ["0.15"] = 15,
      ["0.16"] = 16,
      ["0.17"] = 17,
      ["0.18"] = 18,
      ["0.19"] = 19,
      ["0.20"] = 20,
      ["0.21"] = 21,
      ["0.22"] = 22,
      ["0.23"] = 23,
      ["0.24"] = 24,
      ["0.25"] = 25,
      ["0.26"] = 26,
      ["0.27"] = 27,
      ["0.28"] = 28,
      ["0.29"] = 29,
      ["0.30"] = 30,
      ["0.31"] = 31,
      ["1.00"] = 32,
      ["1.01"] = 33,
      ["1.02"] = 34,
      ["1.03"] = 35,
      ["1.04"] = 36,
      ["1.05"] = 37,
      ["1.06"] = 38,
      ["1.07"] = 39,
      ["1.08"] = 40,
      ["1.09"] = 41,
      ["1.10"] = 42,
      ["1.11"] = 43,
      ["1.12"] = 44,
      ["1.13"] = 45,
      ["1.14"] = 46,
      ["1.15"] = 47,
      ["1.16"] = 48,
      ["1.17"] = 49,
      ["1.18"] = 50,
      ["1.19"] = 51,
      ["1.20"] = 52,
      ["1.21"] = 53,
      ["1.22"] = 54,
      ["1.23"] = 55,
      ["1.24"] = 56,
      ["1.25"] = 57,
      ["1.26"] = 58,
      ["1.27"] = 59,
      ["1.28"] = 60,
      ["1.29"] = 61,
      ["1.30"] = 62,
      ["1.31"] = 63,
      ["2.00"] = 64,
      ["2.01"] = 65,
      ["2.02"] = 66,
      ["2.03"] = 67,
      ["2.04"] = 68,
      ["2.05"] = 69,
      ["2.06"] = 70,
      ["2.07"] = 71,
      ["2.08"] = 72,
      ["2.09"] = 73,
      ["2.10"] = 74,
      ["2.11"] = 75,
      ["2.12"] = 76,
      ["2.13"] = 77,
      ["2.14"] = 78,
      ["2.15"] = 79,
      ["2.16"] = 80,
      ["2.17"] = 81,
      ["2.18"] = 82,
      ["2.19"] = 83,
      ["2.20"] = 84,
      ["2.21"] = 85,
      ["2.22"] = 86,
      ["2.23"] = 87,
      ["2.24"] = 88,
      ["2.25"] = 89,
      ["2.26"] = 90,
      ["2.27"] = 91,
      ["2.28"] = 92,
      ["2.29"] = 93,
      ["2.30"] = 94,
      ["2.31"] = 95,
      ["3.00"] = 96,
      ["3.01"] = 97,
      ["3.02"] = 98,
      ["3.03"] = 99,
      ["3.04"] = 100,
      ["3.05"] = 101,
      ["3.06"] = 102,
      ["3.07"] = 103,
      ["3.08"] = 104,
      ["3.09"] = 105,
      ["3.10"] = 106,
      ["3.11"] = 107,
      ["3.12"] = 108,
      ["3.13"] = 109,
      ["3.14"] = 110,
      ["3.15"] = 111,
      ["3.16"] = 112,
      ["3.17"] = 113,
      ["3.18"] = 114,
      ["3.19"] = 115,
      ["3.20"] = 116,
      ["3.21"] = 117,
      ["3.22"] = 118,
      ["3.23"] = 119,
      ["3.24"] = 120,
      ["3.25"] = 121,
      ["3.26"] = 122,
      ["3.27"] = 123,
      ["3.28"] = 124,
      ["3.29"] = 125,
      ["3.30"] = 126,
      ["3.31"] = 127,
      ["4.00"] = 128,
      ["4.01"] = 129,
      ["4.02"] = 130,
      ["4.03"] = 131,
      ["4.04"] = 132,
      ["4.05"] = 133,
      ["4.06"] = 134,
      ["4.07"] = 135,
      ["4.08"] = 136,
      ["4.09"] = 137,
      ["4.10"] = 138,
      ["4.11"] = 139,
      ["4.12"] = 140,
      ["4.13"] = 141,
      ["4.14"] = 142,
      ["4.15"] = 143,
      ["4.16"] = 144,
      ["4.17"] = 145,
      ["4.18"] = 146,
      ["4.19"] = 147,
      ["4.20"] = 148,
      ["4.21"] = 149,
      ["4.22"] = 150,
      ["4.23"] = 151,
      ["4.24"] = 152,
      ["4.25"] = 153,
      ["4.26"] = 154,
      ["4.27"] = 155,
      ["4.28"] = 156,
      ["4.29"] = 157,
      ["4.30"] = 158,
      ["4.31"] = 159,
      ["5.00"] = 160,
      ["5.01"] = 161,
      ["5.02"] = 162,
      ["5.03"] = 163,
      ["5.04"] = 164,
      ["5.05"] = 165,
      ["5.06"] = 166,
      ["5.07"] = 167,
      ["5.08"] = 168,
      ["5.09"] = 169,
      ["5.10"] = 170,
      ["5.11"] = 171,
      ["5.12"] = 172,
      ["5.13"] = 173,
      ["5.14"] = 174,
      ["5.15"] = 175,
      ["5.16"] = 176,
      ["5.17"] = 177,
      ["5.18"] = 178,
      ["5.19"] = 179,
      ["5.20"] = 180,
      ["5.21"] = 181,
      ["5.22"] = 182,
      ["5.23"] = 183,
      ["5.24"] = 184,
      ["5.25"] = 185,
      ["5.26"] = 186,
      ["5.27"] = 187,
      ["5.28"] = 188,
      ["5.29"] = 189,
      ["5.30"] = 190,
      ["5.31"] = 191,
      ["6.00"] = 192,
      ["6.01"] = 193,
      ["6.02"] = 194,
      ["6.03"] = 195,
      ["6.04"] = 196,
      ["6.05"] = 197,
      ["6.06"] = 198,
      ["6.07"] = 199,
      ["6.08"] = 200,
      ["6.09"] = 201,
      ["6.10"] = 202,
      ["6.11"] = 203,
      ["6.12"] = 204,
      ["6.13"] = 205,
      ["6.14"] = 206,
      ["6.15"] = 207,
      ["6.16"] = 208,
      ["6.17"] = 209,
      ["6.18"] = 210,
      ["6.19"] = 211,
      ["6.20"] = 212,
      ["6.21"] = 213,
      ["6.22"] = 214,
      ["6.23"] = 215,
      ["6.24"] = 216,
      ["6.25"] = 217,
      ["6.26"] = 218,
      ["6.27"] = 219,
      ["6.28"] = 220,
      ["6.29"] = 221,
      ["6.30"] = 222,
      ["6.31"] = 223,
      ["7.00"] = 224,
      ["7.01"] = 225,
      ["7.02"] = 226,
      ["7.03"] = 227,
      ["7.04"] = 228,
      ["7.05"] = 229,
      ["7.06"] = 230,
      ["7.07"] = 231,
      ["7.08"] = 232,
      ["7.09"] = 233,
      ["7.10"] = 234,
      ["7.11"] = 235,
      ["7.12"] = 236,
      ["7.13"] = 237,
      ["7.14"] = 238,
      ["7.15"] = 239,
      ["7.16"] = 240,
      ["7.17"] = 241,
      ["7.18"] = 242,
      ["7.19"] = 243,
      ["7.20"] = 244,
      ["7.21"] = 245,
      ["7.22"] = 246,
      ["7.23"] = 247,
      ["7.24"] = 248,
      ["7.25"] = 249,
      ["7.26"] = 250,
      ["7.27"] = 251,
      ["7.28"] = 252,
      ["7.29"] = 253,
      ["7.30"] = 254,
      ["7.31"] = 255,
    },
    CODE_TEXTS = {
      "0.00",
      "0.01",
      "0.02",
      "0.03",
      "0.04",
      "0.05",
      "0.06",
      "0.07",
      "0.08",
      "0.09",
      "0.10",
      "0.11",
      "0.12",
      "0.13",
      "0.14",
      "0.15",
      "0.16",
      "0.17",
      "0.18",
      "0.19",
      "0.20",
      "0.21",
      "0.22",
      "0.23",
      "0.24",
      "0.25",
      "0.26",
      "0.27",
      "0.28",
      "0.29",
      "0.30",
      "0.31",
      "1.00",
      "1.01",
      "1.02",
      "1.03",
      "1.04",
      "1.05",
      "1.06",
      "1.07",
      "1.08",
      "1.09",
      "1.10",
      "1.11",
      "1.12",
      "1.13",
      "1.14",
      "1.15",
      "1.16",
      "1.17",
      "1.18",
      "1.19",
      "1.20",
      "1.21",
      "1.22",
      "1.23",
      "1.24",
      "1.25",
      "1.26",
      "1.27",
      "1.28",
      "1.29",
      "1.30",
      "1.31",
      "2.00",
      "2.01",
      "2.02",
      "2.03",
      "2.04",
      "2.05",
      "2.06",
      "2.07",
      "2.08",
      "2.09",
      "2.10",
      "2.11",
      "2.12",
      "2.13",
      "2.14",
      "2.15",
      "2.16",
      "2.17",
      "2.18",
      "2.19",
      "2.20",
      "2.21",
      "2.22",
      "2.23",
      "2.24",
      "2.25",
      "2.26",
      "2.27",
      "2.28",
      "2.29",
      "2.30",
      "2.31",
      "3.00",
      "3.01",
      "3.02",
      "3.03",
      "3.04",
      "3.05",
      "3.06",
      "3.07",
      "3.08",
      "3.09",
      "3.10",
      "3.11",
      "3.12",
      "3.13",
      "3.14",
      "3.15",
      "3.16",
      "3.17",
      "3.18",
      "3.19",
      "3.20",
      "3.21",
      "3.22",
      "3.23",
      "3.24",
      "3.25",
      "3.26",
      "3.27",
      "3.28",
      "3.29",
      "3.30",
      "3.31",
      "4.00",
      "4.01",
      "4.02",
      "4.03",
      "4.04",
      "4.05",
      "4.06",
      "4.07",
      "4.08",
      "4.09",
      "4.10",
      "4.11",
      "4.12",
      "4.13",
      "4.14",
      "4.15",
      "4.16",
      "4.17",
      "4.18",
      "4.19",
      "4.20",
      "4.21",
      "4.22",
      "4.23",
      "4.24",
      "4.25",
      "4.26",
      "4.27",
      "4.28",
      "4.29",
      "4.30",
      "4.31",
      "5.00",
      "5.01",
      "5.02",
      "5.03",
      "5.04",
      "5.05",
      "5.06",
      "5.07",
      "5.08",
      "5.09",
      "5.10",
      "5.11",
      "5.12",
      "5.13",
      "5.14",
      "5.15",
      "5.16",
      "5.17",
      "5.18",
      "5.19",
      "5.20",
      "5.21",
      "5.22",
      "5.23",
      "5.24",
      "5.25",
      "5.26",
      "5.27",
      "5.28",
      "5.29",
      "5.30",
      "5.31",
      "6.00",
      "6.01",
      "6.02",
      "6.03",
      "6.04",
      "6.05",
      "6.06",
      "6.07",
      "6.08",
      "6.09",
      "6.10",
      "6.11",
      "6.12",
      "6.13",
      "6.14",
      "6.15",
      "6.16",
      "6.17",
      "6.18",
      "6.19",
      "6.20",
      "6.21",
      "6.22",
      "6.23",
      "6.24",
      "6.25",
      "6.26",
      "6.27",
      "6.28",
      "6.29",
      "6.30",
      "6.31",
      "7.00",
      "7.01",
      "7.02",
      "7.03",
      "7.04",
      "7.05",
      "7.06",
      "7.07",
      "7.08",
      "7.09",
      "7.10",
      "7.11",
      "7.12",
      "7.13",
      "7.14",
      "7.15",
      "7.16",
      "7.17",
      "7.18",
      "7.19",
      "7.20",
      "7.21",
      "7.22",
      "7.23",
      "7.24",
      "7.25",
      "7.26",
      "7.27",
      "7.28",
      "7.29",
      "7.30",
      "7.31",
    },
    CON = 0,
    EMPTY = 0,
    HARMLESS = { ["empty ACK with a token"] = true, ["payload marker without a payload"] = true },
    HEADER_SIZE = 4,
    LARGEST_OPTION_NUMBER = 65535,
    LONGEST_REMEMBERED_RUN = 64,
    LONGEST_TOKEN = 8,
    MAX_AGE = 14,
    NON = 1,
    PAYLOAD_MARKER = 255,
    REMEMBERED_RUNS = 2048,
    RST = 3,
    TYPE_NAMES = { "CON", "NON", "ACK", "RST" },
    URI_PATH = 11,
    URI_QUERY = 15,
  },
  conversation = {
    CLOSINGS = 8,
    DEAD_FRAMES = 1000,
    EARLY_ACKS = 64,
    HOLES = 1000,
    LAST_FRAMES = 12,
    OVERTAKEN = 65536,
    SYNS = 32,
  },
  copies = { COPIES = 64, COPY_NS = 1000000, COPY_WITH_ID_NS = 1000000000 },
  deadkey = {
    AS_CHAIN = "chain",
    AS_CONSTANT = "constant",
    BOOT_SEQUENCES = {
      { {}, { "ping" } },
      { { "time request" }, { "ping" } },
      { { "time request", "event" }, { "ping" } },
      { {}, { "time request" } },
      { {}, { "time request", "ping" } },
      { {}, { "time request", "event" } },
      { {}, { "time request", "event", "ping" } },
    },
    CHAIN_LENGTH = 64,
    COAP_VERSION = 1,
    FIRST_BLOCK_HEADS = { ping = "@\000", ["time request"] = "A\001", event = "P\002" },
    FIRST_BLOCK_RESTS = {
      ping = "\012\012\012\012\012\012\012\012\012\012\012\012",
      ["time request"] = "\177t\009\009\009\009\009\009\009\009\009",
      event = "\177E\013\013spark/cc",
    },
    GET = 1,
    MOST_DEVICES = 4096,
    PING = "ping",
    POST = 2,
    TIME_REQUEST = "time request",
    UNASKED_GETS = { ["\177t"] = "time request", ["\177e"] = "subscription" },
    UNASKED_POSTS = { ["\177e"] = "event", ["\177E"] = "event" },
    UNDER_EARLIER_KEY = "key of an earlier session",
    UNDER_ZERO_KEY = "zero key",
    ZERO_IV = "\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000",
    ZERO_KEY = "\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000",
  },
  decryption = { BAD_FRAMES = 32, KEY_GIVEN = "the session key given", KEY_LOGGED = "the key log", PROOF = 4, QUEUED = 512 },
  findings = {
    BAD = { "critical", "major" },
    CONFIDENCE_ORDER = { "certain", "strong", "likely", "hint" },
    CONFIDENCE_WORDS = { certain = "Certain", strong = "Very likely", likely = "Likely", hint = "Only a hint" },
    FINDINGS = {
      SPK001 = {
        code = "SPK001",
        name = "healthy-session",
        severity = "ok",
        group = "healthy",
        title = "The session works",
        short = "A working session",
        says = "The device logs in and stays connected. If something does not work, the cause is elsewhere: the program on the device, claiming, or an access token.",
        of = "logs in and stays connected",
        means = "Greeting, \"who I am\", reply and both hellos are there. A server says hello only after it has opened the device's hello, so both have the same session key.",
        looks = "40, 256 and 384 bytes, then frames of legal length both ways; when idle, 18 bytes from the device every 15 s, answered by 18 bytes.",
        led = "breathing cyan",
        fix = {},
        causes = {},
        settle = "--device-key FILE opens the messages and makes it certain.",
        not_it = { { "SPK701", "the login is not in the capture" } },
        engineer = "M1 to M5 complete; the first server frame is the key-free proof.",
        specific = 0,
        source = "DIAGNOSES SPK001; PROTOCOL 2.1",
      },
      SPK101 = {
        code = "SPK101",
        name = "server-never-answers",
        severity = "critical",
        group = "connectivity",
        title = "Nothing answers at the server's address",
        short = "Network, firewall",
        says = "Nothing answers at {server} port {port}. No key can cause this.",
        of = "gets no answer from {server}",
        means = "The device asks to connect and gets neither an answer nor a refusal. Something on the way drops the packets, or the server is switched off.",
        looks = "SYN, repeated with growing pauses; no SYN-ACK, no RST.",
        led = "blinking cyan, then 2 blinks (no internet) or 3 blinks (cloud unreachable)",
        fix = {
          "On a computer in the same Wi-Fi:  nc -vz {server} {port}",
          "\194\183 Windows: Test-NetConnection {server} -Port {port}",
          "It fails too: try the device on a phone hotspot. If it works there, let TCP {port} OUT in the router. Nothing has to be let in.",
          "It succeeds: only this device is blocked (MAC filter?).",
        },
        causes = { "a firewall drops TCP 5683", "the server is off", "a stale local address in the device" },
        settle = "An ICMP refusal in the capture, or the test from a computer beside the device.",
        not_it = {
          { "SPK702", "then the device's own answers to packets that are not in the capture show" },
          { "SPK102", "a refusal is an answer: a RST is in the capture" },
          { "SPK105", "the name is not found, and the built-in address is dialled" },
          { "SPK106", "the device dials a place where no Spark server ever was, or is no longer" },
        },
        engineer = "SYN retransmission without SYN-ACK; ICMP type 3 makes it certain and names who said so.",
        specific = 0,
        source = "DIAGNOSES SPK101",
      },
      SPK102 = {
        code = "SPK102",
        name = "connection-refused",
        severity = "critical",
        group = "connectivity",
        title = "The connection is refused",
        short = "Refused, nothing listening",
        says = "{server} refuses the connection on port {port}: the address answers, but nothing listens there, or a firewall says no.",
        of = "is refused by {server}",
        means = "The request to connect was answered with a RST, or the connection was cut off before a byte came.",
        looks = "SYN, then RST; or SYN-ACK and a RST from the server's side before any data.",
        led = "3 blinks",
        fix = {
          "Own server: is it running, and on the network's address, not only on localhost?",
          "  ss -ltnp | grep {port}",
          "In a container: is port {port} published?",
          "Compare address and port with what the device has stored:",
          "  particle keys address",
        },
        causes = { "the server program is not running", "it listens on another address or port", "a firewall rejects" },
        settle = "A RST with another time-to-live than the server's SYN-ACK comes from a firewall.",
        not_it = {
          { "SPK204", "there the connection ends after \"who I am\"" },
          { "SPK104", "a FIN instead of a RST" },
          { "SPK101", "there neither an answer nor a refusal comes" },
          { "SPK106", "the refusal comes from a place where no Spark server belongs" },
        },
        engineer = "RST to SYN, or RST from the server's side before the first byte.",
        specific = 0,
        source = "DIAGNOSES SPK102",
      },
      SPK103 = {
        code = "SPK103",
        name = "something-else-answered",
        severity = "critical",
        group = "connectivity",
        title = "Something else answers on this port",
        short = "Login page, proxy",
        says = "{service} answers in place of the Spark server.",
        of = "meets another service in place of the Spark server",
        means = "The first bytes from the server's side are not the 40 random bytes of a greeting. The device takes any 40 bytes for a greeting and goes on, so only a capture shows it.",
        looks = "Readable text or a TLS record where the greeting belongs.",
        led = "fast cyan, red",
        fix = {
          "In a Wi-Fi with a login page: have its operator let the device through without login{mac}, or use another Wi-Fi.",
          "Own server: compare address and port:",
          "  particle keys address",
        },
        causes = { "a captive portal", "the port of another service", "a proxy that speaks first" },
        settle = "The bytes themselves; no key.",
        not_it = {
          { "SPK801", "there the device's side speaks first" },
          { "SPK104", "a portal that waits stays silent" },
          { "SPK201", "random bytes, but not 40 of them" },
        },
        engineer = "At least 95 % of the first 40 bytes printable, or a known first word; a nonce never is.",
        specific = 1,
        source = "DIAGNOSES SPK103",
      },
      SPK104 = {
        code = "SPK104",
        name = "accepted-then-silence",
        severity = "critical",
        group = "connectivity",
        title = "The connection is accepted, then nothing comes",
        short = "Silent server",
        says = "{server} accepts the connection but never sends its greeting, so the login cannot begin.",
        of = "gets no greeting from {server}",
        means = "A Spark server speaks first, at once. Something accepts the connection and says nothing: a hung server program, another service that waits to be asked, or a proxy that answers for everyone.",
        looks = "SYN, SYN-ACK, ACK, then no byte from the server before one side gives up; the device waits 20 s.",
        led = "fast cyan, then red about every 20 s",
        fix = {
          "On a computer in the same network; 40 random bytes must appear at once:",
          "  nc {server} {port} | xxd",
          "Own server: restart it, and look whether it hangs. Is {port} the device port, not the web port?",
          "Someone else's Wi-Fi: finish its login page, or use another network.",
        },
        causes = { "server process hangs", "wrong port", "captive portal or proxy", "greeting too late" },
        settle = "The test above, from the server's own machine and from beside the device.",
        not_it = {
          { "SPK702", "one direction was not captured" },
          { "SPK103", "something did answer" },
          { "SPK102", "there a RST says no, and at once" },
          { "SPK106", "the silence is that of a web server, which waits to be asked" },
        },
        engineer = "TCP established, 0 stream bytes from the server, ACK numbers included.",
        specific = 0,
        source = "DIAGNOSES SPK104; PROTOCOL 2.4 D1",
      },
      SPK105 = {
        code = "SPK105",
        name = "name-lookup-failed",
        severity = "major",
        group = "connectivity",
        title = "The name lookup fails, the built-in address is used",
        short = "Name lookup",
        says = "The device could not look up the cloud's name and dials the address built into its firmware, {server}.",
        of = "cannot look up the cloud's name",
        means = "The device asks for device.spark.io. When no answer comes, firmware of 2013 to 2016 dials a fixed address as its last resort. Whether that address still serves is not known.",
        looks = "Questions for device.spark.io, up to 9, that stay unanswered or find nothing; then a request to connect to 54.208.229.4.",
        led = "blinking cyan for longer than usual, then as SPK101; or all as usual, if the address serves",
        fix = {
          "On a computer in the same Wi-Fi, look the name up:",
          "  nslookup device.spark.io",
          "\194\183 With another DNS server: nslookup device.spark.io 9.9.9.9",
          "Only the first one fails: set a working DNS server in the router's DHCP settings, then reset the device.",
          "Both work: reset the device, and capture again from the moment it joins the Wi-Fi.",
          "Both fail: the name itself is gone. Store a server's key and address in the device, in DFU mode:",
          "  particle keys server FILE --host ADDRESS",
        },
        causes = {
          "the DNS server that DHCP gives is wrong or down",
          "a firewall drops UDP 53",
          "a filter or a login page hides the name",
        },
        settle = "The lookup from a computer in the same Wi-Fi.",
        not_it = {
          { "SPK101", "the name is found, and the address does not answer" },
          { "SPK106", "the name is found, and the device dials something else" },
        },
        engineer = "SYN to 54.208.229.4 after NXDOMAIN, an empty answer or 2 and more questions without any; never from the address alone, which the name itself may lead to. Info when the session comes up.",
        specific = 1,
        source = "DIAGNOSES SPK105; PROTOCOL 1.4",
      },
      SPK106 = {
        code = "SPK106",
        name = "wrong-address-or-port",
        severity = "major",
        group = "connectivity",
        title = "The device calls a wrong address or port",
        short = "Wrong address or port",
        says = "The device calls {server} on port {port}, where no Spark server is.",
        of = "calls {server}, where no Spark server is",
        means = "Address and port of an own server are stored in the device, beside the server key. When the server moves, the device goes on calling the old place.",
        looks = "Requests to connect to a local address for which ARP finds nobody; a web server's port (80, 443, 8080) and 20 s of silence; an address that the name lookup did not give; or another server than --expect-server names, or than a dump of the device's key slot has stored.",
        led = "3 blinks where nobody answers; fast cyan, then red, on a web server's port",
        fix = {
          "Read what the device has stored; in DFU mode (blinking yellow), on USB:",
          "  particle keys address",
          "Write server key and address together, in DFU mode:",
          "  particle keys server server.pub.pem --host ADDRESS --port 5683",
          "\194\183 Some releases of the command want --protocol tcp as well.",
          "Give the server a fixed address in the router, so that it does not move again.",
        },
        causes = { "the server has moved", "the port of its web interface (8080) was stored", "DNS leads astray" },
        settle = "--expect-server HOST says where the device should call; particle keys address, what is stored in it.",
        not_it = {
          { "SPK101", "the address is right, and something on the way drops the packets" },
          { "SPK104", "the right server hangs" },
          { "SPK105", "no lookup gave any address, and the built-in one is dialled" },
          { "SPK102", "a machine is there and refuses" },
        },
        engineer = "Unanswered SYN to an RFC 1918 address with unanswered ARP or ICMP host unreachable; port 80, 443 or 8080 with a Spark device's behaviour; SYN to an address that no answer for device.spark.io gave. Never after a nonce.",
        specific = 1,
        source = "DIAGNOSES SPK106",
      },
      SPK201 = {
        code = "SPK201",
        name = "nonce-wrong-size",
        severity = "critical",
        group = "handshake",
        title = "The greeting has the wrong size",
        short = "Broken greeting",
        says = "The server's greeting has {size} bytes instead of 40, so the login cannot begin.",
        of = "gets a broken greeting",
        means = "The server does not speak this protocol correctly, or its data was cut on the way.",
        looks = "1 to 39 bytes from the server and then nothing, or more than 40 before the device has answered.",
        led = "fast cyan, red after 20 s",
        fix = {
          "Own server: check changes to its code, and proxies in front of it that add a line of their own.",
          "  nc {server} {port} | xxd | head",
        },
        causes = { "changed server code", "a proxy that adds bytes", "a connection that breaks" },
        settle = "The same capture on the server itself.",
        not_it = { { "SPK103", "text instead of random bytes" }, { "SPK703", "the capture cut the packet" } },
        engineer = "M1 is exactly 40 bytes; two segments that add up to 40 are fine.",
        specific = 0,
        source = "DIAGNOSES SPK201",
      },
      SPK202 = {
        code = "SPK202",
        name = "nonce-not-answered",
        severity = "critical",
        group = "handshake",
        title = "The device does not answer the greeting",
        short = "Device that does not answer",
        says = "The server greets the device; the device never says who it is.",
        of = "does not answer the server's greeting",
        means = "The greeting arrived, and the device has nothing to send: it hangs, or it cannot use the server key that is stored in it.",
        looks = "40 bytes from the server, acknowledged; no byte from the device for 20 s or until one side closes.",
        led = "fast cyan, frozen",
        fix = {
          "Put the device in DFU mode (blinking yellow) on USB, and type",
          "  particle keys server",
          "It writes the cloud's own key back. Own server, instead:",
          "  particle keys server FILE --host ADDRESS",
          "Press reset. Still silent: start in safe mode, to leave the program on the device out of it.",
        },
        causes = { "server-key slot blank or unusable (SPK307)", "program on the device blocks", "Wi-Fi loss" },
        settle = "A dump of the device's server-key slot: sparkshark keys FILE",
        not_it = { { "SPK702", "the device's direction is not in the capture" } },
        engineer = "M1 delivered, no M2; the server gives up after 30 s (old) or 10 s (Brewskey).",
        specific = 0,
        source = "DIAGNOSES SPK202; PROTOCOL 2.6",
      },
      SPK203 = {
        code = "SPK203",
        name = "identity-split-or-wrong-size",
        severity = "major",
        group = "handshake",
        title = "\"Who I am\" comes in pieces, or in the wrong size",
        short = "\"Who I am\" in pieces",
        says = "The device's \"who I am\" {how}, and the server hangs up.",
        of = "sends \"who I am\" in pieces, and the server hangs up",
        means = "Both open servers read once and decrypt what has arrived by then. When the 256 bytes come in two packets, the server may see only the first and hang up, although every key is right.",
        looks = "The 256 bytes in several packets, and the server closes within 1 s without a reply; or another size.",
        led = "fast cyan with red",
        fix = {
          "Look for a small MTU, MSS clamping or a tunnel between device and server: 256 bytes must pass in one packet.",
          "Own server: collect 256 bytes before decrypting.",
          "It is a race: some attempts get through.",
        },
        causes = { "small MTU or MSS", "a relay that cuts packets", "a server key of another size in the device" },
        settle = "--server-key with the server's private key: 256 bytes that open prove that the cut is the cause.",
        not_it = {
          { "SPK703", "the capture lacks a packet" },
          { "SPK302", "the same, but in one packet, and each time" },
        },
        engineer = "M2 over more than one segment, FIN or RST from the server within 1 s, no M3.",
        specific = 1,
        source = "DIAGNOSES SPK203; PROTOCOL 2.5, 9.1",
      },
      SPK204 = {
        code = "SPK204",
        name = "refused-after-identity",
        severity = "critical",
        group = "handshake",
        title = "The server hangs up after \"who I am\"",
        short = "Wrong server key, unknown device",
        says = "The server reads the device's \"who I am\" and hangs up: the device has another server's key, or the server does not know this device.",
        of = "is refused by the server after \"who I am\"",
        means = "The greeting passed, the device answered, and the server refused the answer. Either it could not open it, or it opened it and has no (or another) key on file for this device.",
        looks = "40 and 256 bytes, then the server closes within 1 s without sending 384.",
        led = "fast cyan with a short red burst",
        fix = {
          "Find out which of the two it is. Own server: its log says \"decryption failed\" (server key) or \"couldn't find key for core\" (device).",
          "Server key, the cloud's or an own server's. In DFU mode on USB:",
          "  particle keys server",
          "  particle keys server FILE --host ADDRESS",
          "Device not known. In DFU mode on USB:",
          "  particle keys doctor DEVICE_ID",
          "Read its output to the end: SENDING the key must succeed, not only \"Okay! New keys in place\".",
        },
        causes = {
          "SPK302 the device has another server's key",
          "SPK304 the device is not on file, or with another key",
          "SPK308 the server program is too new or too old",
          "SPK203 the answer came in pieces",
        },
        settle = "--server-key with the server's private key settles it; the public half can exclude a key.",
        not_it = { { "SPK102", "closed before any data" }, { "SPK206", "384 bytes were sent" } },
        engineer = "M2 complete, FIN or RST by the server, no byte of M3.",
        specific = 0,
        source = "DIAGNOSES SPK204; PROTOCOL 2.5",
      },
      SPK205 = {
        code = "SPK205",
        name = "reply-wrong-size",
        severity = "critical",
        group = "handshake",
        title = "The server's reply has the wrong size",
        short = "Key of the wrong size",
        says = "The server's reply has {size} bytes instead of 384: a key of the wrong size is on file.",
        of = "gets a reply of the wrong size",
        means = "The reply is one block as large as the device's key and one as large as the server's. Only 128 + 256 fits this protocol.",
        looks = "Another number of bytes than 384 from the server after the device's 256.",
        led = "red (too short), orange or magenta (too long)",
        fix = {
          "Own server: its key must have 2048 bits, the device's 1024 (RSA):",
          "  openssl rsa -pubin -in DEVICE_ID.pub.pem -text -noout",
          "Replace the key that is not. In DFU mode on USB:",
          "  particle keys doctor DEVICE_ID",
        },
        causes = {
          "256 bytes: the server's key has 1024 bits",
          "512: the device is on file with a 2048-bit key",
          "128, or any other number: the signature is missing",
        },
        settle = "The public key files show their sizes: sparkshark keys FILE",
        not_it = { { "SPK703", "the capture lacks a packet" } },
        engineer = "M3 = device modulus + server modulus in bytes.",
        specific = 0,
        source = "DIAGNOSES SPK205; PROTOCOL 3.4",
      },
      SPK206 = {
        code = "SPK206",
        name = "silent-after-reply",
        severity = "critical",
        group = "handshake",
        title = "The device goes silent after the server's reply",
        short = "Reply that cannot be used",
        says = "The server accepts the device, but the device cannot use the server's reply, so the login never finishes.",
        of = "cannot use the server's reply",
        means = "The server locked its reply with the key on file for this device. The device cannot open it, or does not accept it. The network, the server's key and the device's ID are right, or no reply would have come.",
        looks = "40, 256 and 384 bytes, then no message from the device within 5 s.",
        led = "orange: cannot open it \194\183 magenta: opened, signature wrong \194\183 red: a 20 s limit ran out. Colours are easily confused; do not rely on one.",
        fix = {
          "Look at the LED between the cyan flashes: orange agrees, magenta would point to SPK303.",
          "Put the device in DFU mode (blinking yellow) on USB, and type",
          "  particle keys doctor DEVICE_ID",
          "Read its output to the end: SENDING the key must succeed, not only \"Okay! New keys in place\".",
          "\194\183 Own server, not the Particle cloud: sparkshark explain SPK301",
        },
        causes = { "SPK301 keys are no pair (usual)", "SPK306 unlucky key", "SPK303 signature" },
        settle = "--device-key FILE tells 301 from 306; with --server-key FILE also 303.",
        not_it = {
          { "SPK702", "one direction is missing" },
          { "SPK505", "the device never acknowledges the reply: Wi-Fi loss" },
          { "SPK209", "the hello comes, but late" },
          { "SPK204", "there the server does not even reply" },
        },
        engineer = "M3 = 128 bytes RSAES-PKCS1-v1_5 for the device + 256 bytes signature; no M4.",
        specific = 0,
        source = "DIAGNOSES SPK206; PROTOCOL 2.4 D3, D4",
      },
      SPK207 = {
        code = "SPK207",
        name = "dead-key-frame",
        severity = "critical",
        group = "handshake",
        title = "A message under a key that nobody agreed on",
        short = "Dead-key message",
        says = "The server accepts the device, but the device cannot use the server's reply, so the login never finishes.",
        of = "cannot use the server's reply",
        means = "Firmware of 2014 goes on talking after a failed login, with whatever key is in its memory: all zero after power-up, else that of the session before. Seeing one proves that the login failed.",
        looks = "An 18-byte frame that opens under the all-zero key (or the previous session's), after the 384 bytes or in the place of \"who I am\".",
        led = "orange: cannot open it \194\183 magenta: opened, signature wrong \194\183 red: a 20 s limit ran out. Colours are easily confused; do not rely on one.",
        fix = {
          "Look at the LED between the cyan flashes: orange agrees, magenta would point to SPK303.",
          "Put the device in DFU mode (blinking yellow) on USB, and type",
          "  particle keys doctor DEVICE_ID",
          "Read its output to the end: SENDING the key must succeed, not only \"Okay! New keys in place\".",
          "\194\183 Own server, not the Particle cloud: sparkshark explain SPK301",
        },
        causes = { "SPK301 keys are no pair (usual)", "SPK306 unlucky key", "SPK303 signature" },
        settle = "--device-key FILE tells 301 from 306; with --server-key FILE also 303.",
        not_it = {
          { "SPK001", "a real hello has 18 bytes too, but the server answers it" },
          { "SPK208", "there the message is a genuine hello, under the session's own key" },
        },
        engineer = "AES-128-CBC under key 0 (or the earlier session's), IV chain continued across reconnects.",
        specific = 2,
        source = "DIAGNOSES 0.4, SPK207; PROTOCOL 9.2",
      },
      SPK208 = {
        code = "SPK208",
        name = "hello-not-answered",
        severity = "critical",
        group = "handshake",
        title = "The device's hello is not answered",
        short = "Server that ignores the hello",
        says = "The device logs in and says hello, but the server does not say hello back.",
        of = "says hello and gets no hello back",
        means = "The device has just checked the server's reply, so the keys are right. The server could not read the hello, lost it, or waits for something else.",
        looks = "40, 256, 384, then 18 or 34 bytes from the device, and no message from the server.",
        led = "fast cyan, then red",
        fix = {
          "Own server: look in its log for \"failed to parse hello\", \"recovering from early data\" or \"Invalid CoAP version\", and update it.",
          "Particle cloud: try again later; the device is fine.",
        },
        causes = { "server loses a message that comes too early", "server waits for its database", "server bug" },
        settle = "--device-key FILE: a hello that opens proves that the fault is at the server.",
        not_it = { { "SPK207", "a ping under a dead key has 18 bytes too" } },
        engineer = "M4 seen, no M5; the device closes after 2 s (to 0.7) or 4 s (0.8+).",
        specific = 1,
        source = "DIAGNOSES SPK208; PROTOCOL 2.4 D5",
      },
      SPK209 = {
        code = "SPK209",
        name = "slow-handshake",
        severity = "minor",
        group = "handshake",
        title = "The login works, but slowly",
        short = "Slow login",
        says = "The login takes {total}: {step}.",
        of = "logs in slowly",
        means = "One step of the login takes so long that a timer may cut it: some servers give up after 10 s, the device after 20 s a step.",
        looks = "More than 5 s for the device's step, 2 s for the server's, or 8 s in all.",
        led = "long fast cyan, sometimes no success",
        fix = { "Improve the Wi-Fi signal at the device, and look at the server's load." },
        causes = { "weak signal", "a busy server" },
        settle = "A capture on the server shows which side waits.",
        not_it = {
          { "SPK505", "repeated packets inside the step: the network, not the device" },
          { "SPK206", "there no hello comes at all" },
        },
        engineer = "Times between M1, M2, M3 and M4.",
        specific = 0,
        source = "DIAGNOSES SPK209",
      },
      SPK210 = {
        code = "SPK210",
        name = "repeated-login-bytes",
        severity = "minor",
        group = "handshake",
        title = "Login bytes that should never come twice come twice",
        short = "Repeated login bytes",
        says = "{what} of this login came on another connection before, byte for byte; they should be random each time.",
        of = "takes part in a login whose random bytes came before",
        means = "The greeting is a random number made for one connection, and the two locked parts are filled up with random bytes. When one comes again on another connection, it is played back from a recording, it comes from a program that only imitates a device or a server, or that side's random numbers are none: then session keys can be guessed.",
        looks = "The 40, 256 or 384 bytes of one connection again on a later one, whose TCP sequence numbers differ.",
        led = "",
        fix = {
          "Find out what answers at the server's address: a test program, a proxy, or the server itself?",
          "Own server: look at where its random numbers come from, above all on a small or virtual machine soon after its start.",
        },
        causes = {
          "a recorded login is played back",
          "an emulator with fixed bytes",
          "a broken source of random numbers",
        },
        settle = "A capture at the server shows which of the two logins it took part in.",
        not_it = {
          { "SPK704", "the capture holds one connection twice: its TCP sequence numbers are the same" },
          { "SPK507", "two devices share an ID; their logins still differ" },
        },
        engineer = "Equal M1, M2 or M3 on two connections with different ISNs that do not overlap, or overlap with different M2.",
        specific = 0,
        source = "DIAGNOSES 4; PROTOCOL 2.1",
      },
      SPK301 = {
        code = "SPK301",
        name = "device-key-mismatch",
        severity = "critical",
        group = "keys",
        title = "The device's key and the server's copy are no pair",
        short = "Wrong device key",
        says = "The server locks its reply with a key that is not this device's key.",
        of = "cannot use the server's reply: it is locked with another key",
        means = "Device and server each have a key, but not a matching pair.",
        looks = "As SPK206; the 128 bytes do not open with the device's private key.",
        led = "orange",
        fix = {
          "Put the device in DFU mode (blinking yellow) on USB, and type",
          "  particle keys doctor DEVICE_ID",
          "Read its output to the end: SENDING the key must succeed, not only \"Okay! New keys in place\".",
        },
        causes = { "keys doctor that could not send the new key", "a restored or swapped key file" },
        settle = "--device-key FILE",
        not_it = {
          { "SPK306", "the pair is right, but the firmware misreads it" },
          { "SPK303", "it opens; the signature fails" },
        },
        engineer = "No PKCS#1 block under the device's private key.",
        specific = 3,
        source = "DIAGNOSES SPK301; PROTOCOL 3.4",
      },
      SPK302 = {
        code = "SPK302",
        name = "wrong-server-key-on-device",
        severity = "critical",
        group = "keys",
        title = "The device has another server's key",
        short = "Wrong server key",
        says = "The device locks \"who I am\" for another server.",
        of = "locks \"who I am\" for another server",
        means = "The server key stored in the device is not this server's.",
        looks = "As SPK204, on every attempt; the 256 bytes do not open with the server's private key.",
        led = "fast cyan with a short red burst",
        fix = {
          "In DFU mode on USB, own server:",
          "  particle keys server default_key.pub.pem --host ADDRESS",
          "Back to the Particle cloud:",
          "  particle keys server",
        },
        causes = { "the device was used with another server", "the server's key was made anew" },
        settle = "--server-key with the server's private key, or a dump of the device's slot.",
        not_it = {
          { "SPK304", "the server can open it, but does not know the device" },
          { "SPK308", "all devices fail" },
          { "SPK203", "\"who I am\" came in pieces, and the key is right" },
        },
        engineer = "No PKCS#1 block under the server's private key, or a number not below the modulus.",
        specific = 3,
        source = "DIAGNOSES SPK302; PROTOCOL 3.3",
      },
      SPK303 = {
        code = "SPK303",
        name = "bad-server-signature",
        severity = "critical",
        group = "keys",
        title = "The signature on the reply is another server's",
        short = "Impostor server",
        says = "Another server answers: its reply is not signed with the key that the device trusts.",
        of = "is answered by another server",
        means = "Someone who has the device's public key, but not the server's private key, answers. Usually the server's key was made anew; in theory an interceptor.",
        looks = "As SPK206; the device key opens the 128 bytes, the signature does not verify.",
        led = "magenta",
        fix = {
          "Restore the server's old key file, or write the new one to the device. In DFU mode on USB:",
          "  particle keys server FILE --host ADDRESS",
        },
        causes = { "server key made anew", "a proxy that ends the connection", "an interceptor" },
        settle = "--server-key FILE (public is enough) and --device-key FILE",
        not_it = { { "SPK301", "the device key does not open the reply" } },
        engineer = "The 256 bytes are no type-1 block under the server's public key, or the HMAC differs.",
        specific = 4,
        source = "DIAGNOSES SPK303; PROTOCOL 2.3",
      },
      SPK304 = {
        code = "SPK304",
        name = "unknown-device",
        severity = "critical",
        group = "keys",
        title = "The server does not know this device, or not this key",
        short = "Unknown device",
        says = "The server can read \"who I am\", but does not know this device, or knows it with another key.",
        of = "is not known to the server",
        means = "The server opened the 256 bytes and found no (or another) key on file.",
        looks = "As SPK204; the 256 bytes open with the server's private key and carry the right greeting.",
        led = "fast cyan with a short red burst",
        fix = {
          "Register the device's public key:",
          "  particle keys send DEVICE_ID DEVICE_ID.pub.pem",
          "Own server: put DEVICE_ID.pub.pem into its key folder.",
        },
        causes = { "new or replaced device", "lost key folder", "key changed on the device" },
        settle = "--server-key with the server's private key gives the device's ID.",
        not_it = { { "SPK302", "the server cannot open it" }, { "SPK305", "what the device offers is no RSA key" } },
        engineer = "M2 opens, nonce equal, closed all the same.",
        specific = 3,
        source = "DIAGNOSES SPK304",
      },
      SPK305 = {
        code = "SPK305",
        name = "elliptic-key-in-rsa-slot",
        severity = "critical",
        group = "keys",
        title = "The device's key slot holds no RSA key",
        short = "Key of another kind",
        says = "The device holds a key of another kind, or none, where its RSA key belongs.",
        of = "holds no usable RSA key",
        means = "The device copies bytes from a fixed place of its key slot into \"who I am\". What it copied is no RSA key: usually an elliptic-curve key of the newer protocol, or an erased slot.",
        looks = "As SPK204 or SPK206; the key that the device offers is no RSA number.",
        led = "red or orange",
        fix = {
          "Make an RSA key of 1024 bits and write it. In DFU mode on USB:",
          "  particle keys new --protocol tcp",
          "  particle keys load FILE",
          "  particle keys send DEVICE_ID FILE.pub.pem",
        },
        causes = { "keys made for the UDP protocol", "an erased or overwritten slot" },
        settle = "--server-key with the server's private key shows what the device offers; a dump of the slot too.",
        not_it = { { "SPK304", "a usable key, but not the one on file" } },
        engineer = "Bytes 11-138 of the slot are not a 1024-bit modulus.",
        specific = 4,
        source = "DIAGNOSES SPK305; PROTOCOL 2.2",
      },
      SPK306 = {
        code = "SPK306",
        name = "unlucky-key",
        severity = "critical",
        group = "keys",
        title = "A correct key that the firmware cannot read",
        short = "Unlucky key",
        says = "The device's key is correct, but its firmware misreads it. About 1 key in 100 is like that.",
        of = "has a key that its firmware misreads",
        means = "The firmware does not read the lengths in the key file; one number that is a byte shorter than usual puts everything after it out of step.",
        looks = "As SPK206, although keys doctor succeeded.",
        led = "orange",
        fix = {
          "Make another key. In DFU mode on USB:",
          "  particle keys doctor DEVICE_ID",
          "Read its output to the end: SENDING the key must succeed, not only \"Okay! New keys in place\".",
        },
        causes = { "chance" },
        settle = "--device-key FILE; no capture is needed: sparkshark keys FILE",
        not_it = {
          { "SPK307", "a file that holds no private key of a device at all" },
          { "SPK301", "there the two keys differ" },
        },
        engineer = "One of D, P, Q, dP, dQ, qInv is short; the walk of PROTOCOL 8.4 loses step.",
        specific = 4,
        source = "DIAGNOSES SPK306; PROTOCOL 8.4",
      },
      SPK307 = {
        code = "SPK307",
        name = "key-file-mistaken",
        severity = "info",
        group = "keys",
        title = "A key file is not what its name says",
        short = "Mistaken key file",
        says = "A key file is not what its name says.",
        of = "was given a mistaken key file",
        means = "Key files are told by content: a flash dump, a certificate, a saved error page or the wrong half of a pair may stand under any name.",
        looks = "No capture is needed: sparkshark keys FILE names each file.",
        led = "",
        fix = {
          "See what each file is:",
          "  sparkshark keys FILE...",
          "Core, in DFU mode:",
          "  dfu-util -d 1d50:607f -a 1 -s 0x00002000:1024 -U device.der",
          "Photon, in DFU mode:",
          "  dfu-util -d 2b04:d006 -a 1 -s 34:612 -U device.der",
        },
        causes = { "a dump without a length", "a browser that renamed a download", "halves mixed up" },
        settle = "sparkshark keys FILE",
        not_it = { { "SPK306", "the file is right, but the firmware misreads it" } },
        engineer = "Content against role: PKCS#1, PKCS#8, SPKI, X.509, EC, slot image, flash image.",
        specific = 0,
        source = "DIAGNOSES SPK307; PROTOCOL 8",
      },
      SPK308 = {
        code = "SPK308",
        name = "server-software-refuses",
        severity = "critical",
        group = "keys",
        title = "The server's program refuses such messages",
        short = "Server program too new or too old",
        says = "The keys are right; the server's program can no longer open such messages.",
        of = "is refused by a server program that cannot open its \"who I am\"",
        means = "New Node.js versions refuse this kind of encryption, or answer a wrong key with random bytes.",
        looks = "As SPK204, for every device, from one moment on.",
        led = "fast cyan with a short red burst",
        fix = { "Update the server, or start it on Node 18 to 21 with --security-revert=CVE-2023-46809." },
        causes = { "Node or OpenSSL upgrade" },
        settle = "--server-key with the server's private key: it opens here.",
        not_it = { { "SPK302", "it does not open here either" } },
        engineer = "M2 opens with the right nonce; the server closes all the same.",
        specific = 2,
        source = "DIAGNOSES SPK308",
      },
      SPK401 = {
        code = "SPK401",
        name = "misread-as-coap",
        severity = "info",
        group = "misparse",
        title = "\"Malformed CoAP\" is a red herring",
        short = "CoAP error codes",
        says = "The CoAP codes that Wireshark shows are random bytes read as CoAP. Ignore them.",
        of = "is shown as CoAP by Wireshark",
        means = "Wireshark takes TCP port 5683 for CoAP. The greeting and the locked blocks are random numbers, and every message begins with its length: none of it is CoAP before it is decrypted.",
        looks = "\"Unknown 16\" again and again, and some random code for the greeting.",
        led = "",
        fix = { "tshark without the wrong reading:", "  tshark --disable-protocol coap -r FILE" },
        causes = {},
        settle = "sparkshark explain 'ROW TEXT' CAPTURE shows the bytes that made a row.",
        not_it = { { "SPK801", "genuine CoAP over TCP parses to the end, in both directions" } },
        engineer = "RFC 8323 framing applied to M1-M3 and to the 2-byte length prefix.",
        specific = 0,
        source = "DIAGNOSES SPK401; PROTOCOL 2.1",
      },
      SPK501 = {
        code = "SPK501",
        name = "framing-lost",
        severity = "major",
        group = "session",
        title = "The two sides no longer agree where a message begins",
        short = "Lost framing",
        says = "From packet {packet} on the bytes are no messages of this protocol any more.",
        of = "loses its place in the messages",
        means = "A message's length field holds a value that no message can have. One side lost its place, usually a server bug.",
        looks = "A length of 0, no multiple of 16, or over 1,024, with no hole in the capture before it.",
        led = "breathing cyan, then fast cyan",
        fix = { "Update the server; the device reconnects by itself." },
        causes = {},
        settle = "--device-key FILE shows the last message that was right.",
        not_it = {
          { "SPK703", "a hole in the capture" },
          { "SPK502", "there every message opens, but one number is left out" },
        },
        engineer = "be16 out of range where a frame should begin.",
        specific = 0,
        source = "DIAGNOSES SPK501; PROTOCOL 4.3",
      },
      SPK502 = {
        code = "SPK502",
        name = "message-number-jumped",
        severity = "major",
        group = "session",
        title = "A message number jumps, and the server hangs up",
        short = "Jump in the message numbers",
        says = "A message number of the device jumps (packet {packet}), and the server hangs up on it.",
        of = "leaves out a message number, and the server hangs up",
        means = "The device numbers its messages, and both open servers count along. When a number is not the next one, a message went missing between the software of the two, and the server ends the connection.",
        looks = "In a working session the server closes within milliseconds of a message from the device. Only a key shows the numbers.",
        led = "breathing cyan, then fast cyan for a moment",
        fix = {
          "Own server: look for \"got counter\" or \"Bad Counter\" in its log at that moment, and update it.",
          "Update the firmware of the device. It reconnects by itself.",
        },
        causes = {
          "a time request that overtakes the hello",
          "the server lost a message (SPK501)",
          "two parts of a program send at the same time",
        },
        settle = "The server's log at that moment.",
        not_it = {
          { "SPK501", "there a message does not open at all" },
          { "SPK509", "there the device hangs up, not the server" },
          { "SPK703", "the capture lacks the message in between" },
        },
        engineer = "Non-ACK message ids rise by 1 from the hello's, modulo 65536; pings are counted, not compared.",
        specific = 0,
        source = "DIAGNOSES SPK502; PROTOCOL 4.2",
      },
      SPK503 = {
        code = "SPK503",
        name = "ping-not-answered",
        severity = "major",
        group = "session",
        title = "A ping is not answered",
        short = "Unanswered ping",
        says = "The device works until the server stops answering: a ping gets no answer, so the device hangs up.",
        of = "hangs up because a ping is not answered",
        means = "The device pings after 15 s without a word from the server and waits 10 s. The server's computer still confirms the packet, so its program hangs.",
        looks = "18 bytes from the device after 15 s of silence, acknowledged by TCP, no message back within 10 s. With a key also: any request that one side makes and the other never answers.",
        led = "breathing cyan, then fast cyan",
        fix = {
          "Own server: look at its load and its log at that moment, and restart it.",
          "Particle cloud: nothing on the device is wrong; it reconnects.",
        },
        causes = {
          "server program hangs",
          "server overloaded",
          "a function of the device's program that takes too long",
        },
        settle = "--device-key FILE shows that it is a ping, and what came before it.",
        not_it = {
          { "SPK505", "the ping is not even acknowledged: the path is dead" },
          { "SPK506", "there the message is not even acknowledged, and only after a silence" },
          { "SPK508", "there nothing is asked: the device begins anew" },
          { "SPK509", "there the device hangs up at once, at a message of the server" },
        },
        engineer = "CON 0.00 without ACK for 10 s.",
        specific = 0,
        source = "DIAGNOSES SPK503; PROTOCOL 6",
      },
      SPK504 = {
        code = "SPK504",
        name = "device-too-busy",
        severity = "major",
        group = "session",
        title = "The device goes quiet, and the server gives up on it",
        short = "Busy program on the device",
        says = "The device says nothing for {quiet}, not even a ping, and the server hangs up. The program on the device keeps it too busy to talk to the cloud.",
        of = "goes quiet until the server hangs up",
        means = "A device that works pings after 15 s without a word from the server. This one does not, though its network still confirms packets: its program leaves the cloud no time. The community server allows 31 s of it.",
        looks = "The last message of the device, then nothing from it but acknowledgements, then a close by the server after the same time on each connection; sessions often last 15 + 31 = 46 s.",
        led = "breathing cyan or green, sometimes frozen",
        fix = {
          "Start in safe mode, to leave the program on the device out of it: the connection then holds.",
          "Keep loop() short: no delay() and no waiting for more than 10 s. In longer work, call:",
          "  Particle.process();",
          "Or let the cloud run beside the program, with this line above setup():",
          "  SYSTEM_THREAD(ENABLED);",
        },
        causes = { "a long loop() or delay()", "waiting for a sensor or the serial port", "Wi-Fi in manual mode" },
        settle = "Safe mode: if the connection holds there, it is the program. --device-key FILE shows the last message before the silence.",
        not_it = {
          { "SPK506", "there the device goes on sending, and nothing is acknowledged" },
          { "SPK505", "there not even the device's network answers any more" },
          { "SPK508", "there the device begins anew instead of staying quiet" },
          { "SPK507", "there the server closes because of another login, not of a silence" },
        },
        engineer = "Server FIN at a fixed gap after the last device frame; device ACKs keep-alive probes or the FIN.",
        specific = 0,
        source = "DIAGNOSES SPK504; PROTOCOL 6",
      },
      SPK505 = {
        code = "SPK505",
        name = "packets-lost",
        severity = "major",
        group = "session",
        title = "Packets get lost on the way",
        short = "Bad radio link",
        says = "Packets get lost on the way, mostly those from the {sender}.",
        of = "loses packets",
        means = "The same data is sent again and again. A session survives much of it; it ends when nothing arrives any more.",
        looks = "Repeated data without an answer.",
        led = "breathing cyan with dropouts",
        fix = { "Move the device nearer to the access point, try another channel and another power supply." },
        causes = { "weak signal", "power supply", "busy channel" },
        settle = "A second capture at the other end shows on which side of it packets vanish.",
        not_it = {
          { "SPK503", "the packet is acknowledged, its message not answered" },
          { "SPK704", "copies made by the capture" },
          { "SPK206", "the reply is acknowledged, so it arrived; no hello follows" },
          { "SPK209", "the packets arrive at the first try, but late" },
          { "SPK504", "the device's network acknowledges, its program says nothing" },
          { "SPK506", "packets get lost after a silence only" },
          { "SPK703", "lost by the capture: acknowledged, and never sent again" },
        },
        engineer = "Retransmitted segments; unacknowledged data at the end.",
        specific = 0,
        source = "DIAGNOSES SPK505",
      },
      SPK506 = {
        code = "SPK506",
        name = "connection-forgotten",
        severity = "major",
        group = "session",
        title = "A router forgets the quiet connection",
        short = "Forgotten by a router",
        says = "After {quiet} of silence nothing of the device gets through any more: a router or firewall on the way has dropped the quiet connection.",
        of = "is cut off after each silence",
        means = "Routers and firewalls keep a list of connections, and strike out the quiet ones. Devices ping after 15 s, so one that forgets sooner cuts each session off, and neither end is told.",
        looks = "A silence, then a message of the device that is sent again and again without any answer, or a reset that does not come from the server; the same on each connection, after the same silence.",
        led = "breathing cyan for up to 25 s although cut off, then fast cyan",
        fix = {
          "Raise the time that the router or firewall allows for a quiet TCP connection: 60 s or more.",
          "Nothing to set there: try another router, or a phone hotspot. If the connection holds, it was the router.",
          "Switch off power saving in the Wi-Fi access point.",
        },
        causes = { "NAT or firewall time-out below 15 s", "power saving in the Wi-Fi" },
        settle = "A second capture beside the server: the repeated message does not arrive there.",
        not_it = {
          { "SPK503", "there the message is acknowledged, so it arrived" },
          { "SPK504", "there the device itself says nothing" },
          { "SPK505", "there packets get lost at any time, not after a silence only" },
        },
        engineer = "Retransmissions without any ACK, or RST with another TTL than the SYN-ACK's, behind mutual idle.",
        specific = 1,
        source = "DIAGNOSES SPK506; PROTOCOL 6",
      },
      SPK507 = {
        code = "SPK507",
        name = "same-device-twice",
        severity = "major",
        group = "session",
        title = "Two devices claim to be the same one",
        short = "Same device ID twice",
        says = "Two devices claim to be the same one: {here} and {there}. Each login of one ends the session of the other.",
        of = "claims to be the same device as {there}",
        means = "The server knows a device by its ID and keeps one session for it. When two log in with one ID, each login throws the other out.",
        looks = "A login from one address, and within 1 s the server closes the session of another address; then the same the other way round. In the device's own network: one ID announced from two addresses.",
        led = "both: breathing cyan and fast cyan in turn",
        fix = {
          "Find the second one by its address, and read the ID of each on USB:",
          "  particle serial identify",
          "Take one of the two off. New keys do not change an ID.",
        },
        causes = { "flash contents copied from one device to another", "an emulator that uses a real device's ID" },
        settle = "--server-key FILE with the server's private key shows the ID in each login.",
        not_it = {
          { "SPK504", "there the server closes after a silence, not at another login" },
          { "SPK508", "one device that comes back: the same address, and its old session never speaks again" },
          { "SPK210", "there the very bytes of a login come again, not only the ID" },
        },
        engineer = "Equal IDs in M2 of sessions that live at the same time at two addresses.",
        specific = 1,
        source = "DIAGNOSES SPK507; PROTOCOL 9.14",
      },
      SPK508 = {
        code = "SPK508",
        name = "reconnects",
        severity = "major",
        group = "session",
        title = "The device connects again and again",
        short = "Restarts",
        says = "The device restarts, or loses its link, and connects anew.",
        of = "comes back without having closed its connection",
        means = "A connection that works is left without being closed, and a new one begins: the device restarted, lost power, or lost its Wi-Fi.",
        looks = "No FIN and no RST, then a SYN from another port of the same device. In its own network also whether it asks for an address (DHCP) in between, as after a start.",
        led = "the start-up colours again",
        fix = {
          "Look at the power supply and the Wi-Fi signal.",
          "Start in safe mode, to leave the program on the device out of it.",
        },
        causes = { "power supply", "program crashes", "Wi-Fi loss" },
        settle = "The LED at that moment: a restart shows the start-up colours.",
        not_it = {
          { "SPK503", "there the device closes after an unanswered ping" },
          { "SPK504", "there the device stays connected, and quiet, until the server closes" },
          { "SPK507", "two addresses in turn, one ID" },
        },
        engineer = "Established session without FIN or RST, followed by a new SYN.",
        specific = 0,
        source = "DIAGNOSES SPK508",
      },
      SPK509 = {
        code = "SPK509",
        name = "hangs-up-on-message",
        severity = "major",
        group = "session",
        title = "One side hangs up on a certain message",
        short = "Message that is not borne",
        says = "Each time the server sends {message}, the device hangs up.",
        of = "hangs up when the server sends a certain message",
        means = "Firmware of some years takes a refusal from the server for an error of the connection, and the old server refuses each event of a program. They log in, exchange one event, and begin anew.",
        looks = "In a working session the device closes within milliseconds of a message from the server.",
        led = "breathing cyan, then fast cyan, again and again",
        fix = {
          "Own server: let it acknowledge events with an empty acknowledgement, or use the community server.",
          "Or update the firmware to 0.8 or newer (Photon), or publish no events.",
        },
        causes = { "firmware 0.4.9 to 0.7 with the old server", "an argument of 64 bytes or more to a Core of 2014" },
        settle = "--device-key FILE names the message.",
        not_it = {
          { "SPK503", "there nothing comes from the server before the device closes" },
          { "SPK502", "there the server hangs up, not the device" },
        },
        engineer = "4.xx to an event, FIN by firmware that treats unknown codes as errors; PROTOCOL 5.2.",
        specific = 0,
        source = "DIAGNOSES SPK509; PROTOCOL 5.4.6, 5.4.10",
      },
      SPK601 = {
        code = "SPK601",
        name = "update-stalled",
        severity = "major",
        group = "update",
        title = "An update stops in the middle",
        short = "Stalled update",
        says = "A firmware update stops after {chunks} chunks.",
        of = "stops in the middle of an update",
        means = "The server sends chunks of a new firmware, and then one of the two stops: the device says nothing any more, or it asks for the next chunk and the server sends none. Or the device does not even take up the offer.",
        looks = "A run of equal frames of 274, 290, 530 or 546 bytes, then for 12 s nothing, or only 18 bytes from the device every 3 s. An update that never begins: three frames of 34 bytes from the server, 6 s apart, and no answer; with a key also: a refusal.",
        led = "magenta, solid",
        fix = { "Press reset, and update again near the access point, or over USB." },
        causes = {},
        settle = "--device-key FILE shows which chunk, and the percentage.",
        not_it = {
          { "SPK602", "there the server first sends the missing chunk again, and again" },
          { "SPK603", "there chunks come at an even pace until the server's time is over" },
        },
        engineer = "No device frame after the last chunk; or ChunkMissed at the 3 s timer, neither acknowledged nor resent.",
        specific = 0,
        source = "DIAGNOSES SPK601",
      },
      SPK602 = {
        code = "SPK602",
        name = "chunks-missed",
        severity = "major",
        group = "update",
        title = "Parts of an update are asked for again and again",
        short = "Missed chunks",
        says = "A firmware update fails: the device asks for a missing part again and again, and the server no longer sends it.",
        of = "asks for a part of an update again and again",
        means = "The device reports a chunk as missing or damaged, gets it again, and reports it again. The servers give up after some of these reports.",
        looks = "After a run of equal chunk frames: 18 bytes from the device every 3 s, and no chunk any more. With a key also: a chunk, or the end of the update, that is refused each time.",
        led = "magenta, then back to the old firmware",
        fix = {
          "Press reset, and update again near the access point, or over USB.",
          "Own server: it gives up after 10 reports (old) or more than 10 open chunks (Brewskey).",
        },
        causes = { "radio loss", "flash fault (always the same chunk)", "server gave up" },
        settle = "--device-key FILE shows which chunks, and whether their checksums were right.",
        not_it = { { "SPK601", "there no chunk is sent again" }, { "SPK603", "there no chunk is asked for twice" } },
        engineer = "ChunkMissed at the 3 s timer after the last Chunk.",
        specific = 1,
        source = "DIAGNOSES SPK602; PROTOCOL 5.5",
      },
      SPK603 = {
        code = "SPK603",
        name = "update-too-slow",
        severity = "major",
        group = "update",
        title = "An update is too slow for the server",
        short = "Update over its time limit",
        says = "A firmware update goes on steadily but too slowly: the server allows {limit} s for it and stops in the middle.",
        of = "is too slow for an update",
        means = "No part of it is lost; there are too many for the time. The community server allows 60 s for a whole update, the old one 600 s.",
        looks = "Equal frames of 274, 290, 530 or 546 bytes at an even pace, each answered, until the server stops or hangs up a full 60 s or 600 s after it began.",
        led = "magenta until the end, then breathing cyan",
        fix = {
          "Update near the access point, or over USB:",
          "  particle flash --usb FILE",
          "Own server: raise its limit, or use larger chunks and fast updates.",
          "No such frames in a capture of an update that fails: the delay lies before the device, in compiling or in the upload to the server.",
        },
        causes = { "slow link with a long way to the server", "small chunks", "a busy device" },
        settle = "--device-key FILE shows how large the update is, and how long it would have taken.",
        not_it = {
          { "SPK601", "there nothing goes on any more before the limit is over" },
          { "SPK602", "there the same parts are asked for again and again" },
        },
        engineer = "Chunk rate steady, last chunk within a few intervals of begin + 60 s or 600 s, no UpdateDone.",
        specific = 2,
        source = "DIAGNOSES SPK603; PROTOCOL 5.5",
      },
      SPK701 = {
        code = "SPK701",
        name = "midway",
        severity = "info",
        group = "capture",
        title = "The capture begins in mid-connection",
        short = "Capture begun midway",
        says = "The device was already connected when the capture began. The login is not in the file, so it cannot be judged.",
        of = "was already connected when the capture began",
        means = "There is no request to connect. The session key travels only in the login, so no RSA key can open what follows.",
        looks = "No SYN; the first bytes are frames.",
        led = "",
        fix = { "Start the capture first, then press reset on the device." },
        causes = {},
        settle = "A capture with the login in it, or --session-key.",
        not_it = {
          { "SPK801", "no message of this protocol at all, in either direction" },
          { "SPK703", "the beginning is there, something later is missing" },
        },
        engineer = "No SYN and no M3.",
        specific = 0,
        source = "DIAGNOSES SPK701; PROTOCOL 4.5",
      },
      SPK702 = {
        code = "SPK702",
        name = "one-way",
        severity = "info",
        group = "capture",
        title = "Only one direction was captured",
        short = "One-way capture",
        says = "Only packets from the {sender} are in the capture; who was silent cannot be told.",
        of = "was captured in one direction only",
        means = "The other direction took another way, or was filtered out. What it sent is known only by size, from the numbers that acknowledge it.",
        looks = "Acknowledgements of data that is not in the capture.",
        led = "",
        fix = { "Capture both directions: on the router, or with both directions mirrored." },
        causes = {},
        settle = "A capture of both directions.",
        not_it = {
          { "SPK101", "there no packet acknowledges anything that is not in the capture" },
          { "SPK703", "both directions are there, with holes" },
        },
        engineer = "ACK advances over unseen segments; no packet of the other sender.",
        specific = 0,
        source = "DIAGNOSES SPK702",
      },
      SPK703 = {
        code = "SPK703",
        name = "bytes-missing",
        severity = "info",
        group = "capture",
        title = "Bytes are missing from the capture",
        short = "Hole in the capture",
        says = "The capture misses bytes that were on the wire.",
        of = "was captured with holes",
        means = "Packets were not captured, or only their first bytes, or a file of a series is missing. The connection itself need not have lost them.",
        looks = "Sequence numbers that were acknowledged but never captured; captured length below the original; a number skipped in the names of a ring buffer's files.",
        led = "",
        fix = { "Complete next time:", "  tcpdump -s 0 -B 8192 -w FILE port 5683" },
        causes = {},
        settle = "A complete capture.",
        not_it = {
          { "SPK701", "there the beginning is missing, and all the rest is there" },
          { "SPK505", "lost on the network: sent again, and then there" },
          { "SPK501", "there the two ends themselves do not go on" },
          { "SPK702", "there all packets of one end are missing" },
        },
        engineer = "Stream holes, snaplen cuts, damaged records, absent files.",
        specific = 0,
        source = "DIAGNOSES SPK703; PROTOCOL 4.5",
      },
      SPK704 = {
        code = "SPK704",
        name = "copies-and-checksums",
        severity = "info",
        group = "capture",
        title = "The capture holds packets twice, or with wrong checksums",
        short = "Capture artefacts",
        says = "The capture holds {what}; this was taken into account.",
        of = "was captured with copies or wrong checksums",
        means = "Mirror ports and \"any\" interfaces record a packet twice; a computer that captures its own packets sees their checksums before the network card has filled them in.",
        looks = "The same packet again within a millisecond, or on another interface.",
        led = "",
        fix = {},
        causes = {},
        settle = "The same capture without the copies: editcap -d FILE NEW",
        not_it = {
          { "SPK505", "sent again by the device or the server: another IP ID, a pause before it" },
          { "SPK210", "two connections, each with TCP sequence numbers of its own, hold the same bytes" },
        },
        engineer = "Same IP ID, sequence, flags and length; checksum wrong for one sender only.",
        specific = 0,
        source = "DIAGNOSES SPK704",
      },
      SPK705 = {
        code = "SPK705",
        name = "vantage-point",
        severity = "info",
        group = "capture",
        title = "What can be seen from where the capture was made",
        short = "Wrong place to capture",
        says = "{what}",
        of = "cannot be seen from here",
        means = "Where the capture is made decides what can be seen.",
        looks = "Encrypted Wi-Fi frames, or only broadcasts.",
        led = "",
        fix = { "Capture on the router or on the server's computer." },
        causes = {},
        settle = "A capture made where the device's packets pass.",
        not_it = { { "SPK706", "all can be read, and none of it is a Spark connection" } },
        engineer = "Monitor mode without keys shows no IP.",
        specific = 0,
        source = "DIAGNOSES SPK705",
      },
      SPK706 = {
        code = "SPK706",
        name = "no-spark-traffic",
        severity = "info",
        group = "capture",
        title = "No Spark traffic in the capture",
        short = "No Spark traffic",
        says = "None of the {packets} belongs to a Spark connection.",
        of = "is not in the capture",
        means = "No TCP conversation on port 5683 (or the ports given) is in the capture.",
        looks = "Other traffic only.",
        led = "",
        fix = {
          "Capture where the device's packets pass: on the router or on the server. Another computer in the Wi-Fi does not see them.",
          "Capture, reset the device, wait 60 s. Other port: --port N",
        },
        causes = {},
        settle = "A capture of the device's start, made where its packets pass.",
        not_it = {
          { "SPK705", "there is traffic of the device, but not to be read" },
          { "SPK701", "a connection that began before the capture is still one" },
        },
        engineer = "No segment to or from the wanted ports.",
        specific = 0,
        source = "DIAGNOSES SPK706",
      },
      SPK801 = {
        code = "SPK801",
        name = "other-protocol",
        severity = "info",
        group = "not Spark",
        title = "Another protocol on this port",
        short = "Another protocol",
        says = "{what}",
        of = "speaks another protocol",
        means = "The port number alone makes no Spark connection. Here the other side speaks first, or the bytes are those of another protocol.",
        looks = "The connecting side speaks first: genuine CoAP over TCP, TLS, HTTP.",
        led = "",
        fix = { "Nothing here: this is no Spark device's connection. A Spark server on another port: add --port N." },
        causes = {},
        settle = "What runs on both ends of the connection.",
        not_it = {
          { "SPK701", "there messages follow each other by their lengths, from both sides" },
          { "SPK103", "there the device dials, and the other side speaks first" },
          { "SPK401", "a Spark connection that Wireshark shows as CoAP" },
        },
        engineer = "RFC 8323 messages that parse to their exact ends, a CSM (7.01) first; or a TLS ClientHello.",
        specific = 0,
        source = "DIAGNOSES SPK801",
      },
    },
    SEVERITY_ORDER = { "critical", "major", "minor", "info", "ok" },
    STATE_OF_GROUP = {
      healthy = "WORKING",
      connectivity = "NOT CONNECTING",
      handshake = "NOT CONNECTING",
      keys = "NOT CONNECTING",
      session = "KEEPS DROPPING",
      update = "UPDATE FAILS",
    },
  },
  frames = { CHAIN = 3, LOST_LISTED = 16, SEARCH_WINDOW = 4104, STRIDE = 256 },
  handshake = {
    CUTS = 16,
    HELD = 2052,
    OPENING = 1024,
    STEPS = { server = { { "nonce", 40 }, { "session", 384 } }, device = { { "identity", 256 } } },
  },
  histories = { LASTS = 2, STEADY = 3 },
  keys = {
    der = {
      BIT_STRING = 3,
      EC_ID = "*\134H\206=\002\001",
      EXPLICIT_0 = 160,
      INTEGER = 2,
      LONGEST_LENGTH = 3,
      MOST_CHILDREN = 16,
      OBJECT_ID = 6,
      OCTET_STRING = 4,
      PBES_IDS = { "*\134H\134\247\013\001\005\013", "*\134H\134\247\013\001\012\001" },
      RSA_ID = "*\134H\134\247\013\001\001\001",
      SEQUENCE = 48,
    },
    dumps = {
      BLANK_PROBE = 512,
      CORE_PLACES = { [8192] = "device's private key", [4096] = "server's public key" },
      DCT_ELLIPTIC_PLACES = { 3106, 3298 },
      DCT_PLACES = { [34] = "device's private key", [2082] = "server's public key" },
      DCT_SIZE = 16384,
      ELLIPTIC_AT = "an elliptic-curve key at {at}, for UDP only",
      ERASED_SLOT = "the slot of the {what} is erased",
      FLASH_SIZE = 2097152,
      MOST_KEYS = 16,
      SERVER_SLOT = 2048,
    },
    firmware = {
      CONTRADICTION = "its numbers contradict each other",
      FIRST_STEP = 9,
      NUMBER_NAMES = { "n", "d", "p", "q", "dP", "dQ", "qInv" },
      NUMBER_SIZES = { 128, 128, 64, 64, 64, 64, 64 },
      PRIVATE_SLOT = 612,
      SHORT_NUMBER = "{name} is {short} bytes, not {size}",
      STEPS = { 135, 129, 65, 65, 65, 65, 0 },
      WRONG_BITS = "the key has {bits} bits, not {wanted}",
      WRONG_EXPONENT = "e is {e}, and the firmware assumes {wanted}",
      WRONG_PLACES = "{names} lie where the firmware does not look",
    },
    inspect = {
      CAPTURE_MAGICS = { "\212\195\178\161", "\161\178\195\212", "M<\178\161", "\161\178<M", "\010\013\013\010" },
      ENCRYPTED_HEADER = "Proc-Type: 4,ENCRYPTED",
      ENCRYPTED_LABEL = "ENCRYPTED PRIVATE KEY",
      HTML_STARTS = { "<!doctype html", "<html", "<head", "<?xml", "http/1." },
      LONGEST_PEM_BLOCK = 65536,
      LONGEST_PEM_LABEL = 64,
      MOST_PEM_BLOCKS = 16,
      PARAMETERS_LABEL = " PARAMETERS",
      PEM_START = "-----BEGIN ",
      REMARKS = {
        empty = "empty (0 bytes)",
        blank = "an erased slot: {size} bytes without a key",
        cut = "cut short: {size} of {length} bytes",
        html = "a web page, not a key: the download went wrong",
        capture = "a packet capture, not a key",
        pem = "PEM text without a readable key in it",
        ["pem-cut"] = "PEM text that is cut short",
        encrypted = "a private key locked with a password",
        certificate = "a certificate without an RSA key",
        ["elliptic-curve"] = "an elliptic-curve key, as the UDP devices use (Electron, Argon and later); this protocol needs RSA",
        text = "text, not a key",
        unknown = "no key in it",
        large = "larger than any key file or flash dump",
      },
      SMALLEST_DUMP = 2049,
      TEXT_PROBE = 512,
      UTF16_MARKS = { ["utf-16-le"] = "\255\254", ["utf-16-be"] = "\254\255" },
      UTF16_PROBE = 4096,
      UTF8_MARK = "\239\187\191",
    },
    keylog = {
      LABEL = "SPARK_SESSION",
      LARGEST_KEY_LOG = 67108864,
      LONGEST_LINE = 512,
      MOST_BAD_LINES = 100,
      NOT_HEX = "the {what} has no hex digit at character {at}",
      NOT_LABELLED = "does not begin with {label}",
      WRONG_DIGITS = "the {what} has {count} hex digits, not {wanted}",
      WRONG_FIELDS = "{label} is followed by {count} fields, not 2",
    },
    model = { DEVICE_BITS = 1024, EXPONENT = 65537, ROLES = { [1024] = "device", [2048] = "server" } },
    ring = {
      BAD_LINE = "{name}: line {number}: {reason}; passed over.",
      LARGEST_KEY_FILE = 4194304,
      PUBLIC_GIVEN = "{name}: the public half of a device key opens nothing. The private key is wanted.",
      ROLE_SWAPPED = "{name}: {option} was given a {bits}-bit key, a {role}'s; it is used as that.",
    },
    structures = { EC_POINT_SIZES = { 32, 48, 66 }, SMALLEST_MODULUS_BITS = 512 },
  },
  kinds = {
    CLIENT_HELLO = "\001",
    COAP_MESSAGES = 3,
    CODE_CLASSES = { 0, 2, 4, 5, 7 },
    CSM = 225,
    EXTENDED = { [13] = { 1, 13 }, [14] = { 2, 269 }, [15] = { 4, 65805 } },
    FEWEST_LETTERS = 8,
    LARGEST_RECORD = 16640,
    LETTERS_WHEN_CUT = 16,
    LONGEST_TOKEN = 8,
    MARKS = {
      { "SSH-", "ssh" },
      { "HTTP/", "http" },
      { "<!DOCTYPE", "http" },
      { "<html", "http" },
      { "<HTML", "http" },
    },
    PLENTY = 4096,
    PRINTABLE_SHARE = 0.95,
    REQUESTS = { "GET ", "POST ", "PUT ", "HEAD ", "OPTIONS ", "CONNECT ", "DELETE ", "PATCH " },
    TLS_RECORDS = { "\022\003", "\021\003" },
  },
  message_table = {
    ACK_OF_UNKNOWN = { name = "Ack", meaning = "acknowledges a message that is not in the capture" },
    DEFAULT_TTL = 60,
    DESCRIBE_FLAGS = { [1] = "system", [2] = "application", [4] = "metrics" },
    DEVICE = "device",
    ERROR_ACK_OF_UNKNOWN = { name = "ErrorAck", meaning = "refuses a message that is not in the capture" },
    ERROR_RESPONSE_TO_UNKNOWN = { name = "ErrorResponse", meaning = "refuses a request that is not in the capture" },
    FAST_UPDATE = 1,
    GOODBYE_FIELDS = { [1] = "cloud_reason", [2] = "reset_reason", [4] = "sleep_seconds", [8] = "network_reason" },
    HELLO_FLAGS = {
      [1] = "update_applied",
      [2] = "diagnostics",
      [4] = "immediate_updates",
      [8] = "handshake_complete",
      [16] = "goodbye",
      [32] = "device_initiated_describe",
      [64] = "compressed_ota",
      [128] = "ota_v3",
    },
    MESSAGES = {
      {
        name = "Hello",
        senders = { "device" },
        types = { "NON" },
        codes = { "0.02" },
        path = "h",
        query = "",
        token = "",
        payload = "product, firmware version, flags, platform; 13 more bytes in 3.x",
        payload_sizes = { 0, nil },
        answered_by = {},
        repeats = false,
        generations = "all",
        section = "7.1",
        meaning = "the device has the session key and says what it is",
      },
      {
        name = "Hello",
        senders = { "server" },
        types = { "NON" },
        codes = { "0.02" },
        path = "h",
        query = "",
        token = "legacy server 01, community server none",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "all",
        section = "5.4.1",
        meaning = "the server has understood the device's hello: logged in",
      },
      {
        name = "Ping",
        senders = { "device", "server" },
        types = { "CON" },
        codes = { "0.00" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = { "PingAck" },
        repeats = false,
        generations = "all; servers answer pings and are not known to send any",
        section = "5.4.3",
        meaning = "is the other side still there?",
      },
      {
        name = "PingAck",
        senders = { "server", "device" },
        types = { "ACK" },
        codes = { "0.00" },
        path = "",
        query = "",
        token = "legacy server 00 (5.4.2)",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "all",
        section = "5.4.3",
        meaning = "yes, still here",
      },
      {
        name = "Goodbye",
        senders = { "device" },
        types = { "NON" },
        codes = { "0.02" },
        path = "x",
        query = "",
        token = "",
        payload = "varints: flags, then a reason for each",
        payload_sizes = { 0, nil },
        answered_by = {},
        repeats = false,
        generations = "2.x and later",
        section = "5.4.15",
        meaning = "the device hangs up on purpose and says why",
      },
      {
        name = "TimeRequest",
        senders = { "device" },
        types = { "CON" },
        codes = { "0.01" },
        path = "t",
        query = "",
        token = "1 byte",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = { "TimeResponse" },
        repeats = false,
        generations = "all",
        section = "5.4.4",
        meaning = "the device asks for the time",
      },
      {
        name = "TimeResponse",
        senders = { "server" },
        types = { "ACK" },
        codes = { "2.05" },
        path = "",
        query = "",
        token = "the request's",
        payload = "seconds since 1970, 4 bytes",
        payload_sizes = { 4, 4 },
        answered_by = {},
        repeats = false,
        generations = "all",
        section = "5.4.4",
        meaning = "the time",
      },
      {
        name = "Event",
        senders = { "device" },
        types = { "NON", "CON" },
        codes = { "0.02" },
        path = "eE",
        query = "",
        token = "",
        payload = "data, or none",
        payload_sizes = { 0, nil },
        answered_by = { "EventAck" },
        repeats = false,
        generations = "all; CON only with acknowledgement on request, 0.6 and later",
        section = "5.4.5",
        meaning = "the device publishes: e public, E private",
      },
      {
        name = "Event",
        senders = { "server" },
        types = { "NON" },
        codes = { "0.02" },
        path = "eE",
        query = "",
        token = "",
        payload = "data, or none",
        payload_sizes = { 0, nil },
        answered_by = {},
        repeats = false,
        generations = "all; the name split at slashes, Max-Age always: legacy shortest, community 4 bytes",
        section = "5.4.7",
        meaning = "an event that the device has subscribed to",
      },
      {
        name = "EventAck",
        senders = { "server" },
        types = { "ACK" },
        codes = { "0.00", "4.00", "0.04" },
        path = "",
        query = "",
        token = "legacy server 00",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "legacy server: 4.00 to every user event (9.7); community server: 0.04 refuses (9.5)",
        section = "5.4.6",
        meaning = "the server has the event",
      },
      {
        name = "Subscribe",
        senders = { "device" },
        types = { "CON" },
        codes = { "0.01" },
        path = "e",
        query = "u: only the owner's devices",
        token = "",
        payload = "one device's id as text, or none",
        payload_sizes = { 0, 24 },
        answered_by = { "SubscribeAck" },
        repeats = false,
        generations = "all",
        section = "5.4.8",
        meaning = "the device wants events whose name begins so",
      },
      {
        name = "SubscribeAck",
        senders = { "server" },
        types = { "ACK" },
        codes = { "0.00", "4.00", "0.04" },
        path = "",
        query = "",
        token = "legacy server 00",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "community server: 0.04 is its refusal (9.5)",
        section = "5.4.8",
        meaning = "the subscription stands",
      },
      {
        name = "Describe",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.01" },
        path = "d",
        query = "from 0.6.1 on flags: 1 system, 2 application, 4 metrics",
        token = "1 byte",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = { "DescribeAck", "DescribeResponse" },
        repeats = false,
        generations = "all",
        section = "5.4.9",
        meaning = "the server asks for functions, variables and modules",
      },
      {
        name = "DescribeAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "0.00" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "2.x and later",
        section = "5.4.9",
        meaning = "the description follows",
      },
      {
        name = "DescribeResponse",
        senders = { "device" },
        types = { "ACK", "CON" },
        codes = { "2.05" },
        path = "",
        query = "",
        token = "the request's",
        payload = "JSON; metrics are binary and begin 00 04 00",
        payload_sizes = { 0, nil },
        answered_by = { "DescribeResponseAck" },
        repeats = true,
        generations = "ACK to 1.x, twice from 0.4.4 to 0.6.0 (9.11); CON from 2.x on",
        section = "7.2",
        meaning = "functions, variables and modules of the device",
      },
      {
        name = "DescribeResponseAck",
        senders = { "server" },
        types = { "ACK" },
        codes = { "0.00" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "2.x and later",
        section = "5.4.9",
        meaning = "the server has the description",
      },
      {
        name = "DescribePost",
        senders = { "device" },
        types = { "CON" },
        codes = { "0.02" },
        path = "d",
        query = "flags: 1 system, 2 application, 4 metrics",
        token = "",
        payload = "JSON",
        payload_sizes = { 0, nil },
        answered_by = { "DescribePostAck" },
        repeats = false,
        generations = "2.x and later, on demand",
        section = "5.3",
        meaning = "the device describes itself unasked",
      },
      {
        name = "DescribePostAck",
        senders = { "server" },
        types = { "ACK" },
        codes = { "0.00", "2.04" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "2.x and later",
        section = "5.3",
        meaning = "the server has the description",
      },
      {
        name = "FunctionCall",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.02" },
        path = "f",
        query = "the argument; the legacy server splits it at every &",
        token = "1 byte",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = { "FunctionCallAck", "FunctionReturn" },
        repeats = false,
        generations = "all",
        section = "5.4.10",
        meaning = "the server calls a function of the user's program",
      },
      {
        name = "FunctionCallAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "0.00", "0.01", "4.00" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "refusal: 0.01 in 0.4.0-0.4.8-rc.1 (9.3), 4.00 later (9.4)",
        section = "5.4.10",
        meaning = "the device has the call and runs the function",
      },
      {
        name = "FunctionReturn",
        senders = { "device" },
        types = { "NON" },
        codes = { "2.04" },
        path = "",
        query = "",
        token = "the call's",
        payload = "4 bytes, signed, big-endian",
        payload_sizes = { 4, 4 },
        answered_by = {},
        repeats = false,
        generations = "all",
        section = "5.4.10",
        meaning = "what the function returned",
      },
      {
        name = "VariableRequest",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.01" },
        path = "v",
        query = "",
        token = "1 byte",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = { "VariableRequestAck", "VariableValue" },
        repeats = false,
        generations = "all",
        section = "5.4.11",
        meaning = "the server reads a variable of the user's program",
      },
      {
        name = "VariableRequestAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "0.00", "4.04" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "1.5 and later",
        section = "5.4.11",
        meaning = "the value follows",
      },
      {
        name = "VariableValue",
        senders = { "device" },
        types = { "ACK", "NON" },
        codes = { "2.05" },
        path = "",
        query = "",
        token = "the request's",
        payload = "by type: bool 1 byte, int 4 big-endian, double 8 little-endian, or text",
        payload_sizes = { 0, nil },
        answered_by = {},
        repeats = false,
        generations = "in the ACK to 1.4, separate from 1.5 on",
        section = "5.4.11",
        meaning = "the variable's value",
      },
      {
        name = "Signal",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.03" },
        path = "s",
        query = "01 on, 00 off",
        token = "1 byte",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = { "SignalAck" },
        repeats = false,
        generations = "all",
        section = "5.4.12",
        meaning = "the LED shall shout rainbows, or stop",
      },
      {
        name = "SignalAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "2.04" },
        path = "",
        query = "",
        token = "the request's",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "all",
        section = "5.4.12",
        meaning = "done",
      },
      {
        name = "UpdateBegin",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.02" },
        path = "u",
        query = "",
        token = "1 byte",
        payload = "flags, chunk size, file length, store, address: 12 bytes, or none",
        payload_sizes = { 0, 12 },
        answered_by = { "UpdateBeginAck", "UpdateReady", "UpdateAbort" },
        repeats = false,
        generations = "all",
        section = "5.5",
        meaning = "the server wants to send new firmware",
      },
      {
        name = "UpdateBeginAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "0.00", "0.01", "4.00", "5.03" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "refusal: 0.01 in 0.4.0-0.4.8-rc.1 (9.3), 4.00 later, 5.03 on Photon by 1.2.1",
        section = "5.5",
        meaning = "the device has the announcement",
      },
      {
        name = "SaveBegin",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.02" },
        path = "s",
        query = "",
        token = "1 byte",
        payload = "as UpdateBegin",
        payload_sizes = { 0, 12 },
        answered_by = { "SaveBeginAck", "UpdateReady", "UpdateAbort" },
        repeats = false,
        generations = "understood from 0.4 on",
        section = "5.2",
        meaning = "the server wants to store a file",
      },
      {
        name = "SaveBeginAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "0.00", "0.01", "4.00", "5.03" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "understood from 0.4 on",
        section = "5.2",
        meaning = "the device has the announcement",
      },
      {
        name = "UpdateReady",
        senders = { "device" },
        types = { "NON" },
        codes = { "2.04" },
        path = "",
        query = "",
        token = "the announcement's",
        payload = "none from early Cores; then 00 slow or 01 fast update",
        payload_sizes = { 0, 1 },
        answered_by = {},
        repeats = false,
        generations = "all",
        section = "5.5",
        meaning = "the device is ready for chunks",
      },
      {
        name = "UpdateAbort",
        senders = { "device" },
        types = { "NON" },
        codes = { "4.00" },
        path = "",
        query = "",
        token = "the announcement's",
        payload = "reason, 1 byte",
        payload_sizes = { 1, 1 },
        answered_by = {},
        repeats = false,
        generations = "servers listen for it; no known device sends it",
        section = "5.3",
        meaning = "the device gives the update up",
      },
      {
        name = "Chunk",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.02" },
        path = "c",
        query = "CRC-32 of the data, 4 bytes; fast update: then the index, 2 bytes",
        token = "1 byte",
        payload = "data; the last chunk is filled up with zeros",
        payload_sizes = { 0, nil },
        answered_by = { "ChunkAck", "ChunkReceived" },
        repeats = false,
        generations = "all",
        section = "5.5",
        meaning = "a piece of the firmware",
      },
      {
        name = "ChunkAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "0.00" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "fast update: not from 0.7 on",
        section = "5.5",
        meaning = "the chunk has arrived",
      },
      {
        name = "ChunkReceived",
        senders = { "device" },
        types = { "NON" },
        codes = { "2.04", "4.00" },
        path = "",
        query = "",
        token = "the chunk's",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "fast update: not from 0.7 on",
        section = "5.5",
        meaning = "2.04: the chunk is stored; 4.00: its CRC is wrong",
      },
      {
        name = "ChunkMissed",
        senders = { "device" },
        types = { "CON", "NON" },
        codes = { "0.01" },
        path = "c",
        query = "",
        token = "",
        payload = "indexes, 2 bytes each",
        payload_sizes = { 0, nil },
        answered_by = { "ChunkMissedAck" },
        repeats = false,
        generations = "CON; NON from 2.x on",
        section = "5.5",
        meaning = "the device asks for chunks again",
      },
      {
        name = "ChunkMissedAck",
        senders = { "server" },
        types = { "ACK" },
        codes = { "0.00" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "all",
        section = "5.5",
        meaning = "the server has the list",
      },
      {
        name = "UpdateDone",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.03" },
        path = "u",
        query = "",
        token = "1 byte",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = { "UpdateDoneAck" },
        repeats = false,
        generations = "all",
        section = "5.5",
        meaning = "all chunks are sent",
      },
      {
        name = "UpdateDoneAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "2.04", "4.00" },
        path = "",
        query = "",
        token = "the request's",
        payload = "none; from 0.7 on the new modules as JSON",
        payload_sizes = { 0, nil },
        answered_by = {},
        repeats = false,
        generations = "all",
        section = "5.5",
        meaning = "2.04: all there, the device restarts; 4.00: chunks are missing",
      },
      {
        name = "UpdateDone",
        senders = { "device" },
        types = { "NON" },
        codes = { "0.03" },
        path = "u",
        query = "",
        token = "",
        payload = "none, or the new modules as JSON",
        payload_sizes = { 0, nil },
        answered_by = {},
        repeats = false,
        generations = "Core from 0.4 on, Photon to early 0.8",
        section = "5.5",
        meaning = "the last missing chunk has arrived; the device restarts",
      },
      {
        name = "KeyChange",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.03" },
        path = "k",
        query = "",
        token = "1 byte",
        payload = "",
        payload_sizes = { 0, nil },
        answered_by = { "KeyChangeAck" },
        repeats = false,
        generations = "no known server sends it",
        section = "5.4.14",
        meaning = "change the session key",
      },
      {
        name = "KeyChangeAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "0.00", "2.04" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "Photon from 0.8 on, with a fresh id in place of the request's",
        section = "5.4.14",
        meaning = "taken note of",
      },
      {
        name = "ServerMoved",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.02" },
        path = "M",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, nil },
        answered_by = { "ServerMovedAck" },
        repeats = false,
        generations = "later than this protocol",
        section = "5.2",
        meaning = "connect to another server",
      },
      {
        name = "ServerMovedAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "0.00", "2.04" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "later than this protocol",
        section = "5.2",
        meaning = "taken note of",
      },
      {
        name = "OtaStart",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.02" },
        path = "S",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, nil },
        answered_by = { "OtaStartAck" },
        repeats = false,
        generations = "later than this protocol",
        section = "5.2",
        meaning = "begin of an update, third edition",
      },
      {
        name = "OtaStartAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "0.00", "2.04" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "later than this protocol",
        section = "5.2",
        meaning = "ready",
      },
      {
        name = "OtaChunk",
        senders = { "server" },
        types = { "CON", "NON" },
        codes = { "0.02" },
        path = "C",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, nil },
        answered_by = {},
        repeats = false,
        generations = "later than this protocol",
        section = "5.2",
        meaning = "a piece of the firmware, third edition",
      },
      {
        name = "OtaFinish",
        senders = { "server" },
        types = { "CON" },
        codes = { "0.02" },
        path = "F",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, nil },
        answered_by = { "OtaFinishAck" },
        repeats = false,
        generations = "later than this protocol",
        section = "5.2",
        meaning = "end of an update, third edition",
      },
      {
        name = "OtaFinishAck",
        senders = { "device" },
        types = { "ACK" },
        codes = { "0.00", "2.04" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "later than this protocol",
        section = "5.2",
        meaning = "finished",
      },
      {
        name = "Reset",
        senders = { "device", "server" },
        types = { "RST" },
        codes = { "0.00" },
        path = "",
        query = "",
        token = "",
        payload = "",
        payload_sizes = { 0, 0 },
        answered_by = {},
        repeats = false,
        generations = "Photon from 0.8 on can write it, none does over TCP",
        section = "5.4.13",
        meaning = "the message was not understood",
      },
    },
    METRICS_PREFIX = "\000\004\000",
    MISCODED_ERRORS = { ["0.01"] = "4.00", ["0.04"] = "4.00" },
    PLATFORMS = { [0] = "Core", [3] = "virtual device", [6] = "Photon", [8] = "P1", [10] = "Electron" },
    RESPONSE_TO_UNKNOWN = { name = "Response", meaning = "answers a request that is not in the capture" },
    SERVER = "server",
    SYSTEM_EVENT_PREFIX = "spark",
    UPDATE_STORES = { [0] = "firmware", [1] = "system storage", [128] = "application" },
    VARIABLE_SIZES = { [1] = "bool", [4] = "int32", [8] = "double" },
    VARIABLE_TYPES = { [1] = "bool", [2] = "int32", [4] = "string", [9] = "double" },
  },
  messages = {
    describe = {
      DEEPEST_DESCRIPTION = 16,
      FUNCTIONS = {
        n = "none",
        r = "resource",
        b = "bootloader",
        m = "mono",
        s = "system",
        u = "user",
        c = "NCP",
        a = "radio",
      },
      LARGEST_DESCRIPTION = 65536,
      LOCATIONS = { m = "main", b = "backup", f = "factory", t = "scratch" },
      MODULE_KEYS = {
        s = "size",
        l = "location",
        vc = "checks_made",
        vv = "checks_passed",
        u = "sha256",
        f = "function",
        n = "name",
        v = "version",
        d = "dependencies",
      },
      MOST_DIGITS = 4300,
      PROBLEMS = {
        too_long = "longer than 65536 bytes",
        too_deep = "nested deeper than 16",
        not_json = "not JSON",
        no_object = "not a JSON object",
      },
    },
    peers = {
      COMMUNITY = "community",
      CORE = 0,
      DIAGNOSING_PHOTON = { "G2b", "0.8 to 1.1" },
      EITHER_ORDER = "either",
      ELECTRON = 10,
      G1A = "G1a",
      G2B = "G2b",
      G2B_OR_G2C = "G2b or G2c",
      HIGH_FIRST = "high-first",
      IGNORES_REFUSALS = { G1a = true, ["G2b or G2c"] = true, G2b = true, G2c = true, G2d = true },
      LAST_SEPARATE_PHOTON = { "G2c", "1.5" },
      LATER_CORE = { "G1b", "0.4 to 1.4" },
      LEGACY = "legacy",
      LOW_FIRST = "low-first",
      NEITHER_ORDER = "neither",
      P1 = 8,
      PHOTON = 6,
      PHOTON_BY_FLAG = { { 16, { "G2c", "2.x" } }, { 4, { "G2b or G2c", "1.2 to 1.5" } }, { 2, { "G2b", "0.8 to 1.1" } } },
      UNFLAGGED_PHOTON = { "G2a", "0.4 to 0.7" },
      WITHOUT_PLATFORM = { "G1a", "up to 0.3" },
      WITH_3X_HELLO = { "G2d", "3.x" },
    },
    reader = { DESCRIPTIONS = { DescribePost = true, DescribeResponse = true }, MOST_OUTSTANDING = 512 },
    routes = {
      BEHIND_ERRORS = 192,
      BEHIND_SUCCESS = 96,
      CHANGED = 68,
      FIRST_ERROR = 128,
      FIRST_RESPONSE = 64,
      MISCODED = { [1] = true, [4] = true },
      OTHER_SIDE = { device = "server", server = "device" },
    },
    summary = {
      COUNTED = { { "function", "functions" }, { "variable", "variables" }, { "module", "modules" } },
      INDEXES_SHOWN = 4,
      LONGEST_QUOTE = 60,
      NOT_KNOWN = "?",
      PHRASES = {
        front_lost = "(front lost)",
        lost = "first {} bytes lost, {}",
        nothing_left = "nothing is left",
        left = "{} left",
        not_coap = "not readable as CoAP: {}",
        habit_harmless = "this server's habit, harmless",
        habit = "this server's habit, some firmware hangs up on it",
        refused = "refused",
        miscoded = "{}, miscoded as {}",
        reason = "reason {}",
        product = "product {}",
        firmware = "firmware {}",
        platform = "platform {}",
        event = "{}, {}, {} s",
        subscribe = "{}, {}",
        own_events = "own devices' events",
        all_events = "everyone's events",
        metrics = "metrics",
        not_readable = "not readable: {}",
        repeated = ", said again",
        no_value = "no readable {}",
        guessed = " ({} by its length)",
        no_particulars = "without particulars",
        update = "{} in chunks of {}{}",
        fast_offered = ", fast if the device can",
        fast = "fast",
        slow = "one chunk at a time",
        chunk_index = "number {}",
        no_crc = "no CRC",
        crc_right = "CRC right",
        crc_wrong = "CRC wrong",
        chunk = "chunk {}",
        chunks = "chunks {}",
        more = " and {} more",
        no_index = "no index",
        on = "on",
        off = "off",
      },
      PLAIN_CHARACTERS = "A-Za-z0-9_./:-",
      REFUSALS = { ChunkReceived = "not accepted, its CRC did not fit", UpdateDoneAck = "chunks are missing" },
      TIME_FORMAT = "%Y-%m-%d %H:%M:%S UTC",
    },
    values = { HELLO_3X_SIZE = 20, LONGEST_VARINT = 10, MOST_CHUNK_INDEXES = 512 },
  },
  pipeline = {
    DEAD_KEYS = { ["zero key"] = "an all-zero key", ["key of an earlier session"] = "the key of an earlier session" },
  },
  recognition = {
    together = { HELLO_WAIT = { { { G1b = true, G2a = true }, 2.0 }, { { G2b = true, G2c = true, G2d = true }, 4.0 } } },
  },
  report = {
    explained = { ANY_SERVER = { server = "SERVER", port = "5683", mac = "" } },
    layout = { ASIDE_FOR_ALL = "\194\183 Own server" },
    several = {
      FAILING = "FAILING",
      NAMED = 3,
      OTHER_WAY = "1 other device fails in another way.",
      OTHER_WAYS = "{devices} fail in other ways.",
      SAME_SERVER = "{names} {works} with the same server, so network and server are fine.",
      THE_SAME = "The same for {names}.",
      WORKS = { "logs in and stays connected", "log in and stay connected" },
    },
    story = {
      AT_TIMES = " It fails now and then: {failed} of {attempts}.",
      AT_TIMES_NOT_NOW = "The last attempt worked, but {failed} of {attempts} failed, now and then: {summary}",
      CANNOT_TELL = "CANNOT TELL",
      CAPTURE_AGAIN = {
        "Start the capture first, then press reset on the device, and wait 60 seconds. How to capture:",
        "  sparkshark explain capture",
      },
      CONNECTED = "CONNECTED",
      CUT_SHORT = "The capture cut packets short, so {size} are missing in it; the connection had them.",
      FAILS_NOW = " It worked until packet {until}, and fails since packet {since}.",
      IF_IT_FAILS_AGAIN = "Nothing, as long as it works. If it fails again:",
      LOGS_IN_NOW = "The device logs in now (from packet {packet} on). Before that, {attempts} failed: {summary}",
      LOOKS_HEALTHY = "; what follows it looks healthy.",
      MISSES = "The capture misses {size}; the connection does not.",
      NO_SUCCESS = " {attempts} in {span}, no success.",
      NO_TRAFFIC = "NO SPARK TRAFFIC",
      ONE_WAY_WORKS = "The device seems to log in and to stay connected, as far as one direction can show it: only packets from the {sender} are in the capture.",
      REPEATED = 9,
      SIDE_REMARKS = { "SPK105", "SPK106", "SPK209", "SPK210", "SPK505", "SPK703", "SPK704", "SPK207", "SPK401" },
      TOO_LITTLE = "What the capture shows is too little for a verdict.",
      UNSAID = { "SPK401", "SPK704" },
      WORKS_DESPITE = "The device logs in and stays connected. {missing}",
    },
    verdict = { NO_TRAFFIC = "NO SPARK TRAFFIC" },
  },
  rsa = { LARGEST_MODULUS_BITS = 8192, LEAST_PADDING = 8, SMALLEST_MODULUS_BITS = 256 },
  rules = {
    capture = { GAPS_TOLD = 4 },
    connectivity = {
      DEAD_PING_AFTER = 13500000000.0,
      ENOUGH_SYNS = 2,
      LONE_SYN = 3000000000,
      LOST_PATIENCE = 10000000000.0,
      MIDDLEBOX_HOPS = 2,
    },
    device = { ANSWERS_A_FIN = 5000000000, DEAD_SILENCE = 40000000000, GONE = 20000000000, OVERLAP = 2000000000 },
    facts = { AT_ONCE = 1000000000 },
    handshake = {
      ENOUGH_SILENCE = 19000000000.0,
      IDENTITY_WAIT = 40000000000.0,
      PIECES_TOLD = 4,
      PROBE = 200000000,
      SERVER_PATIENCE = 5000000000,
    },
    keys = {
      EXPLAIN_SILENCE = { "SPK301", "SPK303", "SPK305", "SPK306" },
      places = { MOST_TESTED = 64, NAMED_KEYS = 3 },
      session = { HANGS_UP = 300000000, LONG_ARGUMENT = 64 },
    },
    reply = {
      DEAD_TOLD = 3,
      LATE_HELLO = 5000000000.0,
      NEARLY = 0.9,
      REPLY_ENDS = 424,
      ROUND_TRIP = 1500000000.0,
      SLOW_DEVICE = 5000000000,
      SLOW_LOGIN = 8000000000,
      SLOW_SERVER = 2000000000,
      TIMER_SLACK = 0.06,
    },
    session = {
      ANSWER_SLACK = 0.95,
      ASKS = 2,
      CARRIES_ON = 3,
      GIVEN_UP_AFTER = 10000000000,
      GIVEN_UP_TRIES = 3,
      PATIENT = 1.25,
      REPORTS = 3,
      STORM_SEGMENTS = 20,
      STORM_SHARE = 0.05,
    },
    words = {
      BECAUSE_ALL_ALIKE = "that the server's program is the cause: all devices fail alike.",
      BECAUSE_BOTH_HELLOS = ": both hellos open with {source}.",
      BECAUSE_CANNOT_USE_IT = "that it cannot use the reply.",
      BECAUSE_CUT_BY_LIMIT = "that the server's limit of {limit} s for a login cut it.",
      BECAUSE_CUT_OFF = "that the connection is cut off at once.",
      BECAUSE_DEVICE_HANGS = "that the device hangs, or cannot use the server key stored in it.",
      BECAUSE_DEVICE_STOPPED = "that the device stopped in mid-update.",
      BECAUSE_DROPPED = "that something on the way drops TCP port {port}. A server that is switched off looks the same.",
      BECAUSE_HELLO_OPENS = ": the hello opens with {source}, so the keys are right and the server does not answer.",
      BECAUSE_HOLDS_OTHER = "that the device holds another key than {file}: this file opens the reply, and the device cannot. If it was read out of this very device just now, the device hangs.",
      BECAUSE_IDENTITY_UNLIKELY = "that \"who I am\" was not locked with {keys}{premise}",
      BECAUSE_IF_AMONG = ", if this device's key is among those given.",
      BECAUSE_IF_AMONG_SERVER_KEYS = ", if the key of the server that was called is among those given.",
      BECAUSE_IF_HELD = ", if {file} is what the device holds.",
      BECAUSE_IF_INSIDE = ", if {file} is the key inside this device{check}.",
      BECAUSE_IF_ON_FILE = ", if {file} is what the server has on file.",
      BECAUSE_IF_SERVER_KEY = ", if {file} is the key of the server that was called.",
      BECAUSE_KEY_NOT_ON_FILE = "that the server waits for a key that is not on file.",
      BECAUSE_KEY_NOT_USABLE = "that the server could not find or use this device's key.",
      BECAUSE_KNOWN_AND_REFUSED = "that the server's program is the cause, if {file} is what it has on file.",
      BECAUSE_LOCKED_FOR_OTHER = ": \"who I am\" is locked for {key}, which is not this server's key.",
      BECAUSE_LOGGED_IN_WITH = ": the device logged in with {file} (from packet {packet} on).",
      BECAUSE_LOST_LINK = "that the {sender} lost its link or its power.",
      BECAUSE_NOTHING_ARRIVES = "that nothing from the {sender} arrives any more.",
      BECAUSE_NOT_LOCKED = "\"who I am\" was not locked with {key}: it is too large a number for that.",
      BECAUSE_NOT_ON_FILE = "that the server has no key, or another one, on file for it.",
      BECAUSE_NOT_WAITED = "that the server did not wait for the rest.",
      BECAUSE_NOT_WHOLE = "that the greeting is not whole.",
      BECAUSE_NO_SERVER = "that what accepts the connection is no working Spark server.",
      BECAUSE_OFFERS_OTHER = ", by what the device itself offers.",
      BECAUSE_OFFERS_THIS = ": the device offers this very key in \"who I am\".",
      BECAUSE_OPENED_PIECES = "that the pieces are the cause: the keys are right.",
      BECAUSE_OTHERS_KEY = "that the device has another server's key: it is so if {server} has {others}.",
      BECAUSE_OTHERS_OPEN = ": {source} opens the other messages.",
      BECAUSE_OTHER_KEY = "because the key on file at the server is not the key inside this device.",
      BECAUSE_OTHER_SERVER = "that another server answers, if {keys} is the server key in this device.",
      BECAUSE_OTHER_SIZE = "that the server key stored in the device has another size than the server's.",
      BECAUSE_PIECES = "that the pieces are the cause: both open servers read only once.",
      BECAUSE_REFUSED = "that the request to connect is refused.",
      BECAUSE_REFUSED_IDENTITY = "that the server refused \"who I am\"; which of the causes it is cannot be seen without a key.",
      BECAUSE_REFUSED_WITH_KEY = "that the server refused \"who I am\"; which of the causes it is is not said by that alone.",
      BECAUSE_REPLY_UNLIKELY = "that the reply was not locked with {keys}{premise}",
      BECAUSE_SAYS_ITSELF = ": the device itself says in \"who I am\" that its key is {key}.",
      BECAUSE_SERVER_AT_FAULT = "that the fault is at the server: the device has just checked its reply.",
      BECAUSE_SERVER_GAVE_UP = "that the server has given up the update.",
      BECAUSE_SERVER_HANGS = "that the server's program hangs: its computer still confirms packets.",
      BECAUSE_SERVER_STOPPED = "that the server stopped in mid-update.",
      BECAUSE_SHOWN = ": the device shows it in \"who I am\".",
      BECAUSE_SIGNED = ": {key} is this server's key, it signed packet {packet}.",
      BECAUSE_SIZE_OF_KEY = "that a key of the wrong size is on file at the server.",
      BECAUSE_TOO_LONG = "that the greeting is too long.",
      BECAUSE_TOO_SLOW = "that the server is too slow: a device waits 20 s.",
      BECAUSE_TRUSTS = "the server key in this device is {key}: {how}.",
      BECAUSE_UNKNOWN_DEVICE = "that the device is unknown: it is so if {server} has {key}.",
      CLIENT_FIRST = "{name} on port {port}: the connecting side speaks first, which a Spark device never does.",
      GENUINE_COAP = "This is genuine CoAP over TCP (RFC 8323), not a Spark connection. Wireshark shows it rightly.",
      GREETINGS = { http = "a web page", tls = "the start of TLS (https)", ssh = "an SSH banner", other = "text" },
      HANGS_UP_ON_LONG = "its firmware ({firmware}) hangs up on arguments of {limit} bytes or more",
      HANGS_UP_ON_REFUSAL = "most releases of its firmware ({firmware}) hang up on any {code}",
      HOW_IN_PIECES = "comes in {pieces} pieces",
      HOW_OTHER_SIZE = "has {total} bytes instead of {size}",
      HOW_UNFINISHED = "comes in pieces: {total} of {size} bytes had been sent",
      LOGIN_MARKS = { "login", "portal" },
      LOGIN_PAGE = "A web login page",
      OPENED_IT = "it opens \"who I am\" (packet {packet})",
      OTHER_SERVICE = "Another service",
      OWN_KEY = "the device's own key",
      PREMISE_AMONG_SERVER_KEYS = ", if the server key in this device is among those given.",
      PREMISE_OFFERED = ", by the key{key} that the device itself offers.",
      PREMISE_ONE_SERVER_KEY = ", if {file} is the server key in this device.",
      PREMISE_PUBLIC_HALF = ", if {file} is the public half of the key inside this device.",
      PROTOCOLS = { tls = "TLS", http = "HTTP", other = "Another protocol" },
      REDIRECTION = " 30",
      RULED_ACCEPTED = "the connection is accepted",
      RULED_BEFORE_KEYS = "keys play no part before the greeting",
      RULED_ID_UNREAD = "a server with that key cannot even read the device's ID",
      RULED_IN_TIME = "{packets} came within {duration}",
      RULED_IS_ANSWER = "a refusal is an answer: the way to the server is open",
      RULED_KEY_NOT_REACHED = "the server never came to use the device's key",
      RULED_NOT_DEAD = "the frame is none that a dead key makes",
      RULED_NO_HELLO = "packet {packet} is no hello of this session",
      RULED_NO_REFUSAL = "a refusal would be in the capture",
      RULED_NO_SPARK_SERVER = "the device met no Spark server here",
      RULED_PAIR = "the two keys are a pair",
      RULED_RANDOM = "packet {packet} is random, not text",
      RULED_READABLE = "the firmware can read {keys}",
      RULED_REPLY_OPENS = "{key} opens the reply",
      RULED_SERVER_KEY_FITS = "{key} opens \"who I am\"",
      RULED_SERVER_TOOK_IT = "the server would have hung up instead of sending packet {packet}",
      RULED_SIGNATURE = "the signature opens with {key}",
      SAYS_CAME_BACK = "The device came back without having closed its connection: it restarted, or lost its link.",
      SAYS_CUT_BY_LIMIT = "The login takes too long: the server allows {limit} s, and {step}.",
      SAYS_GOES_DEAD = "The connection goes dead: nothing comes from the {sender} any more.",
      SAYS_INSIDE_LOGIN = "The capture begins inside the login; what is missing of it cannot be judged.",
      SAYS_KNOWN_AND_REFUSED = "The server can read \"who I am\" and, by the keys given, knows this device; it hangs up all the same.",
      SAYS_LATE_GREETING = "{server} sends its greeting only after the device has given up waiting for it.",
      SAYS_LOCKED_FOR_OTHER = "The server locks its reply for {file}; the device has another key.",
      SAYS_NEVER_CLOSED = "The connection goes dead without being closed: the device lost its link or its power.",
      SAYS_NONE_OPENS = "No message from the {sender} opens under the session key.",
      SAYS_NOTHING_WHOLE = "The connection was there when the capture began, and no whole message of it is in the file, so it cannot be judged.",
      SAYS_NOT_LOGGED_IN = "The device sends a message under a key that nobody agreed on: it is not logged in.",
      SAYS_NO_MORE_CHUNKS = "A firmware update stops after {chunks}: the device asks for the next one, and the server sends none.",
      SAYS_NO_REPLY = "The server greets the device, takes its \"who I am\" and never replies: its look-up of the device's key hangs, as old servers do when the key is not on file.",
      SAYS_OUT_OF_STEP = "A message from the {sender} is damaged or out of step (packet {packet}).",
      SAYS_SURVIVES = "Some packets from the {sender} get lost on the way and are sent again; the connection survives it.",
      SEEN_INSTEAD = "{packet} is {what}, {quoted}",
      SERVICES = { http = "A web server", tls = "A TLS (https) server", ssh = "An SSH server" },
      SIGNED_A_LOGIN = "the device logged in with a reply signed by it (packet {packet})",
      STEP_HELLO = "the device takes {} for its hello",
      STEP_IDENTITY = "the device takes {} for its \"who I am\"",
      STEP_REPLY = "the server takes {} for its reply",
      TWICE = "{packets} twice",
    },
  },
  seen = { FIRST_FRAMES = 16 },
  session = {
    frames = {
      ENOUGH_PADDING = 4,
      FRAMES_TRIED = 4,
      KEPT_OBSTACLES = 8,
      KEPT_RUNS = 64,
      MOST_CANDIDATES = 4096,
      OBSTACLES = {
        NONE = "none",
        GAP_BEFORE = "gap-before",
        BAD_PADDING = "bad-padding",
        BAD_START = "bad-start",
        NOT_COAP = "not-coap",
        NOT_BLOCKS = "not-blocks",
      },
      TROUBLES = {
        WRONG_KEY = "wrong key",
        LOST = "lost for good",
        FRAME_MISSING = "one frame missing",
        DAMAGED = "damaged on the way",
        FRAMING = "framing lost",
      },
      UNKNOWN_IV = "\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000",
    },
    opening = {
      CORE_IDENTITY = 52,
      EC_MARKS = { "*\134H\206=", "w" },
      ERASED_END = "\255\255\255\255\255\255\255\255",
      HMAC_SIZE = 20,
      KEY_TROUBLE = {
        ["elliptic-curve"] = "part of an elliptic-curve key",
        erased = "an erased slot",
        ["ends-erased"] = "a slot that ends in erased flash",
        text = "text",
        even = "an even number",
        none = "no RSA key",
        ["top-bit"] = "a number with its top bit clear",
        ["small-factors"] = "a number with small factors",
      },
      MODULUS_IN_SPKI = { 29, 157 },
      MOST_DEVICES = 4096,
      NOTE_HMAC = "its HMAC is not that of the first 128 bytes",
      NOTE_LENGTH = "it holds {length} bytes, not a bare HMAC of {wanted}",
      NOTE_OTHER_SIGNER = "signed by another server than the one the device trusts",
      PHOTON_IDENTITY = 214,
      SMALL_PRIMES = { 3, 5, 7, 11, 13, 17, 19 },
      SOURCE_IDENTITY = "the identity",
    },
    range_test = { MOST_RANGE_VALUES = 4096, UNLIKELY = 0.01 },
  },
  sessionwatch = {
    BEGIN = 30000000000,
    CHUNKS_OF_AN_UPDATE = 3,
    POLLED = 0.1,
    QUIET_NS = 1000000000,
    STALL = 12000000000,
    TOLERANCE = 0.1,
    UPDATE_BEGIN_FRAME = 34,
  },
  streams = {
    FIN_REACH = 65536,
    HALF_SPACE = 2147483648,
    PATIENCE_NS = 2000000000,
    PENDING_BYTES = 262144,
    PENDING_PIECES = 1024,
    REACH = 1048576,
    RESENT_NS = 200000000,
    SEQUENCE_SPACE = 4294967296,
    STEPS = 64,
  },
  tracker = { HELD = 8, LINGER_NS = 30000000000, LIVE = 65536, SENDERS = 65536, WINDOW = 1048576 },
  wording = { EXACT_BYTES = 9999, LISTED_PACKETS = 6, QUOTED = 60 },
}

-- packets ---------------------------------------------------------------------------------------------------
do
-- Finds the TCP segment in a frame.
--
-- Wireshark tells a post-dissector the ports of a frame and gives it the frame's bytes, in every pass and for every
-- packet: retransmitted, out of order, without data. It does not tell where the TCP header stands, and fields are not
-- there in all passes. So the header is looked for: the two ports, with an IP header before them that leads there.
-- That works for whatever lies under IP (Ethernet, VLAN, PPP, cooked, 802.11) without knowing any of it.

local byte, char, find, sub = string.byte, string.char, string.find, string.sub
local floor, max, min = math.floor, math.max, math.min

local TCP, ICMP, ICMP6 = 6, 1, 58
local IPV6_HEADER = 40
local SMALLEST_TCP = 20
local ACK, ACK_PUSH = 16, 24 -- flags of TCP
-- Where to look: link layers and tunnels put at most some dozens of bytes before IP, with names of radio captures
-- (radiotap, PPI) some hundreds.
local HEAD = 1024
-- Bytes of IPv6 extension headers that are walked; each is a multiple of 8.
local EXTENSIONS = 256
local EXTENSION_HEADERS = { [0] = true, [43] = true, [60] = true, [135] = true, [139] = true, [140] = true }

--- Whether an IPv6 header at `at` leads to TCP at `to` through extension headers (positions from 1).
local function walks_to(head, at, to)
  local kind, position = byte(head, at + 6), at + IPV6_HEADER
  while position < to do
    local following, size = byte(head, position, position + 1)
    if not EXTENSION_HEADERS[kind] or size == nil then return false end
    kind, position = following, position + 8 + 8 * size
  end
  return position == to and kind == TCP
end

--- Whether this IP header is a quotation in an ICMP error: the packet that it tells of was seen elsewhere.
local function is_quoted(head, at)
  local before = at - 8
  if before > 20 and floor(byte(head, before - 20) / 16) == 4 and byte(head, before - 11) == ICMP then return true end
  return before > IPV6_HEADER and floor(byte(head, before - IPV6_HEADER) / 16) == 6
    and byte(head, before - IPV6_HEADER + 6) == ICMP6
end

--- Returns where the IP header begins whose TCP header stands at `at`, and its version; nil when there is none.
local function ip_before(head, at)
  for words = 5, 15 do
    local start = at - 4 * words
    if start < 1 then break end
    if byte(head, start) == 0x40 + words and byte(head, start + 9) == TCP then return start, 4 end
  end
  for start = at - IPV6_HEADER, max(1, at - IPV6_HEADER - EXTENSIONS), -8 do
    if floor(byte(head, start) / 16) == 6 and walks_to(head, start, at) then return start, 6 end
  end
  return nil
end

--- Returns the positions (from 1) of the IP and the TCP header, and the IP version; nil without a segment in sight.
local function locate(head, source_port, target_port)
  local ports = char(floor(source_port / 256), source_port % 256, floor(target_port / 256), target_port % 256)
  local at = find(head, ports, 1, true)
  while at do
    if at > HEAD then return nil end
    local ip, version = ip_before(head, at)
    if ip and not is_quoted(head, ip) then return ip, at, version end
    at = find(head, ports, at + 1, true)
  end
  return nil
end

-- Frames of one capture are mostly built alike: where the last one had its headers, the next one has them.
local last_ip, last_tcp, last_version = 1, 21, 4

--- Whether the headers stand where the last frame had them.
local function as_before(head, source_port, target_port)
  local a, b, c, d = byte(head, last_tcp, last_tcp + 3)
  if d == nil or a * 256 + b ~= source_port or c * 256 + d ~= target_port then return false end
  if last_version == 4 then
    local words = (last_tcp - last_ip) / 4
    return byte(head, last_ip) == 0x40 + words and byte(head, last_ip + 9) == TCP and not is_quoted(head, last_ip)
  end
  return floor(byte(head, last_ip) / 16) == 6 and walks_to(head, last_ip, last_tcp) and not is_quoted(head, last_ip)
end

-- Where the last segment that was read has its headers and its end, for `is_damaged`.
local read_from, read_ip, read_tcp, read_stop

-- One table serves all packets: the engine keeps none of them.
local segment = {}

--- Reads the segment of a frame.
-- @param data the captured bytes of the frame
-- @param reported its size on the wire
-- @return segment as the engine takes it, without number and time, good until the next call; and the offset (from 0)
-- of its payload in the frame; or nil
local function read_segment(data, reported, source_port, target_port)
  local ip, tcp, version = last_ip, last_tcp, last_version
  if not as_before(data, source_port, target_port) then
    ip, tcp, version = locate(data, source_port, target_port)
    if not ip then return nil end
    last_ip, last_tcp, last_version = ip, tcp, version
  end
  local s1, s2, s3, s4, a1, a2, a3, a4, words, flags, w1, w2 = byte(data, tcp + 4, tcp + 15)
  if w2 == nil then return nil end
  local header = floor(words / 16) * 4
  local n1, n2, stop
  if version == 4 then
    local i1, i2, fragment, offset, hops
    n1, n2, i1, i2, fragment, offset, hops = byte(data, ip + 2, ip + 8)
    -- A piece of an IP packet holds a piece of a segment; Wireshark puts them together.
    if fragment % 64 ~= 0 or offset ~= 0 then return nil end
    stop, segment.ip_id, segment.ttl = ip + n1 * 256 + n2, i1 * 256 + i2, hops
    segment.source, segment.target = sub(data, ip + 12, ip + 15), sub(data, ip + 16, ip + 19)
  else
    n1, n2 = byte(data, ip + 4, ip + 5)
    stop, segment.ip_id, segment.ttl = ip + IPV6_HEADER + n1 * 256 + n2, nil, byte(data, ip + 7)
    segment.source, segment.target = sub(data, ip + 8, ip + 23), sub(data, ip + 24, ip + 39)
  end
  if n1 + n2 == 0 then stop = reported + 1 end -- left for the network card to fill in, or too large for the field
  local first = tcp + header
  if header < SMALLEST_TCP or stop < first then return nil end
  segment.source_port, segment.target_port = source_port, target_port
  segment.seq = ((s1 * 256 + s2) * 256 + s3) * 256 + s4
  segment.ack = ((a1 * 256 + a2) * 256 + a3) * 256 + a4
  if flags == ACK or flags == ACK_PUSH then -- nearly always
    segment.fin, segment.syn, segment.rst, segment.acks = false, false, false, true
  else
    segment.fin, segment.syn, segment.rst = flags % 2 >= 1, flags % 4 >= 2, flags % 8 >= 4
    segment.acks = flags % 32 >= 16
  end
  segment.length = stop - first
  segment.payload = sub(data, first, min(stop - 1, #data))
  segment.window = w1 * 256 + w2
  read_from, read_ip, read_tcp, read_stop = data, ip, tcp, stop
  return segment, first - 1
end

-- -- was it damaged on its way? ---------------------------------------------------------------------------------------

--- Sums up the 16-bit words of a stretch of bytes, the last byte filled up with a zero. Every message goes through
-- here, and calls cost more than sums: hence few and long steps.
local function sum_of(data, first, stop)
  local high, low, at = 0, 0, first
  while at + 16 <= stop do
    local a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p = byte(data, at, at + 15)
    high, low = high + a + c + e + g + i + k + m + o, low + b + d + f + h + j + l + n + p
    at = at + 16
  end
  if at + 8 <= stop then
    local a, b, c, d, e, f, g, h = byte(data, at, at + 7)
    high, low, at = high + a + c + e + g, low + b + d + f + h, at + 8
  end
  if at < stop then
    local a, b, c, d, e, f, g = byte(data, at, stop - 1)
    high, low = high + a + (c or 0) + (e or 0) + (g or 0), low + (b or 0) + (d or 0) + (f or 0)
  end
  return high * 256 + low
end

--- Whether the checksum of the last segment that was read is wrong; false when the capture cut the packet.
local function is_wrong()
  if read_stop - 1 > #read_from then return false end
  local addresses, stop = read_ip + 12, read_ip + 20
  if byte(read_from, read_ip) >= 0x60 then addresses, stop = read_ip + 8, read_ip + IPV6_HEADER end
  local sum = TCP + read_stop - read_tcp
  if stop == read_tcp then
    -- No options between the addresses and the TCP header.
    sum = sum + sum_of(read_from, addresses, read_stop)
  else
    sum = sum + sum_of(read_from, addresses, stop) + sum_of(read_from, read_tcp, read_stop)
  end
  return sum % 65535 ~= 0
end

-- Packets of one sender, with data or without, from which it is learnt whether its checksums mean anything.
local LEARNT_FROM = 4
-- Wrong ones beyond the right ones from which on they mean nothing, and cost nothing more.
local HOPELESS = 8
local SENDERS = spark.constants.tracker.SENDERS
local checks, senders = {}, 0

--- Whether the last segment that was read was damaged on its way: its checksum is wrong, and most of its sender's are
-- right. Where the capturing computer is the sender, its network card fills them in later, and none is right.
local function is_damaged(segment_read)
  local source = segment_read.source
  local counts = checks[source]
  if counts == nil then
    -- So many addresses are made up; who is real is learnt again from a few packets.
    if senders >= SENDERS then checks, senders = {}, 0 end
    counts = { right = 0, wrong = 0 }
    checks[source], senders = counts, senders + 1
  end
  local right, wrong = counts.right, counts.wrong
  if wrong - right >= HOPELESS or (segment_read.length == 0 and right + wrong >= LEARNT_FROM) then return false end
  if is_wrong() then
    counts.wrong = wrong + 1
    return right > wrong + 1
  end
  counts.right = right + 1
  return false
end

--- Forgets what was learnt of one capture.
local function forget()
  checks, senders = {}, 0
  read_from = nil
end

spark.packets = { is_damaged = is_damaged, forget = forget, read_segment = read_segment, locate = locate }
end

-- bits ------------------------------------------------------------------------------------------------------
do
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
end

-- aes -------------------------------------------------------------------------------------------------------
do
-- AES-128 (FIPS 197), in CBC for the frames (PROTOCOL 4.1) and one block at a time for the constants of a zero key.
--
-- Each round looks up four tables per word. The text of the rounds is written out in full, with every byte, word and
-- round key a local variable, because table reads and calls are what costs in Lua. All of it is made at the first
-- use. Where Wireshark offers a cipher of its own (4.6 on), that one decrypts.

local constants = spark.constants
local concat = table.concat
local bits = spark.bits

local BLOCK = constants.catalogue.BLOCK
local NO_IV = ("\0"):rep(BLOCK)
local ROUNDS = 10
local ROUND_KEYS = 4 * (ROUNDS + 1) -- words
local BYTES = 256
local POLYNOMIAL = 283 -- x^8 + x^4 + x^3 + x + 1

--- Four tables of words, the bytes of each table's words turned by one from those of the table before.
local function turned(word_bytes)
  local first, second, third, fourth = {}, {}, {}, {}
  for value = 0, BYTES - 1 do
    local a, b, c, d = word_bytes(value)
    first[value] = a * 16777216 + b * 65536 + c * 256 + d
    second[value] = d * 16777216 + a * 65536 + b * 256 + c
    third[value] = c * 16777216 + d * 65536 + a * 256 + b
    fourth[value] = b * 16777216 + c * 65536 + d * 256 + a
  end
  return {first, second, third, fourth}
end

local function make_tables()
  local bxor = bits.bxor
  local power, logarithm = {}, {} -- of 3, which generates the field
  local element = 1
  for exponent = 0, BYTES - 2 do
    power[exponent], logarithm[element] = element, exponent
    local doubled = element * 2
    if doubled >= BYTES then doubled = bxor(doubled, POLYNOMIAL) end
    element = bxor(element, doubled)
  end
  local function product(a, b)
    if a == 0 then return 0 end
    return power[(logarithm[a] + logarithm[b]) % (BYTES - 1)]
  end

  local substitution, inverse_substitution = {}, {}
  for value = 0, BYTES - 1 do
    local inverse = value > 0 and power[(BYTES - 1 - logarithm[value]) % (BYTES - 1)] or 0
    local sum, rotated = bxor(inverse, 99), inverse
    for _ = 1, 4 do
      rotated = rotated * 2
      if rotated >= BYTES then rotated = rotated - (BYTES - 1) end
      sum = bxor(sum, rotated)
    end
    substitution[value], inverse_substitution[sum] = sum, value
  end
  return {
    substitution = substitution,
    inverse_substitution = inverse_substitution,
    encryption = turned(function(value)
      local s = substitution[value]
      local doubled = product(s, 2)
      return doubled, s, s, bxor(doubled, s)
    end),
    decryption = turned(function(value)
      local s = inverse_substitution[value]
      return product(s, 14), product(s, 9), product(s, 13), product(s, 11)
    end),
  }
end

local known_tables

local function tables()
  known_tables = known_tables or make_tables()
  return known_tables
end

--- Text of the ten rounds over the words s0 to s3, with the tables T1 to T4 and S. `step` says from which column the
--- next byte of a word comes: 1 to encrypt, -1 to decrypt (the two ShiftRows). The last round also adds the words
--- `last[1]` to `last[4]`, given as text. The result is the bytes e0, f0, g0, h0, e1 and so on.
local function rounds(step, last)
  local lines = {}
  local function write(text, ...) lines[#lines + 1] = text:format(...) end
  for round = 1, ROUNDS do
    if round < ROUNDS then write("do") end
    for column = 0, 3 do
      write("SPLIT(s%d, a%d, b%d, c%d, d%d)", column, column, column, column, column)
    end
    for column = 0, 3 do
      local second, third, fourth = (column + step) % 4, (column + 2 * step) % 4, (column + 3 * step) % 4
      local key = 4 * round + column + 1
      if round < ROUNDS then
        write("s%d = XOR(T1[a%d], T2[b%d], T3[c%d], T4[d%d], k%d)", column, column, second, third, fourth, key)
      else
        write("local o%d = XOR(S[a%d] * 16777216 + S[b%d] * 65536 + S[c%d] * 256 + S[d%d], k%d%s)",
          column, column, second, third, fourth, key, last[column + 1])
      end
    end
    if round < ROUNDS then write("end") end
  end
  for column = 0, 3 do
    write("SPLIT(o%d, e%d, f%d, g%d, h%d)", column, column, column, column, column)
  end
  return concat(lines, "\n") .. "\n"
end

--- Text that declares the words of the 16 bytes at `at`.
local function words_of(text, at, w0, w1, w2, w3)
  return ([[
  local x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15, x16 = byte(TEXT, AT, AT + 15)
  local W0, W1 = x1 * 16777216 + x2 * 65536 + x3 * 256 + x4, x5 * 16777216 + x6 * 65536 + x7 * 256 + x8
  local W2, W3 = x9 * 16777216 + x10 * 65536 + x11 * 256 + x12, x13 * 16777216 + x14 * 65536 + x15 * 256 + x16
  ]]):gsub("%u+%d?", {TEXT = text, AT = at, W0 = w0, W1 = w1, W2 = w2, W3 = w3})
end

local SCHEDULES = [[
local byte, char, concat, unpack = string.byte, string.char, table.concat, table.unpack or unpack

local function schedule(key, S)
  local words = {}
  for number = 1, 4 do
    local a, b, c, d = byte(key, 4 * number - 3, 4 * number)
    words[number] = a * 16777216 + b * 65536 + c * 256 + d
  end
  local constant = 1
  for number = 5, 44 do
    local word = words[number - 1]
    if number % 4 == 1 then
      SPLIT(word, a, b, c, d)
      word = XOR(S[b] * 16777216 + S[c] * 65536 + S[d] * 256 + S[a], constant * 16777216)
      constant = constant == 128 and 27 or constant * 2
    end
    words[number] = XOR(word, words[number - 4])
  end
  return words
end

local function inverse_schedule(words, S, T)
  local T1, T2, T3, T4 = T[1], T[2], T[3], T[4]
  local inverse = {}
  for round = 0, 10 do
    for column = 1, 4 do
      local word = words[40 - 4 * round + column]
      if round > 0 and round < 10 then
        SPLIT(word, a, b, c, d)
        word = XOR(T1[ S[a] ], T2[ S[b] ], T3[ S[c] ], T4[ S[d] ])
      end
      inverse[4 * round + column] = word
    end
  end
  return inverse
end
]]

local WORDS_TO_BLOCK = "char(e0, f0, g0, h0, e1, f1, g1, h1, e2, f2, g2, h2, e3, f3, g3, h3)"

--- Text of four functions: both key schedules, decryption of whole blocks in CBC, encryption of a block.
local function cipher_text()
  local round_keys = {}
  for number = 1, ROUND_KEYS do round_keys[number] = "k" .. number end
  local opening = "local T1, T2, T3, T4 = T[1], T[2], T[3], T[4]\n"
    .. "local " .. concat(round_keys, ", ") .. " = unpack(keys)\n"
  local first_round = "local s0, s1, s2, s3 = XOR(w0, k1), XOR(w1, k2), XOR(w2, k3), XOR(w3, k4)\n"
  return concat({
    SCHEDULES,
    "local pieces = {}",
    "local function decrypt_cbc(keys, S, T, iv, text)",
    opening,
    words_of("iv", "1", "p0", "p1", "p2", "p3"),
    "local count = 0",
    "for at = 1, #text - 15, 16 do",
    words_of("text", "at", "w0", "w1", "w2", "w3"),
    first_round,
    rounds(-1, {", p0", ", p1", ", p2", ", p3"}),
    "count = count + 1",
    "pieces[count] = " .. WORDS_TO_BLOCK,
    "p0, p1, p2, p3 = w0, w1, w2, w3",
    "end",
    "return concat(pieces, '', 1, count)",
    "end",
    "local function encrypt_block(keys, S, T, block)",
    opening,
    words_of("block", "1", "w0", "w1", "w2", "w3"),
    first_round,
    rounds(1, {"", "", "", ""}),
    "return " .. WORDS_TO_BLOCK,
    "end",
    "return schedule, inverse_schedule, decrypt_cbc, encrypt_block",
  }, "\n")
end

--- AES over the given back end of `bits`: a table of the functions `new`, `encryptor` and `encrypt_block`.
local function on(backend)
  local schedule, inverse_schedule, decrypt_cbc, encrypt_block

  local function prepare()
    if not schedule then
      schedule, inverse_schedule, decrypt_cbc, encrypt_block = backend.compile(cipher_text(), "aes")
    end
    return tables()
  end

  local Decryptor = {}
  Decryptor.__index = Decryptor

  --- Plaintext, padding included, of whole blocks; bytes behind the last whole block are left out.
  function Decryptor:decrypt_cbc(iv, ciphertext)
    return decrypt_cbc(self.keys, self.substitution, self.tables, iv, ciphertext)
  end

  --- The block decrypted by itself, without chaining.
  function Decryptor:decrypt_block(block)
    return self:decrypt_cbc(NO_IV, block)
  end

  local Encryptor = {}
  Encryptor.__index = Encryptor

  --- The 16 bytes encrypted by themselves, without chaining.
  function Encryptor:encrypt_block(block)
    return encrypt_block(self.keys, self.substitution, self.tables, block)
  end

  local cipher = {}

  --- Decryption under a key of 16 bytes.
  function cipher.new(key)
    local made = prepare()
    local keys = inverse_schedule(schedule(key, made.substitution), made.substitution, made.decryption)
    local parts = {keys = keys, substitution = made.inverse_substitution, tables = made.decryption}
    return setmetatable(parts, Decryptor)
  end

  --- Encryption under a key of 16 bytes.
  function cipher.encryptor(key)
    local made = prepare()
    local parts = {
      keys = schedule(key, made.substitution), substitution = made.substitution, tables = made.encryption,
    }
    return setmetatable(parts, Encryptor)
  end

  function cipher.encrypt_block(key, block)
    return cipher.encryptor(key):encrypt_block(block)
  end

  return cipher
end

-- Wireshark's own cipher, with the methods of a Decryptor.
local Borrowed = {}
Borrowed.__index = Borrowed

local function borrow(key)
  local handle = GcryptCipher.open(GCRY_CIPHER_AES, GCRY_CIPHER_MODE_CBC, 0)
  handle:setkey(ByteArray.new(key, true))
  return setmetatable({handle = handle}, Borrowed)
end

function Borrowed:decrypt_cbc(iv, ciphertext)
  -- The library refuses nothing at all, and blocks that are not whole.
  local whole = #ciphertext - #ciphertext % BLOCK
  if whole == 0 then return "" end
  local bytes = ByteArray.new(ciphertext:sub(1, whole), true)
  self.handle:setiv(ByteArray.new(iv, true))
  self.handle:decrypt(bytes)
  return bytes:raw()
end

function Borrowed:decrypt_block(block)
  return self:decrypt_cbc(NO_IV, block)
end

local aes = on(bits)
local own_new = aes.new
local borrowing -- whether Wireshark's cipher is there and answers as ours does; nil: not yet tried

local function try_borrowing()
  local key, iv, text = ("k"):rep(BLOCK), ("i"):rep(BLOCK), ("text"):rep(BLOCK / 2)
  local ours = own_new(key):decrypt_cbc(iv, text)
  local works, theirs = pcall(function()
    local cipher = borrow(key)
    -- Twice, because what the first call leaves behind must not reach the second.
    return cipher:decrypt_cbc(iv, text) .. cipher:decrypt_cbc(iv, text)
  end)
  return works and theirs == ours .. ours
end

function aes.new(key)
  if borrowing == nil then borrowing = GcryptCipher ~= nil and try_borrowing() end
  return borrowing and borrow(key) or own_new(key)
end

aes.on = on
spark.aes = aes
end

-- hashes ----------------------------------------------------------------------------------------------------
do
-- SHA-1 (FIPS 180-4) and HMAC-SHA1 (RFC 2104), for the server's signature over the session (PROTOCOL 2.3).

local byte, char = string.byte, string.char

local BLOCK = 64 -- bytes

--- Text of a function that takes the five words of state and the number of the block's first byte, and returns the
--- five words after that block. The choice of Ch and Maj is the one with the fewest calls.
local BLOCK_TEXT = [[
local byte = string.byte
local schedule = {}

return function(text, at, h1, h2, h3, h4, h5)
  local W = schedule
  for number = 1, 16 do
    local a, b, c, d = byte(text, at, at + 3)
    W[number] = a * 16777216 + b * 65536 + c * 256 + d
    at = at + 4
  end
  for number = 17, 80 do
    local word = XOR(W[number - 3], W[number - 8], W[number - 14], W[number - 16])
    W[number] = ROTATE(word, 1)
  end
  local a, b, c, d, e = h1, h2, h3, h4, h5
  for number = 1, 20 do
    a, b, c, d, e = ADD(ROTATE(a, 5), XOR(d, AND(b, XOR(c, d))), e, W[number], 1518500249), a, ROTATE(b, 30), c, d
  end
  for number = 21, 40 do
    a, b, c, d, e = ADD(ROTATE(a, 5), XOR(b, c, d), e, W[number], 1859775393), a, ROTATE(b, 30), c, d
  end
  for number = 41, 60 do
    a, b, c, d, e = ADD(ROTATE(a, 5), AND(b, c), AND(d, XOR(b, c)), e, W[number], 2400959708),
      a, ROTATE(b, 30), c, d
  end
  for number = 61, 80 do
    a, b, c, d, e = ADD(ROTATE(a, 5), XOR(b, c, d), e, W[number], 3395469782), a, ROTATE(b, 30), c, d
  end
  return ADD(h1, a), ADD(h2, b), ADD(h3, c), ADD(h4, d), ADD(h5, e)
end
]]

local OUTPUT_TEXT = [[
local char = string.char

return function(word)
  SPLIT(word, a, b, c, d)
  return char(a, b, c, d)
end
]]

--- The number as eight bytes.
local function eight_bytes(number)
  local bytes = {}
  for place = 8, 1, -1 do
    bytes[place] = number % 256
    number = math.floor(number / 256)
  end
  return char((table.unpack or unpack)(bytes))
end

--- The hashes over the given back end of `bits`: a table of the functions `sha1` and `hmac_sha1`.
local function on(backend)
  local take_block, word_bytes

  --- SHA-1 of the bytes: 20 bytes.
  local function sha1(bytes)
    if not take_block then
      take_block = backend.compile(BLOCK_TEXT, "sha1")
      word_bytes = backend.compile(OUTPUT_TEXT, "sha1 output")
    end
    local filler = ("\0"):rep((-#bytes - 9) % BLOCK)
    local text = bytes .. "\128" .. filler .. eight_bytes(#bytes * 8)
    local h1, h2, h3, h4, h5 = 1732584193, 4023233417, 2562383102, 271733878, 3285377520
    for at = 1, #text, BLOCK do
      h1, h2, h3, h4, h5 = take_block(text, at, h1, h2, h3, h4, h5)
    end
    return word_bytes(h1) .. word_bytes(h2) .. word_bytes(h3) .. word_bytes(h4) .. word_bytes(h5)
  end

  --- The bytes of a key, each combined with the same byte.
  local function masked(key, mask)
    local bytes = {byte(key, 1, BLOCK)}
    for place = 1, BLOCK do bytes[place] = char(backend.bxor(bytes[place], mask)) end
    return table.concat(bytes)
  end

  --- HMAC-SHA1 of the message under the key: 20 bytes.
  local function hmac_sha1(key, message)
    if #key > BLOCK then key = sha1(key) end
    key = key .. ("\0"):rep(BLOCK - #key)
    return sha1(masked(key, 92) .. sha1(masked(key, 54) .. message))
  end

  return {sha1 = sha1, hmac_sha1 = hmac_sha1}
end

spark.hashes = on(spark.bits)
spark.hashes.on = on
spark.sha1, spark.hmac_sha1 = spark.hashes.sha1, spark.hashes.hmac_sha1
end

-- rsa -------------------------------------------------------------------------------------------------------
do
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
end

-- wording ---------------------------------------------------------------------------------------------------
do
-- How numbers and foreign text read: durations, sizes, packet lists, quoted bytes.

local constants = spark.constants
local byte, char, find, format, gsub, sub =
  string.byte, string.char, string.find, string.format, string.gsub, string.sub
local concat, floor, sort = table.concat, math.floor, table.sort

local LISTED_PACKETS = constants.wording.LISTED_PACKETS
local EXACT_BYTES = constants.wording.EXACT_BYTES
local QUOTED = constants.wording.QUOTED

local wording = {}

--- Puts values into a text of the tables, in the place of their names in braces.
function wording.fill(text, values)
  return (gsub(text, "{([a-z_]*)}", values))
end

--- 43000 as "43,000".
function wording.number(value)
  local digits = format("%d", value)
  local sign = ""
  if sub(digits, 1, 1) == "-" then
    sign, digits = "-", sub(digits, 2)
  end
  local first = #digits % 3
  local grouped = gsub(sub(digits, first + 1), "(%d%d%d)", ",%1")
  return sign .. (first == 0 and sub(grouped, 2) or sub(digits, 1, first) .. grouped)
end
local number = wording.number

--- "1 packet", "2 packets".
function wording.plural(count, one, many)
  return number(count) .. " " .. (count == 1 and one or many or one .. "s")
end
local plural = wording.plural

--- Bytes exactly up to 9,999, then as "62.0 kB".
function wording.size(count)
  if count <= EXACT_BYTES then
    return plural(count, "byte")
  end
  local value, unit = count / 1000, "kB"
  for _, larger in ipairs({ "MB", "GB", "TB" }) do
    if value < 999.95 then
      break
    end
    value, unit = value / 1000, larger
  end
  return format("%.1f %s", value, unit)
end

--- A time span in seconds with three digits at most: "42 us" (with a micro sign), "0.2 ms", "59 ms", "20.0 s",
-- "4 min 10 s", "17 h 46 min", "3 d 4 h".
function wording.duration(seconds)
  local nanoseconds = floor(seconds * 1e9 + 0.5)
  if nanoseconds < 0 then
    return "\226\136\146" .. wording.duration(-seconds)
  end
  if nanoseconds < 99500 then
    return format("%.0f \194\181s", nanoseconds / 1e3)
  end
  local milliseconds = nanoseconds / 1e6
  if milliseconds < 9.95 then
    return format("%.1f ms", milliseconds)
  end
  if milliseconds < 999.5 then
    return format("%.0f ms", milliseconds)
  end
  seconds = nanoseconds / 1e9
  if seconds < 99.95 then
    return format("%.1f s", seconds)
  end
  local whole = floor(seconds + 0.5)
  if whole < 3600 then
    return format("%d min %d s", floor(whole / 60), whole % 60)
  end
  local minutes = floor(seconds / 60 + 0.5)
  if minutes < 48 * 60 then
    return format("%d h %d min", floor(minutes / 60), minutes % 60)
  end
  local hours = floor(seconds / 3600 + 0.5)
  return format("%d d %d h", floor(hours / 24), hours % 24)
end

--- "packet 8" or "packets 8, 24, 35", with the count of those left out.
function wording.packets(numbers)
  local every, known = {}, {}
  for _, packet in ipairs(numbers) do
    if not known[packet] then
      known[packet] = true
      every[#every + 1] = packet
    end
  end
  sort(every)
  local listed = {}
  for index = 1, #every < LISTED_PACKETS and #every or LISTED_PACKETS do
    listed[index] = number(every[index])
  end
  local text = (#every == 1 and "packet " or "packets ") .. concat(listed, ", ")
  if #every > LISTED_PACKETS then
    text = text .. " and " .. number(#every - LISTED_PACKETS) .. " more"
  end
  return text
end

--- "a ping", "an event".
function wording.with_article(words)
  return (find(words, "^[aeiouA]") and "an " or "a ") .. words
end

--- Words as a sentence joins them: "a, b and c"; `last` takes the place of "and".
function wording.listing(words, last)
  if #words < 2 then
    return words[1] or ""
  end
  return concat(words, ", ", 1, #words - 1) .. " " .. (last or "and") .. " " .. words[#words]
end

local NAMED = { [9] = "\\t", [10] = "\\n", [13] = "\\r" }

--- Bytes from the network as quoted, escaped text, cut at 60 characters. Everything beyond printable ASCII is escaped:
-- what a script of another kind would do to a row is not known here.
function wording.quote(data)
  local is_text = not find(data, "[\128-\255]")
  local pieces, length = {}, 0
  for index = 1, #data do
    local code = byte(data, index)
    local unit
    if code >= 32 and code < 127 then
      unit = char(code)
    else
      unit = is_text and NAMED[code] or format("\\x%02x", code)
    end
    length = length + #unit
    if length > QUOTED then
      return '"' .. concat(pieces) .. '\226\128\166"'
    end
    if unit == '"' then
      unit, length = '\\"', length + 1
    end
    pieces[#pieces + 1] = unit
  end
  return '"' .. concat(pieces) .. '"'
end

spark.wording = wording
end

-- der -------------------------------------------------------------------------------------------------------
do
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
end

-- keys ------------------------------------------------------------------------------------------------------
do
-- One file's bytes -> the RSA keys in it, told from the content, and how the firmware would read them (PROTOCOL 8).
--
-- Read top to bottom: what the firmware makes of a private key; keys where devices keep them (slots, flash chips); and
-- whole files: what is no key at all, text with a key in it, and DER, alone or with whatever a dump has around it.

local constants = spark.constants
local der = spark.der

local fill = spark.wording.fill
local floor, byte, sub, find = math.floor, string.byte, string.sub, string.find
local concat = table.concat

-- The firmware's own reader (PROTOCOL 8.4) -----------------------------------------------------------------------

local DEVICE_BITS = constants.keys.model.DEVICE_BITS
local EXPONENT = constants.keys.model.EXPONENT
local PRIVATE_SLOT = constants.keys.firmware.PRIVATE_SLOT
local NUMBER_NAMES = constants.keys.firmware.NUMBER_NAMES
local NUMBER_SIZES = constants.keys.firmware.NUMBER_SIZES
local FIRST_STEP = constants.keys.firmware.FIRST_STEP
local STEPS = constants.keys.firmware.STEPS

local FILLER = string.rep("\255", PRIVATE_SLOT + 16)

--- The seven numbers as the firmware takes them out of its slot. It looks at the byte where an INTEGER's length
--- should be, takes an odd one to mean a leading zero, copies 128 or 64 bytes and jumps on by a constant. What lies
--- behind the file is erased flash, FF.
local function walk_private_slot(slot)
  local flash, numbers, at = slot .. FILLER, {}, FIRST_STEP
  for index, size in ipairs(NUMBER_SIZES) do
    at = at + (byte(flash, at + 1) % 2 == 1 and 2 or 1)
    numbers[index] = der.trimmed(sub(flash, at + 1, at + size))
    at = at + STEPS[index]
  end
  return numbers
end

--- Compare the walk over a device's PKCS#1 key, up to 612 bytes of `slot`, with what a real ASN.1 reader finds (all
--- eight numbers, `private`): {ok, differences}, the differences in words.
local function reads_private(slot, private)
  local bits = der.bit_length(private.n)
  if bits ~= DEVICE_BITS then
    local wrong = fill(constants.keys.firmware.WRONG_BITS, { bits = bits, wanted = DEVICE_BITS })
    return { ok = false, differences = { wrong } }
  end
  local differences = {}
  if private.e ~= der.from_integer(EXPONENT) then
    local e = 0.0
    for at = 1, #private.e do
      e = e * 256 + byte(private.e, at)
    end
    local values = { e = ("%.0f"):format(e), wanted = EXPONENT }
    differences[1] = fill(constants.keys.firmware.WRONG_EXPONENT, values)
  end
  local truth = { private.n, private.d, private.p, private.q, private.dp, private.dq, private.qinv }
  local members = der.children(slot, der.read_element(slot, 0))
  for index, size in ipairs(NUMBER_SIZES) do
    -- Version and e are members that the walk does not take.
    local member = members[index == 1 and 2 or index + 2]
    local width = member and (member.stop - member.start) or size
    if width ~= size and width ~= size + 1 then
      local values = { name = NUMBER_NAMES[index], short = #truth[index], size = size }
      differences[#differences + 1] = fill(constants.keys.firmware.SHORT_NUMBER, values)
    end
  end
  local walked, wrong = walk_private_slot(slot), {}
  for index, number in ipairs(truth) do
    if walked[index] ~= number then
      wrong[#wrong + 1] = NUMBER_NAMES[index]
    end
  end
  if #wrong > 0 and #differences == 0 then
    differences[1] = fill(constants.keys.firmware.WRONG_PLACES, { names = concat(wrong, ", ") })
  end
  if not spark.rsa.private_key(private):consistent() then
    differences[#differences + 1] = constants.keys.firmware.CONTRADICTION
  end
  return { ok = #differences == 0, differences = differences }
end

-- Keys where devices keep them (PROTOCOL 8.2) --------------------------------------------------------------------

local ROLES = constants.keys.model.ROLES
local RSA_ID = constants.keys.der.RSA_ID
local FLASH_SIZE = constants.keys.dumps.FLASH_SIZE
local DCT_SIZE = constants.keys.dumps.DCT_SIZE
local SERVER_SLOT = constants.keys.dumps.SERVER_SLOT
local BLANK_PROBE = constants.keys.dumps.BLANK_PROBE
local DCT_ELLIPTIC_PLACES = constants.keys.dumps.DCT_ELLIPTIC_PLACES
local MOST_KEYS = constants.keys.dumps.MOST_KEYS
local DEVICE_ID_DIGITS = 2 * constants.catalogue.DEVICE_ID_SIZE

--- A table of places by address as an array in a fixed order: the device's slot first, as its text sorts first.
local function in_order(places)
  local ordered = {}
  for at, what in pairs(places) do
    ordered[#ordered + 1] = { at = at, what = what }
  end
  table.sort(ordered, function(a, b)
    return a.what < b.what
  end)
  return ordered
end

local CORE_PLACES = in_order(constants.keys.dumps.CORE_PLACES)
local DCT_PLACES = in_order(constants.keys.dumps.DCT_PLACES)
local LAST_CORE_PLACE = math.max(CORE_PLACES[1].at, CORE_PLACES[2].at)

--- The device ids that a file's name carries.
local function device_ids_in(name)
  local ids = {}
  for digits in name:match("[^/\\]*$"):gmatch("%x+") do
    if #digits == DEVICE_ID_DIGITS then
      ids[#ids + 1] = digits:lower()
    end
  end
  return ids
end

--- One key: the structure `found` in `data`, in the file `name`.
local function key_of(data, name, found)
  local bits = der.bit_length(found.n)
  return {
    name = name,
    n = found.n,
    e = found.e,
    private = found.private,
    bits = bits,
    role = ROLES[bits] or "other",
    device_ids = device_ids_in(name),
    encoding = found.what,
    pem = false,
    slot = found.private and sub(data, found.pkcs1_at + 1, found.pkcs1_at + PRIVATE_SLOT) or nil,
  }
end

-- INTEGER 0 and INTEGER of 128 or more bytes: what stands behind the four bytes of a PKCS#1 key's own header.
local PKCS1_INSIDE = "\2\1\0\2\129"
local ALGORITHM = "\48\13\6\9" .. RSA_ID

--- Where a PKCS#1 private key begins, by the place where its inside does; nil when the rest is not as it must be.
local function pkcs1_head(data, inside)
  local width = byte(data, inside + #PKCS1_INSIDE)
  if inside > 4 and sub(data, inside - 4, inside - 3) == "\48\130" and (width == 0x80 or width == 0x81) then
    return inside - 4
  end
  return nil
end

--- Where a PKCS#8 or SPKI key begins, by the place of its algorithm; nil when what stands before it is neither.
local function algorithm_head(data, algorithm)
  if algorithm > 3 and sub(data, algorithm - 3, algorithm - 1) == "\48\129\159" then
    return algorithm - 3
  elseif algorithm > 4 and sub(data, algorithm - 4, algorithm - 1) == "\48\130\1\34" then
    return algorithm - 4
  elseif
    algorithm > 7
    and sub(data, algorithm - 7, algorithm - 6) == "\48\130"
    and sub(data, algorithm - 3, algorithm - 1) == "\2\1\0"
  then
    return algorithm - 7
  end
  return nil
end

--- Offsets at which key structures seem to begin, the first `MOST_KEYS` of them in order. Plain searches for what is
--- fixed in them: a pattern would be tried at each byte of a flash chip.
local function heads(data)
  local found = {}
  for needle, head in pairs({ [PKCS1_INSIDE] = pkcs1_head, [ALGORITHM] = algorithm_head }) do
    local count, at = 0, find(data, needle, 1, true)
    while at and count < MOST_KEYS do
      local start = head(data, at)
      if start then
        count, found[#found + 1] = count + 1, start - 1
      end
      at = find(data, needle, at + 1, true)
    end
  end
  table.sort(found)
  for index = #found, MOST_KEYS + 1, -1 do
    found[index] = nil
  end
  return found
end

--- What a dump of this size is, the flash address of its first byte (0 when not known), and the places to look at.
local function layout(size)
  if size == DCT_SIZE then
    return "dct-dump", 0, DCT_PLACES
  end
  local start = FLASH_SIZE - size
  if start >= 0 and start <= LAST_CORE_PLACE then
    -- Left without a length, dfu-util reads from the given address to the end of the flash.
    return "flash-dump", start, CORE_PLACES
  end
  return size > SERVER_SLOT and "flash-dump" or "slot-dump", 0, {}
end

local function overlaps(taken, start)
  for _, range in ipairs(taken) do
    if range.from <= start and start < range.to then
      return true
    end
  end
  return false
end

--- Find the keys in a dump, at the places known for its size first. Return keys, a remark (nil: none) and the dump's
--- kind; nil when there is neither a key nor an erased slot.
local function carved(data, name)
  local kind, base, places = layout(#data)
  local starts, remarks = {}, {}
  for _, place in ipairs(places) do
    local at = place.at - base
    if at >= 0 then
      starts[#starts + 1] = at
      if not find(sub(data, at + 1, at + BLANK_PROBE), "[^\255]") then
        remarks[#remarks + 1] = fill(constants.keys.dumps.ERASED_SLOT, { what = place.what })
      end
    end
  end
  for _, at in ipairs(heads(data)) do
    starts[#starts + 1] = at
  end
  local found, taken = {}, {}
  for _, start in ipairs(starts) do
    -- A PKCS#1 structure also stands inside each PKCS#8 one, and known places are found twice.
    local structure = not overlaps(taken, start) and der.read_structure(data, start)
    if structure and structure.n then
      found[#found + 1] = key_of(data, name, structure)
      taken[#taken + 1] = { from = start, to = start + structure.length }
    end
  end
  for _, at in ipairs(kind == "dct-dump" and DCT_ELLIPTIC_PLACES or {}) do
    local structure = der.read_structure(data, at)
    if structure and structure.what == "elliptic-curve" then
      remarks[#remarks + 1] = fill(constants.keys.dumps.ELLIPTIC_AT, { at = at })
    end
  end
  if #found == 0 and #remarks == 0 then
    return nil
  end
  return found, remarks[1] and concat(remarks, "; "), kind
end

-- DER ------------------------------------------------------------------------------------------------------------

local SMALLEST_DUMP = constants.keys.inspect.SMALLEST_DUMP
local TEXT_PROBE = constants.keys.inspect.TEXT_PROBE
local REMARKS = constants.keys.inspect.REMARKS
local NOT_TEXT = "[^\t\n\r\32-\126]"

--- A file with one key at its front: the key alone, a slot read back, or a server image.
local function single(data, name, structure)
  local found = structure.n and { key_of(data, name, structure) } or {}
  if structure.truncated then
    return found, fill(REMARKS.cut, { size = #data, length = structure.length }), "truncated"
  elseif #found == 0 then
    return found, REMARKS.certificate, "certificate"
  end
  return found, nil, "key"
end

--- Keys, remark and kind of bytes that are not text.
local function from_der(data, name)
  local structure = der.read_structure(data)
  local what = structure and structure.what
  if what == "elliptic-curve" or what == "encrypted" then
    return {}, REMARKS[what], what
  end
  if not structure or (#data >= SMALLEST_DUMP and #data > structure.length) then
    local found, remark, kind = carved(data, name)
    if found then
      return found, remark, kind
    end
  end
  if structure then
    return single(data, name, structure)
  end
  local kind = find(sub(data, 1, TEXT_PROBE), NOT_TEXT) and "unknown" or "text"
  return {}, REMARKS[kind], kind
end

-- Text -----------------------------------------------------------------------------------------------------------

local PEM_START = constants.keys.inspect.PEM_START
local MOST_PEM_BLOCKS = constants.keys.inspect.MOST_PEM_BLOCKS
local LONGEST_PEM_LABEL = constants.keys.inspect.LONGEST_PEM_LABEL
local LONGEST_PEM_BLOCK = constants.keys.inspect.LONGEST_PEM_BLOCK
local UTF16_PROBE = constants.keys.inspect.UTF16_PROBE
local UTF16_MARKS = constants.keys.inspect.UTF16_MARKS
local UTF8_MARK = constants.keys.inspect.UTF8_MARK
local ENCRYPTED_LABEL = constants.keys.inspect.ENCRYPTED_LABEL
local ENCRYPTED_HEADER = constants.keys.inspect.ENCRYPTED_HEADER
local PARAMETERS_LABEL = constants.keys.inspect.PARAMETERS_LABEL

--- UTF-16 in one byte order: its mark, its bytes for ASCII text, and ASCII characters by their two bytes; any other
--- two bytes read as a question mark.
local function encoding(mark, widen)
  local narrow = setmetatable({}, {
    __index = function()
      return "?"
    end,
  })
  for code = 0, 127 do
    local character = string.char(code)
    narrow[widen(character)] = character
  end
  return { mark = mark, pem_start = PEM_START:gsub(".", widen), narrow = narrow }
end

local WIDE = {
  encoding(UTF16_MARKS["utf-16-le"], function(character)
    return character .. "\0"
  end),
  encoding(UTF16_MARKS["utf-16-be"], function(character)
    return "\0" .. character
  end),
}

--- The bytes with the marks that editors and PowerShell's `>` leave taken away.
local function as_text(data)
  for _, wide in ipairs(WIDE) do
    local size = #wide.mark
    if sub(data, 1, size) == wide.mark and find(sub(data, 1, UTF16_PROBE), wide.pem_start, 1, true) then
      return (sub(data, size + 1):gsub("..?", wide.narrow))
    end
  end
  return sub(data, 1, #UTF8_MARK) == UTF8_MARK and sub(data, #UTF8_MARK + 1) or data
end

local SIXTETS = {}
for value = 0, 63 do
  SIXTETS[byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", value + 1)] = value
end

--- Cut a run of base64 characters at its padding and take stray `=` out; nil when it ends in the middle of a byte.
local function unpadded(digits)
  local pieces, count, at = {}, 0, 1
  while true do
    local first, last = find(digits, "=+", at)
    local piece = sub(digits, at, (first or 0) - 1)
    pieces[#pieces + 1], count = piece, count + #piece
    local over = count % 4
    if not first then
      return over == 0 and concat(pieces) or nil
    elseif over >= 2 and over + last - first + 1 >= 4 then
      return concat(pieces)
    end
    at = last + 1
  end
end

--- Decode base64 as leniently as Python does: what is no digit is passed over, data ends at the padding. Empty when it
--- ends in the middle of a byte.
local function base64(text)
  local digits = unpadded((text:gsub("[^A-Za-z0-9+/=]", "")))
  if not digits then
    return ""
  end
  local bytes, count = {}, 0
  for at = 1, #digits, 4 do
    local a, b, c, d = byte(digits, at, at + 3)
    local value = SIXTETS[a] * 262144 + SIXTETS[b] * 4096 + (SIXTETS[c] or 0) * 64 + (SIXTETS[d] or 0)
    local high = floor(value / 65536)
    local middle = floor(value / 256) % 256
    count = count + 1
    bytes[count] = string.char(high, middle, value % 256)
  end
  return sub(concat(bytes), 1, floor(#digits * 3 / 4))
end

--- The bytes inside one PEM block: its lines without armour and headers.
local function content_of(block)
  local lines = {}
  for line in block:gmatch("[^\r\n]+") do
    if sub(line, 1, 1) ~= "-" and not find(line, ":", 1, true) then
      lines[#lines + 1] = line
    end
  end
  return base64(concat(lines))
end

--- The PEM blocks of a text as {label, text}, `MOST_PEM_BLOCKS` at most; a beginning without its end counts as one.
local function pem_blocks(text)
  local blocks, at = {}, 1
  for _ = 1, MOST_PEM_BLOCKS do
    local start = find(text, PEM_START, at, true)
    if not start then
      break
    end
    at = start + #PEM_START
    local label = sub(text, at, at + LONGEST_PEM_LABEL - 1)
    label = sub(label, 1, (find(label, "-----", 1, true) or #label + 1) - 1)
    local _, last = find(sub(text, at, at + LONGEST_PEM_BLOCK - 1), "-----END " .. label .. "-----", 1, true)
    if last then
      at = at + last
      blocks[#blocks + 1] = { label = label, text = sub(text, start, at - 1) }
    end
  end
  return blocks
end

--- Keys, remark and kind of one PEM block.
local function from_block(block, name)
  if block.label == ENCRYPTED_LABEL or find(block.text, ENCRYPTED_HEADER, 1, true) then
    return {}, REMARKS.encrypted, "encrypted"
  end
  local data = content_of(block.text)
  if data == "" then
    return {}, REMARKS.pem, "unknown"
  end
  local found, remark, kind = from_der(data, name)
  if #found == 0 and (kind == "text" or kind == "unknown") then
    remark, kind = REMARKS.pem, "unknown"
  end
  return found, remark, kind
end

--- Keys, remark and kind of PEM text.
local function from_pem(text, name)
  local found, remark, kind = {}, nil, nil
  for _, block in ipairs(pem_blocks(text)) do
    -- The parameters of an elliptic curve stand before its key, and are none.
    if sub(block.label, -#PARAMETERS_LABEL) ~= PARAMETERS_LABEL then
      local inside, block_remark, block_kind = from_block(block, name)
      for _, key in ipairs(inside) do
        key.pem = true
        found[#found + 1] = key
      end
      if #inside == 0 and not kind then
        remark, kind = block_remark, block_kind
      end
    end
  end
  if #found > 0 then
    return found, nil, "key"
  elseif kind then
    return found, remark, kind
  end
  return found, REMARKS["pem-cut"], "truncated"
end

-- Whole files ----------------------------------------------------------------------------------------------------

local CAPTURE_MAGICS = constants.keys.inspect.CAPTURE_MAGICS
local HTML_STARTS = constants.keys.inspect.HTML_STARTS

local function is_html(text)
  local start = sub(text, find(text, "[^ \t-\r]") or 1, TEXT_PROBE):lower()
  for _, beginning in ipairs(HTML_STARTS) do
    if sub(start, 1, #beginning) == beginning then
      return true
    end
  end
  return false
end

local function is_capture(data)
  for _, magic in ipairs(CAPTURE_MAGICS) do
    if sub(data, 1, #magic) == magic then
      return true
    end
  end
  return false
end

--- Find the RSA keys in the bytes of one file. Return them, what is to be said of the file (nil: nothing; never nil
--- without a key), and what kind of file it is, by the words of `analyzer.keys.model`. A key is {name, n, e, private,
--- bits, role, device_ids, encoding, pem, slot}: n and e are big-endian strings without leading zeros,
--- `private` has all eight numbers (nil for a public key) and `role` follows from the size: device, server or other.
--- An encrypted key is only reported. Never raises, linear in the size.
local function read(data, name)
  if data == "" then
    return {}, REMARKS.empty, "empty"
  end
  local text = as_text(data)
  if is_html(text) then
    return {}, REMARKS.html, "html"
  elseif is_capture(data) then
    return {}, REMARKS.capture, "capture"
  elseif not find(data, "[^\255]") or not find(data, "[^%z]") then
    return {}, fill(REMARKS.blank, { size = #data }), "blank"
  elseif not find(sub(text, 1, TEXT_PROBE), NOT_TEXT) and find(text, PEM_START, 1, true) then
    return from_pem(text, name)
  end
  local found, remark, kind = from_der(data, name)
  -- PEM text that somebody wrote into a slot: looked for last, because firmware images hold PEM text too.
  if #found == 0 and (kind == "unknown" or find(kind, "dump$")) and find(data, PEM_START, 1, true) then
    return from_pem(data, name)
  end
  return found, remark, kind
end

spark.keys = { read = read, reads_private = reads_private }
end

-- keylog ----------------------------------------------------------------------------------------------------
do
-- Session keys from a key log, and the ring: all keys a user named, sorted by what they are.
--
-- Loading does no arithmetic on keys, so that a server's whole folder is read in the time it takes to read the files.

local constants = spark.constants
local keys = spark.keys

local sub, find, format = string.sub, string.find, string.format
local fill = spark.wording.fill

-- Session keys (PROTOCOL 4.1) ------------------------------------------------------------------------------------

local BLOCK = constants.catalogue.BLOCK

--- What message 3 carries: {key, iv, salt, blob, first_message_ids}, split from the 40-byte blob. The ids are those
--- that a device's hello can have: the seed read high byte first (Cores, Photons to 0.7), then low byte first.
local function session_key(blob)
  local high, low = blob:byte(2 * BLOCK + 1, 2 * BLOCK + 2)
  return {
    key = sub(blob, 1, BLOCK),
    iv = sub(blob, BLOCK + 1, 2 * BLOCK),
    salt = sub(blob, 2 * BLOCK + 1),
    blob = blob,
    first_message_ids = { (high * 256 + low + 1) % 65536, (low * 256 + high + 1) % 65536 },
  }
end

-- The key log ----------------------------------------------------------------------------------------------------

local LABEL = constants.keys.keylog.LABEL
local MOST_BAD_LINES = constants.keys.keylog.MOST_BAD_LINES
local LONGEST_LINE = constants.keys.keylog.LONGEST_LINE
local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local SESSION_KEY_SIZE = constants.catalogue.SESSION_KEY_SIZE

-- What ends a line and what parts words, of the characters that Python's text has for it in ASCII.
local LINE_END = "[\n\v\f\r\28-\30]"
local WORD = "[^\t-\r\28-\32]+"

local function from_hex(digits)
  return (digits:gsub("..", function(two)
    return string.char(tonumber(two, 16))
  end))
end

local function to_hex(bytes)
  return (bytes:gsub(".", function(character)
    return format("%02x", character:byte())
  end))
end

--- What is wrong with these digits; nil when they are `size` bytes.
local function wrong_digits(digits, size, what)
  local at = find(digits, "[^0-9a-fA-F]")
  if at then
    return fill(constants.keys.keylog.NOT_HEX, { what = what, at = at })
  elseif #digits ~= 2 * size then
    return fill(constants.keys.keylog.WRONG_DIGITS, { what = what, count = #digits, wanted = 2 * size })
  end
  return nil
end

--- Nonce (nil for `-`) and session key of one line, in lower-case digits; or nil, nil and what is wrong with it.
local function read_entry(words)
  if words[1] ~= LABEL then
    return nil, nil, fill(constants.keys.keylog.NOT_LABELLED, { label = LABEL })
  elseif #words ~= 3 then
    return nil, nil, fill(constants.keys.keylog.WRONG_FIELDS, { label = LABEL, count = #words - 1 })
  end
  local nonce = words[2] ~= "-" and words[2] or nil
  local wrong = nonce and wrong_digits(nonce, NONCE_SIZE, "nonce")
    or wrong_digits(words[3], SESSION_KEY_SIZE, "session key")
  if wrong then
    return nil, nil, wrong
  end
  return nonce and nonce:lower(), words[3]:lower()
end

--- Read a key log: {by_nonce, without_nonce, bad_lines}. Nonces and session keys stay lower-case digits, because a
--- capture needs few of a long log: `by_nonce` has the array of session keys that were logged with a nonce, each once;
--- `without_nonce` is an array, `bad_lines` one of {number, reason}. Never raises.
local function read_key_log(text)
  local log = { by_nonce = {}, without_nonce = {}, bad_lines = {} }
  local seen, number, at = {}, 0, 1
  while at <= #text do
    local ending = find(text, LINE_END, at) or #text + 1
    local line = sub(text, at, math.min(ending, at + LONGEST_LINE) - 1)
    number = number + 1
    at = ending + (sub(text, ending, ending + 1) == "\r\n" and 2 or 1)
    local words = {}
    for word in sub(line, 1, (find(line, "#", 1, true) or #line + 1) - 1):gmatch(WORD) do
      words[#words + 1] = word
    end
    if words[1] then
      local nonce, blob, wrong = read_entry(words)
      if wrong then
        if #log.bad_lines < MOST_BAD_LINES then
          log.bad_lines[#log.bad_lines + 1] = { number = number, reason = wrong }
        end
      elseif not nonce then
        log.without_nonce[#log.without_nonce + 1] = blob
      elseif not seen[nonce .. blob] then
        seen[nonce .. blob] = true
        local logged = log.by_nonce[nonce] or {}
        log.by_nonce[nonce] = logged
        logged[#logged + 1] = blob
      end
    end
  end
  return log
end

-- Files ----------------------------------------------------------------------------------------------------------

local LARGEST_KEY_FILE = constants.keys.ring.LARGEST_KEY_FILE
local LARGEST_KEY_LOG = constants.keys.keylog.LARGEST_KEY_LOG
-- Files looked at in one folder, and bytes read of them: a wrong folder must not hold Wireshark up for more than a few
-- seconds. A server's folder of five thousand keys has 5 MB.
local MOST_FILES = 5000
local MOST_FOLDER_BYTES = 64 * 1048576

--- How files are reached: `read(path, limit)` gives up to `limit` bytes and one more, or nil and why not;
--- `list(path)` the names in a folder, or nil when it is none. Lua itself cannot list a folder; Wireshark's `Dir` can.
local files = {}

function files.read(path, limit)
  local file, trouble = io.open(path, "rb")
  if not file then
    return nil, trouble
  end
  -- Lua 5.2 reserves what it is asked to read; a thousand times 4 MB would be slow.
  local size = file:seek("end")
  file:seek("set")
  local data, why = file:read(math.min(size or limit, limit) + 1)
  file:close()
  if not data and why then
    return nil, path .. ": " .. why
  end
  return data or ""
end

function files.list(path)
  local opened, entries = pcall(function()
    return Dir.open(path)
  end)
  if not opened then
    return nil
  end
  local names = {}
  for name in entries do
    names[#names + 1] = name
    if #names > MOST_FILES then
      break
    end
  end
  entries:close()
  return names
end

--- A path as a user may have pasted it: without blanks and quotes around it, `~` at its front as the home folder.
local function cleaned(path)
  path = path:match("^%s*(.-)%s*$")
  path = path:match('^"%s*(.-)%s*"$') or path:match("^'%s*(.-)%s*'$") or path
  local home = os.getenv("HOME") or os.getenv("USERPROFILE")
  if home and (path == "~" or path:find("^~[/\\]")) then
    path = home .. sub(path, 2)
  end
  return path
end

local function joined(folder, name)
  return folder:find("[/\\]$") and folder .. name or folder .. "/" .. name
end

-- The ring -------------------------------------------------------------------------------------------------------

local REMARKS = constants.keys.inspect.REMARKS
local UTF8_MARK = constants.keys.inspect.UTF8_MARK
-- Lines of a key log that are complained of one by one; what has more is some other file.
local BAD_LINES_NAMED = 5

--- Keys by role: `device_keys`, `server_keys`, `other_keys` hold each modulus once, the private half where any file had
--- it; `device_private` and `server_private` those of them that open something; `loose_session_keys` those that were
--- logged without a nonce; `notes` lines for the user, `problems` those of them that tell of something wrong; `empty`
--- whether there is nothing to try.
local KeyRing = {}
KeyRing.__index = KeyRing

local function note(ring, ...)
  local text = format(...)
  ring.notes[#ring.notes + 1], ring.problems[#ring.problems + 1] = text, text
end

--- How unlike the device's own slot a find is, 0 for the same: which of several files speaks for the device.
local function distance(key)
  return (key.encoding ~= "pkcs1" and 2 or 0) + (key.pem and 1 or 0)
end

--- Take a find in. The private half wins and names the key; of several, the one that is most like the device's slot.
local function take_key(ring, other)
  local key = ring.by_modulus[other.n]
  if not key then
    key = other
    ring.by_modulus[key.n], ring.found[#ring.found + 1] = key, key
  elseif other.private and not (key.private and distance(key) <= distance(other)) then
    key.name = key.private and key.name or other.name
    key.e, key.private, key.slot, key.encoding, key.pem = other.e, other.private, other.slot, other.encoding, other.pem
  end
  for _, id in ipairs(other.device_ids) do
    local named = ring.by_device[id] or {}
    ring.by_device[id] = named
    if not named[key] then
      named[key], named[#named + 1] = true, key
      if key ~= other then
        key.device_ids[#key.device_ids + 1] = id
      end
    end
  end
end

--- Inspect one file: the keys in it (taken into the ring), the remark, the kind; nil and why when it cannot be read.
local function take_file(ring, path)
  local data, trouble = files.read(path, LARGEST_KEY_FILE)
  if not data then
    return nil, trouble
  elseif #data > LARGEST_KEY_FILE then
    return {}, REMARKS.large, "unknown", #data
  end
  local found, remark, kind = keys.read(data, path)
  for _, key in ipairs(found) do
    take_key(ring, key)
  end
  return found, remark, kind, #data
end

local function take_folder(ring, preference, folder, names)
  table.sort(names)
  if #names > MOST_FILES then
    note(ring, "%s: %s: more than %d files; the rest was not looked at.", preference, folder, MOST_FILES)
  end
  local looked, with_keys, locked, bytes = 0, 0, 0, 0
  for index = 1, math.min(#names, MOST_FILES) do
    if bytes > MOST_FOLDER_BYTES then
      note(ring, "%s: %s: more than %d MB; from %s on it was not looked at.", preference, folder,
        MOST_FOLDER_BYTES / 1048576, names[index])
      break
    end
    local path = joined(folder, names[index])
    local found, remark, kind, size = take_file(ring, path)
    if found then
      looked, bytes = looked + 1, bytes + size
      with_keys = with_keys + (#found > 0 and 1 or 0)
      locked = locked + (kind == "encrypted" and 1 or 0)
    elseif not files.list(path) then
      looked = looked + 1
      note(ring, "%s: %s", preference, remark)
    end
  end
  local more = locked > 0 and format(", %d locked with a password", locked) or ""
  local count = format("%s: %s: %d of %d files hold keys%s.", preference, folder, with_keys, looked, more)
  if with_keys == 0 or locked > 0 then
    note(ring, "%s", count)
  else
    -- Folders of keys hold other files, too.
    ring.notes[#ring.notes + 1] = count
  end
end

--- Say of a file named alone what is odd about it: another role than the preference's, or only the public half where
--- that opens nothing.
local function check_role(ring, preference, role, path, found)
  local fits, private = false, false
  for _, key in ipairs(found) do
    fits, private = fits or key.role == role, private or key.private ~= nil
  end
  local values = { name = path, option = preference, bits = found[1].bits, role = found[1].role }
  if not fits then
    note(ring, "%s", fill(constants.keys.ring.ROLE_SWAPPED, values))
  elseif role == "device" and not private then
    note(ring, "%s", fill(constants.keys.ring.PUBLIC_GIVEN, values))
  end
end

--- Take in what one preference names: nothing, a file, or a folder (not those inside it).
local function take_path(ring, preference, role, path)
  if path == "" then
    return
  end
  local names = files.list(path)
  if names then
    take_folder(ring, preference, path, names)
    return
  end
  local found, remark, kind = take_file(ring, path)
  if not found then
    note(ring, "%s: %s", preference, remark)
  elseif kind == "encrypted" then
    note(ring, "%s: %s: %s, which Wireshark cannot open. Take it off: openssl rsa -in %s -out plain.pem", preference,
      path, remark, path)
  elseif remark then
    note(ring, "%s: %s: %s.", preference, path, remark)
  end
  if found and #found > 0 then
    check_role(ring, preference, role, path, found)
  end
end

local function take_key_log(ring, preference, path)
  if path == "" then
    return
  end
  local data, trouble = files.read(path, LARGEST_KEY_LOG)
  if not data then
    note(ring, "%s: %s", preference, trouble)
    return
  end
  if sub(data, 1, #UTF8_MARK) == UTF8_MARK then
    data = sub(data, #UTF8_MARK + 1)
  end
  local log = read_key_log(data)
  local seen = {}
  ring.logged = log.by_nonce
  for _, blob in ipairs(log.without_nonce) do
    if not seen[blob] then
      seen[blob] = true
      ring.loose_session_keys[#ring.loose_session_keys + 1] = session_key(from_hex(blob))
    end
  end
  local bad = log.bad_lines
  for index = 1, math.min(#bad, BAD_LINES_NAMED) do
    local values = { name = path, number = bad[index].number, reason = bad[index].reason }
    note(ring, "%s: %s", preference, fill(constants.keys.ring.BAD_LINE, values))
  end
  if #bad > BAD_LINES_NAMED then
    note(ring, "%s: %s: more lines like that, the next is line %d.", preference, path, bad[BAD_LINES_NAMED + 1].number)
  end
  if next(log.by_nonce) == nil and #log.without_nonce == 0 then
    note(ring, "%s: %s: no session key in it. Make one: sparkshark decrypt --keylog-out FILE", preference, path)
  end
end

--- Read what the preferences `device_key`, `server_key` and `keylog` of `named` name; each may be empty. Both key
--- preferences take any key, the role follows from the content. Never raises: what is wrong becomes a note.
function KeyRing.load(named)
  local ring = setmetatable({
    device_keys = {},
    server_keys = {},
    other_keys = {},
    device_private = {},
    server_private = {},
    loose_session_keys = {},
    notes = {},
    problems = {},
    found = {},
    by_modulus = {},
    by_device = {},
    logged = {},
  }, KeyRing)
  local device_path, server_path = cleaned(named.device_key), cleaned(named.server_key)
  take_path(ring, "spark.device_key", "device", device_path)
  if server_path ~= device_path then
    take_path(ring, "spark.server_key", "server", server_path)
  end
  take_key_log(ring, "spark.keylog", cleaned(named.keylog))
  for _, key in ipairs(ring.found) do
    local same_role = ring[key.role .. "_keys"]
    same_role[#same_role + 1] = key
    local private = key.private and ring[key.role .. "_private"]
    if private then
      private[#private + 1] = key
    end
  end
  ring.empty = #ring.found == 0 and next(ring.logged) == nil and #ring.loose_session_keys == 0
  return ring
end

--- The key with this modulus (trimmed big-endian string), the private half if it is here; nil without one.
function KeyRing:key_with_modulus(n)
  return self.by_modulus[n]
end

--- The keys in files whose names carry this device id (24 hex digits), as servers name them.
function KeyRing:keys_of_device(device_id)
  return self.by_device[device_id:lower()] or {}
end

--- The session keys worth trying for a conversation, those logged with its nonce (40 bytes or nil) first.
function KeyRing:session_keys_for(nonce)
  local found = {}
  for _, blob in ipairs(nonce and self.logged[to_hex(nonce)] or {}) do
    found[#found + 1] = session_key(from_hex(blob))
  end
  for _, key in ipairs(self.loose_session_keys) do
    found[#found + 1] = key
  end
  return found
end

--- How the firmware reads this private key, by the file most like its slot: {ok, differences}; nil without a private
--- half. What the device itself holds may be another file: only a fresh dump is sure (SPK306).
function KeyRing:firmware_reading(key)
  local own = self.by_modulus[key.n]
  if not own or not own.private then
    return nil
  end
  own.reading = own.reading or keys.reads_private(own.slot, own.private)
  return own.reading
end

spark.session_key, spark.read_key_log, spark.files, spark.KeyRing = session_key, read_key_log, files, KeyRing
end

-- coap ------------------------------------------------------------------------------------------------------
do
-- Bytes to CoAP messages: RFC 7252 alone, without a word of what Spark means by them.
--
-- Bytes from the network never raise an error here. What cannot be read is left empty, and an anomaly says why.
-- A message whose version is not 1 or whose token length is reserved is not read any further, since nothing says
-- where its options would begin.
--
-- Text in values is UTF-8 with U+FFFD for what is not, as in the Python analyzer; raw bytes stay in the message.

local constants = spark.constants
local ANOMALIES = constants.coap.ANOMALIES
local HARMLESS = constants.coap.HARMLESS
local HEADER_SIZE = constants.coap.HEADER_SIZE
local LONGEST_TOKEN = constants.coap.LONGEST_TOKEN
local PAYLOAD_MARKER = constants.coap.PAYLOAD_MARKER
local LARGEST_OPTION_NUMBER = constants.coap.LARGEST_OPTION_NUMBER
local URI_PATH = constants.coap.URI_PATH
local URI_QUERY = constants.coap.URI_QUERY
local EMPTY = constants.coap.EMPTY
local ACK = constants.coap.ACK
local REMEMBERED_RUNS = constants.coap.REMEMBERED_RUNS
local LONGEST_REMEMBERED_RUN = constants.coap.LONGEST_REMEMBERED_RUN
local BLOCK = constants.catalogue.BLOCK

local byte, find, format, rep, sub = string.byte, string.find, string.format, string.rep, string.sub
local concat, floor = table.concat, math.floor

-- UTF-8 ----------------------------------------------------------------------------------------------------------

local REPLACEMENT = "\239\191\189" -- U+FFFD

--- The character at byte `at` of `text` (1-based): its code point and the byte behind it. When the bytes there are no
-- character: nil and the byte behind the longest beginning of one, which is what one U+FFFD stands for (Unicode 3.9).
local function character(text, at)
  local first, second, third, fourth = byte(text, at, at + 3)
  if first < 0x80 then
    return first, at + 1
  elseif first < 0xC2 or first > 0xF4 then
    return nil, at + 1
  end
  -- The second byte's range is what keeps overlong forms, surrogates and numbers above 10FFFF out.
  local least, most = 0x80, 0xBF
  if first == 0xE0 then
    least = 0xA0
  elseif first == 0xED then
    most = 0x9F
  elseif first == 0xF0 then
    least = 0x90
  elseif first == 0xF4 then
    most = 0x8F
  end
  if not second or second < least or second > most then
    return nil, at + 1
  elseif first < 0xE0 then
    return (first - 0xC0) * 0x40 + second - 0x80, at + 2
  elseif not third or third < 0x80 or third > 0xBF then
    return nil, at + 2
  elseif first < 0xF0 then
    return (first - 0xE0) * 0x1000 + (second - 0x80) * 0x40 + third - 0x80, at + 3
  elseif not fourth or fourth < 0x80 or fourth > 0xBF then
    return nil, at + 3
  end
  return (first - 0xF0) * 0x40000 + (second - 0x80) * 0x1000 + (third - 0x80) * 0x40 + fourth - 0x80, at + 4
end

--- `raw` as text: itself when it is UTF-8, otherwise with U+FFFD for what is not.
local function to_text(raw)
  local at = find(raw, "[\128-\255]")
  if not at then
    return raw
  end
  local pieces, count, kept, size = {}, 0, 1, #raw
  while at and at <= size do
    local code, behind = character(raw, at)
    if not code then
      pieces[count + 1] = sub(raw, kept, at - 1)
      pieces[count + 2] = REPLACEMENT
      count, kept = count + 2, behind
    end
    at = find(raw, "[\128-\255]", behind)
  end
  if count == 0 then
    return raw
  end
  pieces[count + 1] = sub(raw, kept)
  return concat(pieces)
end

-- Characters beyond ASCII that are shown as they are: letters, marks and signs of the scripts most in use, in ranges
-- without a hole. Python shows every character that its tables of Unicode call printable; here a character of another
-- range comes out escaped. What no range may have: controls, spaces of other widths, direction marks, unassigned,
-- characters that join the one before them, fillers that show nothing.
local PRINTABLE = {
  { 0x00A1, 0x00AC }, { 0x00AE, 0x02FF }, { 0x0370, 0x0377 }, -- Latin with its accents, phonetic letters
  { 0x0384, 0x038A }, { 0x038E, 0x03A1 }, { 0x03A3, 0x052F }, -- Greek, Cyrillic
  { 0x1E00, 0x1F15 }, -- more Latin, first of the older Greek
  { 0x2010, 0x2027 }, { 0x2030, 0x205E }, { 0x20A0, 0x20C0 }, { 0x2100, 0x218B }, -- dashes, quotes, currencies
  { 0x2190, 0x2426 }, { 0x2500, 0x27FF }, { 0x2801, 0x2B73 }, -- arrows, mathematics, boxes, shapes
  { 0x3001, 0x303F }, { 0x3041, 0x3096 }, { 0x3099, 0x30FF }, -- punctuation of East Asia, Japanese
  { 0x3400, 0x4DBF }, { 0x4E00, 0x9FFC }, { 0xAC00, 0xD7A3 }, -- Han, Korean
  { 0xFF01, 0xFF9F }, { 0xFFA1, 0xFFBE }, { 0xFFFC, 0xFFFD }, -- letters of full width, the replacement character
  { 0x1F300, 0x1F6D7 }, { 0x1F900, 0x1F9CB }, -- pictures
}

--- Whether a character can be shown as it is.
local function is_printable(code)
  if code < 0x7F then
    return code >= 0x20
  end
  for index = 1, #PRINTABLE do
    local range = PRINTABLE[index]
    if code <= range[2] then
      return code >= range[1]
    end
  end
  return false
end

--- Text with everything escaped that could act on a screen or does not print; `also` is a pattern of ASCII characters
-- that get a backslash. Bytes that are no UTF-8 are escaped one by one. At most `most` characters of the text are
-- used; the second result tells whether that left some out.
local function escaped(text, also, most)
  local pieces, count, at, size = {}, 0, 1, #text
  while at <= size and count < most do
    local code, behind = character(text, at)
    local shown
    if not code then
      behind = at + 1
      shown = format("\\x%02x", byte(text, at))
    elseif is_printable(code) then
      shown = sub(text, at, behind - 1)
      if also and find(shown, also) then
        shown = "\\" .. shown
      end
    elseif code < 0x100 then
      shown = format("\\x%02x", code)
    else
      shown = format(code < 0x10000 and "\\u%04x" or "\\U%08x", code)
    end
    count = count + 1
    pieces[count] = shown
    at = behind
  end
  return concat(pieces), at <= size
end

--- Text from the network as it may be shown anywhere.
local function visible(text)
  if not find(text, "[^ -~]") then
    return text
  end
  return (escaped(text, nil, #text))
end

-- Options --------------------------------------------------------------------------------------------------------

--- Put what is asked of every message's options beside them, so that a remembered run answers at once: `path` (text),
-- `queries` (raw), `letter` (the first Uri-Path as a number when it is one byte and the first option) and `name` (what
-- stands behind the letter: the name of an event, function or variable).
local function explained(options)
  local path, queries, paths, asked = {}, {}, 0, 0
  for index = 1, #options do
    local option = options[index]
    if option[1] == URI_PATH then
      paths = paths + 1
      path[paths] = option[2]
    elseif option[1] == URI_QUERY then
      asked = asked + 1
      queries[asked] = option[2]
    end
  end
  options.queries = queries
  options.path = paths == 1 and to_text(path[1]) or to_text(concat(path, "/"))
  local first, second = options[1], options[2]
  if first and first[1] == URI_PATH and #first[2] == 1 then
    options.letter = byte(first[2])
  end
  options.name = ""
  if second and second[1] == URI_PATH then
    -- The options are in order of their numbers, so a path that has a second segment begins with the first option or
    -- the second, and the name begins with the second.
    options.name = to_text(concat(path, "/", first[1] == URI_PATH and 2 or 1))
  end
  return options
end

--- Read options from byte `at` (1-based) on; return them, the byte of the marker or the one behind the end, and what
-- stopped the reading. Each turn consumes at least a byte, so the time is linear. Behind an anomaly nothing can be
-- told apart: there is no payload then.
local function read_options(data, at)
  local behind = #data + 1
  local number, count, options = 0, 0, {}
  while at < behind do
    local head = byte(data, at)
    if head == PAYLOAD_MARKER then
      return explained(options), at
    end
    at = at + 1
    local length = head % 16
    local delta = floor(head / 16)
    if delta == 15 or length == 15 then
      return explained(options), behind, ANOMALIES.RESERVED_OPTION_NIBBLE
    end
    -- A cut extension reads as zero, but then `at` is already past the end.
    if delta == 13 then
      delta, at = 13 + (byte(data, at) or 0), at + 1
    elseif delta == 14 then
      local high, low = byte(data, at, at + 1)
      delta, at = 269 + (low and high * 256 + low or 0), at + 2
    end
    if length == 13 then
      length, at = 13 + (byte(data, at) or 0), at + 1
    elseif length == 14 then
      local high, low = byte(data, at, at + 1)
      length, at = 269 + (low and high * 256 + low or 0), at + 2
    end
    if at + length > behind then
      return explained(options), behind, ANOMALIES.OPTION_PAST_END
    end
    number = number + delta
    if number > LARGEST_OPTION_NUMBER then
      return explained(options), behind, ANOMALIES.OPTION_NUMBER_TOO_LARGE
    end
    count = count + 1
    options[count] = { number, sub(data, at, at + length - 1) }
    at = at + length
  end
  return explained(options), behind
end

-- Messages -------------------------------------------------------------------------------------------------------

local NO_OPTIONS = explained({})
local NO_ANOMALIES = {}

local runs, remembered = { [""] = NO_OPTIONS }, 1

-- The first byte as version and type, so that nothing is divided per message.
local VERSION, TYPE = {}, {}
for first = 0, 255 do
  VERSION[first], TYPE[first] = floor(first / 64), floor(first / 16) % 4
end

local function unreadable(first, code, message_id, anomaly)
  return {
    version = VERSION[first],
    type = TYPE[first],
    code = code,
    message_id = message_id,
    token = "",
    options = NO_OPTIONS,
    payload = "",
    anomalies = { anomaly },
  }
end

--- Read one whole CoAP message: { version, type (0 CON, 1 NON, 2 ACK, 3 RST), code (0x45 is 2.05), message_id, token,
-- options, payload, anomalies (array of phrases) }. `options` is an array of { number, raw value } in wire order that
-- also carries `path`, `queries`, `letter` and `name` (see above); messages may share it, so it is only read.
-- `payload` is "" both without a marker and with an empty payload, which `anomalies` tells apart.
local function decode(data)
  local size = #data
  local first, code, high, low = byte(data, 1, HEADER_SIZE)
  if not low then
    return unreadable(first or 0, code or 0, 0, ANOMALIES.TRUNCATED)
  end
  local message_id = high * 256 + low
  local token_size = first % 16
  local token_end = HEADER_SIZE + token_size
  if VERSION[first] ~= 1 then
    return unreadable(first, code, message_id, ANOMALIES.BAD_VERSION)
  elseif token_size > LONGEST_TOKEN then
    return unreadable(first, code, message_id, ANOMALIES.RESERVED_TOKEN_LENGTH)
  elseif token_end > size then
    return unreadable(first, code, message_id, ANOMALIES.TRUNCATED)
  end
  local kind, options, payload, anomalies = TYPE[first], NO_OPTIONS, "", NO_ANOMALIES
  if size > token_end then
    -- The bytes up to the first FF are a whole run of options, or that FF lies inside an option's value. Only runs
    -- that were read to their exact end are remembered, so a hit settles which of the two it is.
    local marker = find(data, "\255", token_end + 1, true) or size + 1
    local run = sub(data, token_end + 1, marker - 1)
    options = runs[run]
    if not options then
      local read_to, anomaly
      options, read_to, anomaly = read_options(data, token_end + 1)
      if anomaly then
        anomalies = { anomaly }
      elseif read_to == marker and #run <= LONGEST_REMEMBERED_RUN then
        if remembered >= REMEMBERED_RUNS then
          runs, remembered = { [""] = NO_OPTIONS }, 1
        end
        runs[run], remembered = options, remembered + 1
      end
      marker = read_to
    end
    if marker < size then
      payload = sub(data, marker + 1)
    elseif marker == size then
      anomalies = { ANOMALIES.EMPTY_PAYLOAD }
    end
  end
  if code == EMPTY and size > HEADER_SIZE then
    local lone_token = kind == ACK and size == token_end and token_size == 1
    local last = lone_token and ANOMALIES.EMPTY_ACK_WITH_TOKEN or ANOMALIES.EMPTY_WITH_BYTES
    anomalies = { anomalies[1] or last, anomalies[1] and last }
  end
  return {
    version = 1,
    type = kind,
    code = code,
    message_id = message_id,
    token = token_size == 0 and "" or sub(data, HEADER_SIZE + 1, token_end),
    options = options,
    payload = payload,
    anomalies = anomalies,
  }
end

--- Whether everything was read to the end; harmless deviations of genuine peers do not count.
local function well_formed(coap)
  local anomalies = coap.anomalies
  for index = 1, #anomalies do
    if not HARMLESS[anomalies[index]] then
      return false
    end
  end
  return true
end

--- What is left of a message whose first `missing` bytes could not be decrypted (PROTOCOL 4.5): { missing, data,
-- possible_marker, text }. `possible_marker` is the offset in `data` (from 0) of the first FF, or nil; by the RFC alone
-- nobody can tell where the payload begins. `text` is `data` when all of it is printable UTF-8.
local function decode_tail(data, missing)
  local marker = find(data, "\255", 1, true)
  return {
    missing = missing,
    data = data,
    possible_marker = marker and marker - 1,
    text = data ~= "" and visible(data) == data and data or nil,
  }
end

-- What judges a decryption ---------------------------------------------------------------------------------------

local PADDINGS = {}
for count = 1, BLOCK do
  PADDINGS[count] = rep(string.char(count), count)
end

--- The plaintext without its PKCS#7 padding, or nil unless every padding byte is right (PROTOCOL 4.4).
local function without_padding(opened)
  local size = #opened
  local count = byte(opened, size)
  local padding = PADDINGS[count or 0]
  if not padding or sub(opened, -count) ~= padding then
    return nil
  end
  return sub(opened, 1, size - count)
end

--- Whether the bytes are one CoAP message, version 1, whose options end where they should. It allows what the servers'
-- own builders get wrong: an empty message with a token, a marker with nothing behind it, reserved codes.
local function is_whole_coap(message)
  local size = #message
  local first = byte(message)
  if size < HEADER_SIZE or VERSION[first] ~= 1 or first % 16 > LONGEST_TOKEN then
    return false
  end
  local at = HEADER_SIZE + first % 16 + 1
  if at == size + 1 then
    return true
  elseif at > size then
    return false
  end
  local marker = find(message, "\255", at, true) or size + 1
  if runs[sub(message, at, marker - 1)] then
    return true
  end
  while at <= size do
    local head = byte(message, at)
    at = at + 1
    if head == PAYLOAD_MARKER then
      return true
    end
    local length = head % 16
    if length == 15 or head >= 0xF0 then
      return false
    end
    if head >= 0xE0 then
      at = at + 2
    elseif head >= 0xD0 then
      at = at + 1
    end
    if length == 13 then
      length, at = 13 + (byte(message, at) or 0), at + 1
    elseif length == 14 then
      local high, low = byte(message, at, at + 1)
      length, at = 269 + (low and high * 256 + low or 0), at + 2
    end
    at = at + length
  end
  return at == size + 1
end

spark.character, spark.to_text = character, to_text
spark.is_printable, spark.escaped, spark.visible = is_printable, escaped, visible
spark.coap = { decode = decode, well_formed = well_formed, decode_tail = decode_tail }
spark.without_padding = without_padding
spark.is_whole_coap = is_whole_coap
end

-- describe --------------------------------------------------------------------------------------------------
do
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
end

-- messages --------------------------------------------------------------------------------------------------
do
-- Decrypted bytes to named messages: finds each one's row in the table of messages, reads its values, and pairs answers
-- with requests.
--
-- A request is known by code and the first letter of its path, as its receiver knows it (PROTOCOL 5.2). Answers have no
-- path: an ACK belongs to the other side's request of that id, a separate response to that of its token.
--
-- Values are named as in the Python analyzer; `value_order` names those that a message of its kind has, in order, and
-- the ones that are nil tell nothing. Both tables may be shared between messages, so they are only read. A number that
-- does not fit into 32 bits is text, "0x1234567890".

local constants = spark.constants
local decode, well_formed, decode_tail = spark.coap.decode, spark.coap.well_formed, spark.coap.decode_tail
local to_text, read_description = spark.to_text, spark.read_description

local ACK, CON, NON, RST = constants.coap.ACK, constants.coap.CON, constants.coap.NON, constants.coap.RST
local EMPTY = constants.coap.EMPTY
local CODES, CODE_TEXTS, TYPE_NAMES = constants.coap.CODES, constants.coap.CODE_TEXTS, constants.coap.TYPE_NAMES
local MAX_AGE = constants.coap.MAX_AGE
local EMPTY_PAYLOAD = constants.coap.ANOMALIES.EMPTY_PAYLOAD

local MESSAGES = constants.message_table.MESSAGES
local DEVICE, SERVER = constants.message_table.DEVICE, constants.message_table.SERVER
local METRICS_PREFIX = constants.message_table.METRICS_PREFIX
local MISCODED_ERRORS = constants.message_table.MISCODED_ERRORS
local SYSTEM_EVENT_PREFIX = constants.message_table.SYSTEM_EVENT_PREFIX
local DEFAULT_TTL = constants.message_table.DEFAULT_TTL
local FAST_UPDATE = constants.message_table.FAST_UPDATE
local HELLO_FLAGS = constants.message_table.HELLO_FLAGS
local DESCRIBE_FLAGS = constants.message_table.DESCRIBE_FLAGS
local GOODBYE_FIELDS = constants.message_table.GOODBYE_FIELDS
local PLATFORMS = constants.message_table.PLATFORMS
local UPDATE_STORES = constants.message_table.UPDATE_STORES
local VARIABLE_SIZES = constants.message_table.VARIABLE_SIZES
local ACK_OF_UNKNOWN = constants.message_table.ACK_OF_UNKNOWN.name
local ERROR_ACK_OF_UNKNOWN = constants.message_table.ERROR_ACK_OF_UNKNOWN.name
local RESPONSE_TO_UNKNOWN = constants.message_table.RESPONSE_TO_UNKNOWN.name
local ERROR_RESPONSE_TO_UNKNOWN = constants.message_table.ERROR_RESPONSE_TO_UNKNOWN.name

local OTHER_SIDE = constants.messages.routes.OTHER_SIDE
local FIRST_RESPONSE = constants.messages.routes.FIRST_RESPONSE
local BEHIND_SUCCESS = constants.messages.routes.BEHIND_SUCCESS
local FIRST_ERROR = constants.messages.routes.FIRST_ERROR
local BEHIND_ERRORS = constants.messages.routes.BEHIND_ERRORS
local CHANGED = constants.messages.routes.CHANGED
local MISCODED = constants.messages.routes.MISCODED

local HELLO_3X_SIZE = constants.messages.values.HELLO_3X_SIZE
local MOST_CHUNK_INDEXES = constants.messages.values.MOST_CHUNK_INDEXES
local LONGEST_VARINT = constants.messages.values.LONGEST_VARINT

local CORE, PHOTON = constants.messages.peers.CORE, constants.messages.peers.PHOTON
local P1, ELECTRON = constants.messages.peers.P1, constants.messages.peers.ELECTRON
local LEGACY, COMMUNITY = constants.messages.peers.LEGACY, constants.messages.peers.COMMUNITY
local HIGH_FIRST, LOW_FIRST = constants.messages.peers.HIGH_FIRST, constants.messages.peers.LOW_FIRST
local EITHER_ORDER, NEITHER_ORDER = constants.messages.peers.EITHER_ORDER, constants.messages.peers.NEITHER_ORDER
local G2B, G2B_OR_G2C = constants.messages.peers.G2B, constants.messages.peers.G2B_OR_G2C
local WITHOUT_PLATFORM = constants.messages.peers.WITHOUT_PLATFORM
local WITH_3X_HELLO = constants.messages.peers.WITH_3X_HELLO
local LATER_CORE = constants.messages.peers.LATER_CORE
local UNFLAGGED_PHOTON = constants.messages.peers.UNFLAGGED_PHOTON
local DIAGNOSING_PHOTON = constants.messages.peers.DIAGNOSING_PHOTON
local LAST_SEPARATE_PHOTON = constants.messages.peers.LAST_SEPARATE_PHOTON
local PHOTON_BY_FLAG = constants.messages.peers.PHOTON_BY_FLAG
local IGNORES_REFUSALS = constants.messages.peers.IGNORES_REFUSALS

local MOST_OUTSTANDING = constants.messages.reader.MOST_OUTSTANDING
local DESCRIPTIONS = constants.messages.reader.DESCRIPTIONS

local byte, format, gsub, lower, sub =
  string.byte, string.format, string.gsub, string.lower, string.sub
local floor, ipairs, setmetatable, sort = math.floor, ipairs, setmetatable, table.sort

-- Values: one small function for each kind of message, which returns the values and their names -------------------

--- The big-endian number of 1, 2 or 4 bytes at `at` (from 0), or nil when the payload ends before it does.
local function number8(payload, at)
  return byte(payload, at + 1)
end

local function number16(payload, at)
  local high, low = byte(payload, at + 1, at + 2)
  return low and high * 0x100 + low
end

local function number32(payload, at)
  local first, second, third, fourth = byte(payload, at + 1, at + 4)
  return fourth and first * 0x1000000 + second * 0x10000 + third * 0x100 + fourth
end

--- The big-endian number in all of `raw`.
local function whole_number(raw)
  if #raw > 4 then
    raw = gsub(raw, "^%z+", "")
    if #raw > 4 then
      local digits = gsub(raw, ".", function(one)
        return format("%02x", byte(one))
      end)
      return "0x" .. gsub(digits, "^0", "")
    end
  end
  local number = 0
  for at = 1, #raw do
    number = number * 0x100 + byte(raw, at)
  end
  return number
end

local function has_bit(flags, bit)
  return floor(flags / bit) % 2 == 1
end

local function ascending(names)
  local bits = {}
  for bit in pairs(names) do
    bits[#bits + 1] = bit
  end
  sort(bits)
  return bits
end

local HELLO_BITS, DESCRIBE_BITS, GOODBYE_BITS =
  ascending(HELLO_FLAGS), ascending(DESCRIBE_FLAGS), ascending(GOODBYE_FIELDS)

local function flag_names(flags, bits, names)
  local set = {}
  for _, bit in ipairs(bits) do
    if has_bit(flags, bit) then
      set[#set + 1] = names[bit]
    end
  end
  return set
end

local HELLO = {
  "product_id", "firmware_version", "flags", "flag_names", "platform_id", "platform", "device_id_length",
  "system_version", "largest_message", "largest_binary", "ota_chunk_size",
}

--- A device's Hello (7.1). Fields that its generation does not send are nil.
local function device_hello(coap)
  local payload = coap.payload
  local flags, platform = number8(payload, 5), number16(payload, 6)
  if flags and #payload >= HELLO_3X_SIZE then
    flags = flags + number8(payload, 4) * 0x100
  end
  return {
    product_id = number16(payload, 0),
    firmware_version = number16(payload, 2),
    flags = flags,
    flag_names = flags and flag_names(flags, HELLO_BITS, HELLO_FLAGS),
    platform_id = platform,
    platform = platform and PLATFORMS[platform],
    device_id_length = number8(payload, 9),
    system_version = number16(payload, 10),
    largest_message = number16(payload, 12),
    largest_binary = number32(payload, 14),
    ota_chunk_size = number16(payload, 18),
  }, HELLO
end

local PRIVATE_EVENT = byte("E")
local EVENT = { "name", "data", "ttl", "scope" }

--- An event of either side (5.4.5, 5.4.7). `data` is nil when the event has none.
local function event(coap)
  local options, payload, ttl = coap.options, coap.payload, DEFAULT_TTL
  for index = 2, #options do
    local option = options[index]
    if option[1] == MAX_AGE then
      ttl = whole_number(option[2])
    end
  end
  local data
  if payload ~= "" or coap.anomalies[1] == EMPTY_PAYLOAD then
    data = to_text(payload)
  end
  return {
    name = options.name,
    data = data,
    ttl = ttl,
    scope = options.letter == PRIVATE_EVENT and "private" or "public",
  }, EVENT
end

local SUBSCRIBE = { "prefix", "scope", "device_id" }

--- A subscription (5.4.8): by prefix, to all devices, the owner's, or one.
local function subscribe(coap)
  local scope = "all"
  for _, query in ipairs(coap.options.queries) do
    if query == "u" then
      scope = "mine"
    end
  end
  return {
    prefix = coap.options.name,
    scope = scope,
    device_id = coap.payload ~= "" and to_text(coap.payload) or nil,
  }, SUBSCRIBE
end

local NAME = { "name" }

--- A request that only names something (5.4.11).
local function name_alone(coap)
  return { name = coap.options.name }, NAME
end

local FUNCTION_CALL = { "name", "argument", "arguments" }

--- A call (5.4.10). The device reads the first argument only; the legacy server splits at every "&".
local function function_call(coap)
  local arguments = {}
  for index, query in ipairs(coap.options.queries) do
    arguments[index] = to_text(query)
  end
  return { name = coap.options.name, argument = arguments[1] or "", arguments = arguments }, FUNCTION_CALL
end

local DESCRIBE = { "flags", "flag_names" }

--- A Describe request: the flags of its query, nil when it has none (5.4.9).
local function describe_request(coap)
  local query = coap.options.queries[1]
  local flags = query and (byte(query) or 0)
  return { flags = flags, flag_names = flags and flag_names(flags, DESCRIBE_BITS, DESCRIBE_FLAGS) }, DESCRIBE
end

local function description(coap)
  return read_description(coap.payload)
end

local DESCRIBE_POST -- the names of both, once those of a description are known

--- A description that the device sends unasked.
local function describe_post(coap)
  local values = describe_request(coap)
  local told, names = read_description(coap.payload)
  if not DESCRIBE_POST then
    DESCRIBE_POST = { DESCRIBE[1], DESCRIBE[2] }
    for _, name in ipairs(names) do
      DESCRIBE_POST[#DESCRIBE_POST + 1] = name
    end
  end
  told.flags, told.flag_names = values.flags, values.flag_names
  return told, DESCRIBE_POST
end

local SIGNAL = { "on" }

--- A Signal: on unless the query is a zero byte, as the device takes it (5.2).
local function signal(coap)
  local query = coap.options.queries[1] or ""
  if query == "" then
    return {}, SIGNAL
  end
  return { on = byte(query) ~= 0 }, SIGNAL
end

local TIME = { "time" }

--- The time: seconds since 1970 UTC (5.4.4).
local function time_response(coap)
  return { time = number32(coap.payload, 0) }, TIME
end

local UPDATE_BEGIN = { "flags", "fast_offered", "chunk_size", "file_length", "store", "store_name", "address" }

--- The announcement of an update (5.5); all nil in the legacy server's last try, which is empty.
local function update_begin(coap)
  local payload = coap.payload
  local flags, store = number8(payload, 0), number8(payload, 7)
  local fast_offered
  if flags then
    fast_offered = has_bit(flags, FAST_UPDATE)
  end
  return {
    flags = flags,
    fast_offered = fast_offered,
    chunk_size = number16(payload, 1),
    file_length = number32(payload, 3),
    store = store,
    store_name = store and UPDATE_STORES[store],
    address = number32(payload, 8),
  }, UPDATE_BEGIN
end

local UPDATE_READY = { "flags", "fast" }

--- The flags of a device that is ready; early Cores send none and know only the slow form (5.5).
local function update_ready(coap)
  local flags = number8(coap.payload, 0)
  return { flags = flags, fast = flags ~= nil and has_bit(flags, FAST_UPDATE) }, UPDATE_READY
end

local UPDATE_ABORT = { "reason" }

local function update_abort(coap)
  return { reason = number8(coap.payload, 0) }, UPDATE_ABORT
end

--- CRC-32 (zlib's), four bytes a turn: the tables hold what a byte makes of the sum 0 to 3 bytes later.
local crc32 = spark.bits.compile(
  [[ return function(bits)
    local byte = string.byte
    local T0, T1, T2, T3 = {}, {}, {}, {}
    for index = 0, 255 do
      local sum = index
      for _ = 1, 8 do
        local odd = bits.band(sum, 1) == 1
        sum = bits.rshift(sum, 1)
        if odd then sum = bits.bxor(sum, 0xEDB88320) end
      end
      T0[index] = sum
    end
    for index = 0, 255 do
      local one = bits.bxor(T0[bits.band(T0[index], 255)], bits.rshift(T0[index], 8))
      local two = bits.bxor(T0[bits.band(one, 255)], bits.rshift(one, 8))
      T1[index], T2[index] = one, two
      T3[index] = bits.bxor(T0[bits.band(two, 255)], bits.rshift(two, 8))
    end
    return function(data)
      local sum, size = 0xFFFFFFFF, #data
      local last = size - size % 4
      for at = 1, last, 4 do
        local first, second, third, fourth = byte(data, at, at + 3)
        local word = XOR(sum, first + second * 0x100 + third * 0x10000 + fourth * 0x1000000)
        SPLIT(word, a, b, c, d)
        sum = XOR(T3[d], T2[c], T1[b], T0[a])
      end
      for at = last + 1, size do
        SPLIT(sum, a, b, c, d)
        sum = XOR(T0[XOR(d, byte(data, at))], a * 0x10000 + b * 0x100 + c)
      end
      return XOR(sum, 0xFFFFFFFF) % 0x100000000
    end
  end ]],
  "crc32"
)(spark.bits)

local CHUNK = { "crc", "crc_ok", "index", "size" }

--- A chunk (5.5): the CRC it announces, whether its data has it, and in the fast form its index.
local function chunk(coap)
  local queries, payload = coap.options.queries, coap.payload
  local crc, crc_ok = queries[1] and whole_number(queries[1]), nil
  if crc then
    crc_ok = crc32(payload) == crc
  end
  return {
    crc = crc,
    crc_ok = crc_ok,
    index = queries[2] and whole_number(queries[2]),
    size = #payload,
  }, CHUNK
end

local CHUNK_MISSED = { "indexes", "count" }

--- The indexes that a device asks for again; half an index at the end is left out.
local function chunk_missed(coap)
  local payload, indexes = coap.payload, {}
  local count = floor(#payload / 2)
  for index = 1, count < MOST_CHUNK_INDEXES and count or MOST_CHUNK_INDEXES do
    indexes[index] = number16(payload, index * 2 - 2)
  end
  return { indexes = indexes, count = count }, CHUNK_MISSED
end

local UPDATE_DONE = { "modules" }

--- The end of an update, with the new modules where the device sends them (5.5).
local function update_done(coap)
  return { modules = coap.payload ~= "" and read_description(coap.payload).modules or nil }, UPDATE_DONE
end

--- The unsigned LEB128 number at byte `at`, and the byte behind it; nil when it is cut or longer than 64 bits need.
local function varint(payload, at)
  -- Four bytes of it are seven hexadecimal digits: no part becomes too large to be exact.
  local parts, place, weight = { 0, 0, 0 }, 1, 1
  for position = 0, LONGEST_VARINT - 1 do
    local one = byte(payload, at + position)
    if not one then
      break
    end
    if position > 0 and position % 4 == 0 then
      place, weight = place + 1, 1
    end
    parts[place] = parts[place] + one % 0x80 * weight
    weight = weight * 0x80
    if one < 0x80 then
      local low = parts[1] + parts[2] * 0x10000000
      if parts[3] == 0 and low < 0x100000000 then
        return low, at + position + 1
      end
      local digits = gsub(format("%x%07x%07x", parts[3], parts[2], parts[1]), "^0+", "")
      return "0x" .. digits, at + position + 1
    end
  end
  return nil, #payload + 1
end

local GOODBYE = { "flags" }
for _, bit in ipairs(GOODBYE_BITS) do
  GOODBYE[#GOODBYE + 1] = GOODBYE_FIELDS[bit]
end

--- A Goodbye's reasons (5.4.15); those that its flags do not announce are nil.
local function goodbye(coap)
  local payload = coap.payload
  local told = {}
  local flags, at = varint(payload, 1)
  told.flags = flags
  -- Flags of more than 32 bits are text, but the bits that mean something are all in the first byte.
  local meant = flags and byte(payload) or 0
  for _, bit in ipairs(GOODBYE_BITS) do
    if has_bit(meant, bit) then
      told[GOODBYE_FIELDS[bit]], at = varint(payload, at)
    end
  end
  return told, GOODBYE
end

--- The little-endian IEEE 754 double in 8 bytes; "inf", "-inf" or "nan" where there is no number.
local function double(payload)
  local a, b, c, d, e, f, g, h = byte(payload, 1, 8)
  local sign = h < 0x80 and 1 or -1
  local exponent = h % 0x80 * 0x10 + floor(g / 0x10)
  local fraction = ((((((g % 0x10 * 0x100 + f) * 0x100 + e) * 0x100 + d) * 0x100 + c) * 0x100 + b) * 0x100 + a)
  if exponent == 0x7FF then
    return fraction ~= 0 and "nan" or sign > 0 and "inf" or "-inf"
  elseif exponent == 0 then
    return sign * (fraction * 2.0 ^ -1074)
  end
  return sign * ((fraction + 2.0 ^ 52) * 2.0 ^ (exponent - 1075))
end

local function signed32(payload)
  local number = number32(payload, 0)
  return number < 0x80000000 and number or number - 0x100000000
end

--- A variable's value and its type (5.4.11). `declared` is the type that a Describe gave it, or nil: then its length
-- decides, which cannot tell four bytes of text from an int. The value is nil when the payload does not have the length
-- of a declared type.
local function variable_value(payload, declared)
  local size = #payload
  local kind = declared or VARIABLE_SIZES[size] or "string"
  if not declared and kind == "bool" and byte(payload) > 1 then
    kind = "string"
  end
  local value
  if kind == "bool" and size == 1 then
    value = byte(payload) ~= 0
  elseif kind == "int32" and size == 4 then
    value = signed32(payload)
  elseif kind == "double" and size == 8 then
    value = double(payload)
  elseif kind == "string" then
    value = to_text(payload)
  end
  return kind, value
end

local FUNCTION_RETURN = { "name", "return_value" }

--- What the function `name` returned: a signed 32-bit number (5.4.10).
local function function_return(coap, name)
  return { name = name, return_value = #coap.payload == 4 and signed32(coap.payload) or nil }, FUNCTION_RETURN
end

-- A VariableValue needs what a Describe said before; messages that are not listed say nothing beyond their name.
local READERS = {
  [DEVICE] = {
    Hello = device_hello,
    Goodbye = goodbye,
    Event = event,
    Subscribe = subscribe,
    DescribeResponse = description,
    DescribePost = describe_post,
    FunctionReturn = function_return,
    UpdateReady = update_ready,
    UpdateAbort = update_abort,
    ChunkMissed = chunk_missed,
    UpdateDone = update_done,
    UpdateDoneAck = update_done,
  },
  [SERVER] = {
    TimeResponse = time_response,
    Event = event,
    Describe = describe_request,
    FunctionCall = function_call,
    VariableRequest = name_alone,
    Signal = signal,
    UpdateBegin = update_begin,
    SaveBegin = update_begin,
    Chunk = chunk,
  },
}

-- Routes: the rows of the table, made ready for looking up the row of a message -----------------------------------

local TYPE_OF = {}
for index, name in ipairs(TYPE_NAMES) do
  TYPE_OF[name] = index - 1
end

--- Type and code in one number, for each pair that a row has.
local function looks_of(spec)
  local looks = {}
  for _, kind in ipairs(spec.types) do
    for _, code in ipairs(spec.codes) do
      looks[#looks + 1] = TYPE_OF[kind] * 0x100 + CODES[code]
    end
  end
  return looks
end

local ROUTES, BY_PATH, ANSWERS = {}, {}, {} -- sender to what is looked up there
for _, sender in ipairs({ DEVICE, SERVER }) do
  ROUTES[sender], BY_PATH[sender], ANSWERS[sender] = {}, {}, {}
end

--- A row as one sender uses it. `answers` is looks to the row of an answer; `ack` and `separate` are the rows for
-- answers that look like none of these; `by_id` and `by_token` tell by what an answer is recognised.
local function new_route(spec, sender)
  return {
    name = spec.name,
    spec = spec,
    looks = looks_of(spec),
    repeats = spec.repeats,
    read = READERS[sender] and READERS[sender][spec.name],
    answers = {},
    has_content = not (#spec.types == 1 and spec.types[1] == "ACK"),
    by_id = false,
    by_token = false,
  }
end

-- Stands in for a confirmable message that is in no row, so that its acknowledgement still finds it.
local UNNAMED = new_route({ types = {}, codes = {} }, nil)

local function has(list, value)
  for _, one in ipairs(list) do
    if one == value then
      return true
    end
  end
  return false
end

--- Let a route know the rows that answer it.
local function link(route, answers)
  for _, answer in ipairs(answers) do
    for _, key in ipairs(answer.looks) do
      route.answers[key] = route.answers[key] or answer
    end
    if has(answer.spec.types, "ACK") then
      route.ack = route.ack or answer
    end
    if answer.has_content then
      route.separate = route.separate or answer
    end
  end
  route.by_id = route.ack ~= nil
  route.by_token = route.separate ~= nil
end

local function fill_tables()
  for _, spec in ipairs(MESSAGES) do
    for _, sender in ipairs(spec.senders) do
      ROUTES[sender][spec.name] = new_route(spec, sender)
    end
  end
  for _, spec in ipairs(MESSAGES) do
    for _, sender in ipairs(spec.senders) do
      local route, other, answers = ROUTES[sender][spec.name], OTHER_SIDE[sender], {}
      for index, name in ipairs(spec.answered_by) do
        answers[index] = ROUTES[other][name]
      end
      link(route, answers)
      for _, code in ipairs(spec.codes) do
        for at = 1, #spec.path do
          BY_PATH[sender][CODES[code] * 0x100 + byte(spec.path, at)] = route
        end
      end
      for _, answer in ipairs(answers) do
        for _, key in ipairs(answer.looks) do
          local fitting = ANSWERS[other][key] or {}
          ANSWERS[other][key] = fitting
          if not has(fitting, answer) then
            fitting[#fitting + 1] = answer
          end
        end
      end
    end
  end
end

fill_tables()

--- Whether an answer refuses: by its code, or by one that says so by mistake (9.3, 9.5).
local function is_error(coap)
  local code = coap.code
  return code >= FIRST_ERROR and code < BEHIND_ERRORS or MISCODED[code] ~= nil and coap.type == ACK
end

--- The row of a request, or of any message that is not an answer; nil when there is none.
local function request_route(sender, coap)
  local options = coap.options
  if options[1] then
    return options.letter and BY_PATH[sender][coap.code * 0x100 + options.letter]
  elseif coap.code == EMPTY and coap.type == CON then
    return ROUTES[sender].Ping
  end
  return nil
end

local function fits(route, size)
  local sizes = route.spec.payload_sizes
  return sizes[1] <= size and (not sizes[2] or size <= sizes[2])
end

local function is_description(payload)
  if sub(payload, 1, #METRICS_PREFIX) == METRICS_PREFIX then
    return true
  end
  local told = read_description(payload)
  return told.functions ~= nil and told.variables ~= nil
end

--- The row of an answer whose request is not in the capture, where its looks leave only one.
local function lone_answer_route(sender, coap)
  local payload = coap.payload
  local only, count = nil, 0
  local fitting = {}
  for _, route in ipairs(ANSWERS[sender][coap.type * 0x100 + coap.code] or fitting) do
    if fits(route, #payload) then
      only, count = route, count + 1
      fitting[route.name] = route
    end
  end
  if count > 1 and payload ~= "" then
    -- Two rows are 2.05 with any payload, a description and a variable; only the first is always JSON.
    local described = is_description(payload)
    if described or byte(payload) ~= 0x7B then
      only, count = fitting[described and "DescribeResponse" or "VariableValue"], 1
    end
  end
  return count == 1 and only or nil
end

--- The row of an answer: by the row `asked` that it answers, or by its looks alone.
local function answer_route(sender, coap, asked)
  local code, kind = coap.code, coap.type
  if kind == RST then
    return code == EMPTY and ROUTES[sender].Reset or nil
  elseif asked then
    local route = asked.answers[kind * 0x100 + code]
    if route then
      return route
    elseif kind == ACK then
      return asked.ack
    end
    return is_error(coap) and asked.separate or nil
  elseif code == EMPTY then
    -- A bare acknowledgement can be that of a dozen messages, and it is the most frequent message of all.
    return nil
  end
  return lone_answer_route(sender, coap)
end

--- The name of an answer of which only the kind can be told; nil for codes that the protocol does not have.
local function generic_name(coap)
  local code = coap.code
  if coap.type == RST then
    return nil
  elseif is_error(coap) then
    return coap.type == ACK and ERROR_ACK_OF_UNKNOWN or ERROR_RESPONSE_TO_UNKNOWN
  elseif coap.type == ACK and (code == EMPTY or code == CHANGED) then
    return ACK_OF_UNKNOWN
  end
  return code >= FIRST_RESPONSE and code < BEHIND_SUCCESS and RESPONSE_TO_UNKNOWN or nil
end

-- Peers: which firmware and which server wrote this (PROTOCOL 1.2, 4.2, 5.4, 7.1) ---------------------------------

--- A device's generation and the range of its firmware, in one pair, from its Hello; an empty pair where it is open.
local function generation_of(payload_size, hello, id_order)
  local platform = hello.platform_id
  if not platform then
    return WITHOUT_PLATFORM
  elseif payload_size >= HELLO_3X_SIZE then
    return WITH_3X_HELLO
  elseif platform == CORE then
    return LATER_CORE
  elseif platform == PHOTON or platform == P1 then
    for _, told in ipairs(PHOTON_BY_FLAG) do
      if has_bit(hello.flags, told[1]) then
        return told[2]
      end
    end
    -- The ids come from another code base than the flags suggest; only one of the two can be configured.
    return id_order == LOW_FIRST and DIAGNOSING_PHOTON or UNFLAGGED_PHOTON
  end
  return platform == ELECTRON and { G2B } or {}
end

--- In which order the device read the first two bytes of the salt as its id seed (4.2).
local function id_order_of(message_id, salt)
  local first, second = byte(salt, 1, 2)
  local high = (first * 0x100 + second + 1) % 0x10000
  local low = (second * 0x100 + first + 1) % 0x10000
  if high == low and high == message_id then
    return EITHER_ORDER
  elseif message_id == high then
    return HIGH_FIRST
  end
  return message_id == low and LOW_FIRST or NEITHER_ORDER
end

local function max_age_size(options)
  for index = 1, #options do
    if options[index][1] == MAX_AGE then
      return #options[index][2]
    end
  end
  return 0
end

--- Which of the two open servers writes like this (5.4.1, 5.4.2, 5.4.6, 5.4.7), or nil.
local function server_dialect_of(coap, name, paired)
  local token, code = coap.token, coap.code
  if name == "Hello" then
    return token == "" and COMMUNITY or token == "\1" and LEGACY or nil
  elseif name == "Event" then
    local size = max_age_size(coap.options)
    return size == 4 and COMMUNITY or size > 0 and LEGACY or nil
  elseif coap.type ~= ACK then
    return nil
  elseif token == "\0" and (code == EMPTY or code >= FIRST_ERROR) then
    return LEGACY
  end
  -- Both servers write the same bare acknowledgement to a ChunkMissed.
  local bare = (code == EMPTY or code == CODES["0.04"]) and token == ""
  return bare and paired and name ~= "ChunkMissedAck" and COMMUNITY or nil
end

-- Requests that wait for an answer --------------------------------------------------------------------------------

--- What one side has asked and not been answered, by one `key` of its messages ("message_id" or "token"). The queue
-- keeps the order of arrival; what has been answered or replaced stays in it until it is swept.
local Waiting = {}
Waiting.__index = Waiting

function Waiting.new(key)
  return setmetatable({ key = key, requests = {}, count = 0, queue = {}, first = 1, last = 0 }, Waiting)
end

function Waiting:remove(key)
  self.requests[key] = nil
  self.count = self.count - 1
end

function Waiting:waits(request)
  return self.requests[request.coap[self.key]] == request
end

function Waiting:drop_oldest()
  local queue, first = self.queue, self.first
  while not self:waits(queue[first]) do
    queue[first] = nil
    first = first + 1
  end
  self:remove(queue[first].coap[self.key])
  queue[first] = nil
  self.first = first + 1
end

function Waiting:sweep()
  local kept, count = {}, 0
  for place = self.first, self.last do
    local request = self.queue[place]
    if self:waits(request) then
      count = count + 1
      kept[count] = request
    end
  end
  self.queue, self.first, self.last = kept, 1, count
end

--- Add the newest request and return how many were dropped for it: the oldest one, or none.
function Waiting:put(request)
  local key, dropped = request.coap[self.key], 0
  if not self.requests[key] then
    self.count = self.count + 1
  end
  self.requests[key] = request
  self.last = self.last + 1
  self.queue[self.last] = request
  -- Dropping after putting, not before: a table that is full at every turn would be made anew at every turn.
  if self.count > MOST_OUTSTANDING then
    self:drop_oldest()
    dropped = 1
  end
  -- So that sweeping costs no more than putting did, and the queue no more than twice what waits.
  if self.last - self.first > 2 * self.count + 32 then
    self:sweep()
  end
  return dropped
end

-- Messages --------------------------------------------------------------------------------------------------------

--- One message, named and explained: { index (from 0), packet, time (seconds), direction (the sender), name, coap,
-- plaintext, values, value_order, answers (index of the request), answers_packet, answer_time (seconds between the
-- two), missing (bytes lost at the front), tail (what is left then; coap is nil) }, and read from these when asked:
-- `type` ("CON"), `code` ("2.05"), `message_id`, `token`, `path` (text), `query` (array of raw options), `payload`.
local SparkMessage = {}

local FROM_COAP = {
  type = function(coap) return TYPE_NAMES[coap.type + 1] end,
  code = function(coap) return CODE_TEXTS[coap.code + 1] end,
  message_id = function(coap) return coap.message_id end,
  token = function(coap) return coap.token end,
  path = function(coap) return coap.options.path end,
  query = function(coap) return coap.options.queries end,
  payload = function(coap) return coap.payload end,
}

function SparkMessage.__index(message, name)
  local read = FROM_COAP[name]
  local coap = read and message.coap
  return coap and read(coap) or nil
end

local NOTHING = {} -- values and names of the many messages that say nothing beyond their name

local FOLLOWED = {}

--- The names `order` with one more behind them; the same table each time.
local function with(order, name)
  local longer = FOLLOWED[order] or {}
  FOLLOWED[order] = longer
  if not longer[name] then
    local names = {}
    for index, one in ipairs(order) do
      names[index] = one
    end
    names[#names + 1] = name
    longer[name] = names
  end
  return longer[name]
end

local TAIL, ANOMALOUS = { "tail_text" }, { "anomalies" }

--- Reads one conversation's messages, in the order of the capture.
--
-- `salt` is the last 8 bytes of the session key, where it is known: it ties the Hello to the session. `generation`,
-- `firmware`, `server_dialect` and `id_order` are nil until a message has told them. `forgotten` counts requests that
-- were dropped because too many waited.
local MessageReader = {}
MessageReader.__index = MessageReader

function MessageReader.new(salt)
  return setmetatable({
    generation = nil,
    firmware = nil,
    server_dialect = nil,
    id_order = nil,
    forgotten = 0,
    salt = salt,
    count = 0,
    hello_seen = false,
    variable_types = nil,
    by_id = { [DEVICE] = Waiting.new("message_id"), [SERVER] = Waiting.new("message_id") },
    by_token = { [DEVICE] = Waiting.new("token"), [SERVER] = Waiting.new("token") },
  }, MessageReader)
end

function MessageReader:find_request(sender, coap)
  local other = OTHER_SIDE[sender]
  if coap.type < ACK then
    return self.by_token[other].requests[coap.token]
  end
  local request = self.by_id[other].requests[coap.message_id]
  if coap.token ~= "" and coap.code >= FIRST_RESPONSE and not (request and request.coap.token == coap.token) then
    -- The second of two Describe answers has an id from nowhere, perhaps even that of another request.
    return self.by_token[other].requests[coap.token] or request
  end
  return request
end

--- Stop waiting for what has come, and no earlier: a refused call may still return (5.4.10).
function MessageReader:settle(sender, coap, route, request)
  local other = OTHER_SIDE[sender]
  local by_id, by_token = self.by_id[other], self.by_token[other]
  if coap.type >= ACK and by_id:waits(request) then
    by_id:remove(request.coap.message_id)
  end
  if not request.route.by_token then
    request.answered = true
  elseif route and route.has_content then
    request.answered = true
    if not route.repeats and by_token:waits(request) then
      by_token:remove(request.coap.token)
    end
  elseif is_error(coap) then
    request.answered = true
  end
end

function MessageReader:remember(sender, message, coap, route)
  local values = message.values
  local subject = values.name
  if subject == nil then
    subject = values.index
  end
  local request = {
    index = message.index,
    packet = message.packet,
    time = message.time,
    coap = coap,
    route = route,
    subject = subject,
    answered = false,
  }
  self.forgotten = self.forgotten + self.by_id[sender]:put(request)
  if route.by_token then
    self.by_token[sender]:put(request)
  end
end

local CHUNK_RECEIVED = { "index", "accepted" }
local VARIABLE_VALUE = { "name", "type", "type_source", "value", "in_describe" }

function MessageReader:variable(coap, name)
  local known = self.variable_types
  local declared = known and name and known.fields[name]
  declared = type(declared) == "string" and declared or nil
  local kind, value = variable_value(coap.payload, declared)
  local in_describe
  -- Reading a name that the device does not offer gives whatever 5.4.11 says, so that is worth knowing.
  if known and name then
    in_describe = known.fields[name] ~= nil
  end
  if coap.type == NON and self.generation == G2B_OR_G2C then
    self.generation, self.firmware = LAST_SEPARATE_PHOTON[1], LAST_SEPARATE_PHOTON[2]
  end
  return {
    name = name,
    type = kind,
    type_source = declared and "describe" or "length",
    value = value,
    in_describe = in_describe,
  }, VARIABLE_VALUE
end

--- Tell whether this refusal is the legacy server's habit (9.7), and whether this device minds it.
function MessageReader:refused_event(request, values, order)
  local name = request.subject or ""
  local system = sub(lower(name), 1, #SYSTEM_EVENT_PREFIX) == SYSTEM_EVENT_PREFIX
  values.habit = self.server_dialect == LEGACY and not system
  order = with(order, "habit")
  if not values.habit then
    return order
  end
  values.harmless = IGNORES_REFUSALS[self.generation or ""]
  return with(order, "harmless")
end

function MessageReader:answer_values(coap, route, request)
  local failed = is_error(coap)
  local values, order = {}, NOTHING
  if route then
    local name, subject = route.name, request and request.subject
    if name == "ChunkReceived" then
      values.index, values.accepted = subject, not failed
      order = CHUNK_RECEIVED
    elseif name == "VariableValue" then
      if failed then
        values.name, order = subject, NAME
      else
        values, order = self:variable(coap, subject)
      end
    elseif route.read then
      values, order = route.read(coap, subject)
    end
    if route.repeats then
      if request then
        values["repeat"] = request.answered
      end
      order = with(order, "repeat")
    end
  end
  if failed then
    local text = CODE_TEXTS[coap.code + 1]
    values.error = MISCODED_ERRORS[text] or text
    order = with(order, "error")
    if route and route.name == "EventAck" and request then
      order = self:refused_event(request, values, order)
    end
  end
  return values, order
end

function MessageReader:learn_from_hello(coap, values)
  if self.salt then
    self.id_order = id_order_of(coap.message_id, self.salt)
  end
  local told = generation_of(#coap.payload, values, self.id_order)
  self.generation, self.firmware = told[1], told[2]
end

--- Read one message without its padding. `sender` is "device" or "server"; `missing` the number of bytes lost at the
-- message's front, `plaintext` then being the rest of it.
function MessageReader:read(sender, plaintext, packet, time, missing)
  local index = self.count
  self.count = index + 1
  local message = setmetatable({
    index = index,
    packet = packet,
    time = time,
    direction = sender,
    name = nil,
    coap = nil,
    plaintext = plaintext,
    values = NOTHING,
    value_order = NOTHING,
    answers = nil,
    answers_packet = nil,
    answer_time = nil,
    missing = missing or 0,
    tail = nil,
  }, SparkMessage)
  if message.missing > 0 then
    message.tail = decode_tail(plaintext, missing)
    message.values, message.value_order = { tail_text = message.tail.text }, TAIL
    return message
  end
  local coap = decode(plaintext)
  message.coap = coap
  if coap.anomalies[1] and not well_formed(coap) then
    message.values, message.value_order = { anomalies = coap.anomalies }, ANOMALOUS
    return message
  end

  local kind, code = coap.type, coap.code
  local request, route, name
  if kind < ACK and code < FIRST_RESPONSE then
    route = request_route(sender, coap)
    if route then
      name = route.name
      if route.read then
        message.values, message.value_order = route.read(coap)
      end
    end
  else
    request = self:find_request(sender, coap)
    route = answer_route(sender, coap, request and request.route)
    name = route and route.name or generic_name(coap)
    -- Half of all messages are bare acknowledgements, which say nothing more.
    if code ~= EMPTY then
      message.values, message.value_order = self:answer_values(coap, route, request)
    end
  end
  message.name = name
  if request then
    message.answers, message.answers_packet = request.index, request.packet
    message.answer_time = time - request.time
    self:settle(sender, coap, route, request)
  end
  if kind == CON or kind == NON and route and route.by_id then
    self:remember(sender, message, coap, route or UNNAMED)
  end
  if sender == SERVER then
    if not self.server_dialect then
      self.server_dialect = server_dialect_of(coap, name, request ~= nil)
    end
  elseif name == "Hello" and not self.hello_seen then
    self.hello_seen = true
    self:learn_from_hello(coap, message.values)
  elseif DESCRIPTIONS[name or ""] then
    local variables = message.values.variables
    if variables and #variables.order > 0 then
      self.variable_types = variables
    end
  end
  return message
end

spark.MessageReader = MessageReader
end

-- summary ---------------------------------------------------------------------------------------------------
do
-- One line about each message: `summary` as the Python analyzer writes it, and `info` for Wireshark's column.
--
-- Names and data were chosen by strangers: whatever is not plain is quoted, escaped and cut. The one difference to
-- Python's lines: which characters beyond ASCII are printable is decided by a few ranges, not by Unicode's tables (see
-- `is_printable`), so a rare letter is escaped here and shown there.

local constants = spark.constants
local character, escaped, visible, size = spark.character, spark.escaped, spark.visible, spark.wording.size
local NULL = spark.NULL
local LONGEST_QUOTE = constants.messages.summary.LONGEST_QUOTE
local PLAIN_CHARACTERS = constants.messages.summary.PLAIN_CHARACTERS
local INDEXES_SHOWN = constants.messages.summary.INDEXES_SHOWN
local NOT_KNOWN = constants.messages.summary.NOT_KNOWN
local TIME_FORMAT = constants.messages.summary.TIME_FORMAT
local REFUSALS = constants.messages.summary.REFUSALS
local COUNTED = constants.messages.summary.COUNTED
local DEFAULT_TTL = constants.message_table.DEFAULT_TTL
local GOODBYE_FIELDS = constants.message_table.GOODBYE_FIELDS

local find, format, gsub, lower, match, sub, upper =
  string.find, string.format, string.gsub, string.lower, string.match, string.sub, string.upper
local concat, date, floor, sort = table.concat, os.date, math.floor, table.sort

-- Python's "{}" is "%s" here.
local PHRASES = {}
for name, phrase in pairs(constants.messages.summary.PHRASES) do
  PHRASES[name] = gsub(gsub(phrase, "%%", "%%%%"), "{}", "%%s")
end

local LONGEST_INFO = 80 -- characters; what a column of ordinary width shows
local LONGEST_INFO_QUOTE = 30 -- characters of an event's data in it, so that what stands behind them is seen too

-- Pieces ---------------------------------------------------------------------------------------------------------

local UNPLAIN = "[^ !#-[%]^-~]" -- anything but printable ASCII without quote and backslash

--- `text` in double quotes, at most `limit` characters of it, with nothing in it that acts.
local function quote(text, limit)
  limit = limit or LONGEST_QUOTE
  if #text <= limit and not find(text, UNPLAIN) then
    return '"' .. text .. '"'
  end
  local shown, cut = escaped(text, '["\\]', limit)
  return '"' .. shown .. (cut and '"...' or '"')
end

local PLAIN = "^[" .. PLAIN_CHARACTERS .. "]+$"

local function is_plain(text, limit)
  return #text <= limit and find(text, PLAIN) ~= nil
end

--- A name as it is when it is plain, otherwise quoted; a question mark when it is not known.
local function name_text(name)
  if not name then
    return NOT_KNOWN
  end
  return is_plain(name, LONGEST_QUOTE) and name or quote(name)
end

--- A whole number; one that is too large for that is text already.
local function whole(number)
  if not number then
    return NOT_KNOWN
  end
  return type(number) == "number" and format("%d", number) or number
end

--- A double in the fewest digits that give it back, as Python writes it: "23.4375", "1e-07". (For some powers of two
-- Python finds a number of one digit less.)
local function real(number)
  -- Fifteen digits are told apart by any double but those near zero, which have fewer bits.
  local written
  for digits = math.abs(number) < 2.0 ^ -1022 and 1 or 15, 17 do
    written = format("%." .. digits - 1 .. "e", number)
    if tonumber(written) == number then
      break
    end
  end
  local sign, first, rest, exponent = match(written, "^(%-?)(%d)%D?(%d*)e([+-]%d+)$")
  exponent = tonumber(exponent)
  local mantissa = gsub(first .. rest, "0+$", "")
  if mantissa == "" then
    mantissa = "0"
  end
  if exponent < -4 or exponent >= 16 then
    local fraction = #mantissa > 1 and "." .. sub(mantissa, 2) or ""
    return format("%s%s%se%s%02d", sign, sub(mantissa, 1, 1), fraction, exponent < 0 and "-" or "+", math.abs(exponent))
  elseif exponent < 0 then
    return sign .. "0." .. ("0"):rep(-exponent - 1) .. mantissa
  end
  local digits = mantissa .. ("0"):rep(exponent + 1 - #mantissa)
  local fraction = sub(digits, exponent + 2)
  return sign .. sub(digits, 1, exponent + 1) .. "." .. (fraction == "" and "0" or fraction)
end

local function add(parts, text)
  parts[#parts + 1] = text
end

-- What each kind of message says ---------------------------------------------------------------------------------

local function product(values)
  local parts = {}
  if not values.product_id then
    return parts
  end
  add(parts, format(PHRASES.product, whole(values.product_id)))
  if values.firmware_version then
    add(parts, format(PHRASES.firmware, whole(values.firmware_version)))
  end
  return parts
end

local function platform(values)
  return values.platform or format(PHRASES.platform, whole(values.platform_id))
end

local function hello(values)
  local parts = product(values)
  if (values.platform_id or 0) ~= 0 then
    add(parts, platform(values))
  end
  return concat(parts, ", ")
end

local function event(values)
  local data = values.data and " = " .. quote(values.data) or ""
  return format(PHRASES.event, name_text(values.name) .. data, values.scope, whole(values.ttl))
end

local function subscribe(values)
  local whose = values.scope == "mine" and PHRASES.own_events or PHRASES.all_events
  if values.device_id then
    whose = name_text(values.device_id)
  end
  return format(PHRASES.subscribe, name_text(values.prefix), whose)
end

local function describe(values)
  if values.metrics then
    return PHRASES.metrics
  elseif values.problem then
    return format(PHRASES.not_readable, values.problem)
  end
  local parts = {}
  for _, counted in ipairs(COUNTED) do
    local items = values[counted[2]]
    if items then
      local count = #(items.order or items)
      add(parts, whole(count) .. " " .. counted[count == 1 and 1 or 2])
    end
  end
  return concat(parts, ", ") .. (values["repeat"] and PHRASES.repeated or "")
end

local function variable(values)
  local shown
  local value = values.value
  if value == nil then
    shown = format(PHRASES.no_value, name_text(values.type))
  elseif values.type == "string" then
    shown = quote(value)
  elseif values.type == "double" and type(value) == "number" then
    shown = real(value)
  elseif type(value) == "number" then
    shown = whole(value)
  else
    shown = tostring(value)
  end
  local guessed = values.type_source == "length" and format(PHRASES.guessed, values.type) or ""
  return name_text(values.name) .. " = " .. shown .. guessed
end

local function update(values)
  if not values.file_length then
    return PHRASES.no_particulars
  end
  local pace = values.fast_offered and PHRASES.fast_offered or ""
  return format(PHRASES.update, size(values.file_length), size(values.chunk_size), pace)
end

local function data_of_chunk(values)
  local crc = PHRASES.no_crc
  if values.crc then
    crc = values.crc_ok and PHRASES.crc_right or PHRASES.crc_wrong
  end
  return size(values.size) .. ", " .. crc
end

local function chunk_index(values)
  return values.index and format(PHRASES.chunk_index, whole(values.index)) or ""
end

local function indexes(values)
  local listed, count = {}, values.count
  for place = 1, count < INDEXES_SHOWN and count or INDEXES_SHOWN do
    listed[place] = whole(values.indexes[place])
  end
  local more = count > INDEXES_SHOWN and format(PHRASES.more, whole(count - INDEXES_SHOWN)) or ""
  return concat(listed, ", ") .. more
end

local GOODBYE_BITS = {}
for bit in pairs(GOODBYE_FIELDS) do
  add(GOODBYE_BITS, bit)
end
sort(GOODBYE_BITS)

local function goodbye(values)
  local parts = {}
  for _, bit in ipairs(GOODBYE_BITS) do
    local name = GOODBYE_FIELDS[bit]
    if values[name] then
      add(parts, gsub(name, "_", " ") .. " " .. whole(values[name]))
    end
  end
  return concat(parts, ", ")
end

local function abort(values)
  return format(PHRASES.reason, whole(values.reason))
end

-- Names whose messages say more than their name.
local WRITERS = {
  Hello = hello,
  TimeResponse = function(values) return values.time and date("!" .. TIME_FORMAT, values.time) or "" end,
  Event = event,
  Subscribe = subscribe,
  Describe = function(values) return concat(values.flag_names or {}, ", ") end,
  DescribeResponse = describe,
  DescribePost = describe,
  FunctionCall = function(values)
    return name_text(values.name) .. "(" .. quote(concat(values.arguments, "&")) .. ")"
  end,
  FunctionReturn = function(values) return name_text(values.name) .. " = " .. whole(values.return_value) end,
  VariableRequest = function(values) return name_text(values.name) end,
  VariableValue = variable,
  Signal = function(values)
    if values.on == nil then
      return ""
    end
    return values.on and PHRASES.on or PHRASES.off
  end,
  UpdateBegin = update,
  SaveBegin = update,
  UpdateReady = function(values) return values.fast and PHRASES.fast or PHRASES.slow end,
  UpdateAbort = abort,
  Chunk = function(values) return chunk_index(values) .. (values.index and ", " or "") .. data_of_chunk(values) end,
  ChunkReceived = chunk_index,
  ChunkMissed = function(values)
    if values.count == 0 then
      return PHRASES.no_index
    end
    return format(values.count == 1 and PHRASES.chunk or PHRASES.chunks, indexes(values))
  end,
  Goodbye = goodbye,
}

-- Lines ----------------------------------------------------------------------------------------------------------

--- The message's name, with the code behind it when that is a refusal. Without a name: what can be said of the CoAP
-- message, or that its front is lost.
local function label(message)
  if message.name then
    return message.values.error and message.name .. " " .. message.values.error or message.name
  elseif not message.coap then
    return PHRASES.front_lost
  end
  return message.type .. " " .. message.code
end

local function unnamed(message)
  if message.values.anomalies then
    return format(PHRASES.not_coap, concat(message.values.anomalies, ", "))
  end
  local parts = {}
  if message.path ~= "" then
    add(parts, name_text(message.path))
  end
  if message.payload ~= "" then
    add(parts, size(#message.payload))
  end
  return concat(parts, ", ")
end

local function refusal(message)
  local values = message.values
  if values.habit then
    return values.harmless and PHRASES.habit_harmless or PHRASES.habit
  end
  local text = message.name == "UpdateAbort" and abort(values) or REFUSALS[message.name] or PHRASES.refused
  return message.code == values.error and text or format(PHRASES.miscoded, text, message.code)
end

--- What the message says, in one line of printable text; empty when its name says it all.
local function summary(message)
  local values = message.values
  if not message.coap then
    local count = #message.plaintext
    local left = count > 0 and format(PHRASES.left, size(count)) or PHRASES.nothing_left
    local lost = format(PHRASES.lost, whole(message.missing), left)
    return values.tail_text and lost .. ": " .. quote(values.tail_text) or lost
  elseif not message.name then
    return unnamed(message)
  elseif values.error then
    return refusal(message)
  end
  local write = WRITERS[message.name]
  -- A message of a kind that says something may be one that does not: a bare acknowledgement has no values.
  return write and message.value_order[1] and write(values) or ""
end

-- Wireshark's column ---------------------------------------------------------------------------------------------

local WORDS = {}

--- "DescribeResponse" as "Describe response".
local function words(name)
  local text = WORDS[name]
  if not text then
    text = gsub(name, "(%l)(%u)", function(before, first)
      return before .. " " .. lower(first)
    end)
    text = gsub(text, "^Ota ", "OTA ")
    WORDS[name] = text
  end
  return text
end

-- Names behind which the content follows as the rest of a phrase, not as remarks.
local PHRASED = {
  TimeResponse = true,
  Subscribe = true,
  FunctionCall = true,
  FunctionReturn = true,
  VariableRequest = true,
  VariableValue = true,
  Signal = true,
}

-- Where the column says less than the summary, or in another order: what stands behind the words of the name.
local INFO_WRITERS = {
  Hello = function(values)
    local parts = product(values)
    if values.platform_id then
      table.insert(parts, 1, platform(values))
    end
    return parts[1] and ", " .. concat(parts, ", ") or ""
  end,
  Event = function(values)
    local data = values.data
    if data then
      data = " = " .. (is_plain(data, LONGEST_INFO_QUOTE) and data or quote(data, LONGEST_INFO_QUOTE))
    end
    local remarks = {}
    if values.scope == "private" then
      add(remarks, values.scope)
    end
    if values.ttl ~= DEFAULT_TTL then
      add(remarks, whole(values.ttl) .. " s")
    end
    local remark = remarks[1] and " (" .. concat(remarks, ", ") .. ")" or ""
    return " " .. name_text(values.name) .. (data or "") .. remark
  end,
  Chunk = function(values)
    return (values.index and " " .. whole(values.index) or "") .. ", " .. data_of_chunk(values)
  end,
  ChunkReceived = function(values)
    return values.index and " " .. whole(values.index) or ""
  end,
  ChunkMissed = function(values)
    return values.count > 0 and " " .. indexes(values) or ", " .. PHRASES.no_index
  end,
}

--- `text` in at most 80 characters.
local function shortened(text)
  if #text <= LONGEST_INFO then
    return text
  end
  local at, kept = 1, nil
  for place = 1, LONGEST_INFO do
    if place == LONGEST_INFO - 2 then
      kept = at
    end
    local _, behind = character(text, at)
    at = behind
    if at > #text then
      return text
    end
  end
  return sub(text, 1, kept - 1) .. "..."
end

--- What Wireshark's Info column says about a message: "Event temp = 21.5 (private)", at most 80 characters.
local function info(message)
  local content
  if not message.coap then
    content = summary(message)
    return shortened(upper(sub(content, 1, 1)) .. sub(content, 2))
  end
  local name, values = message.name, message.values
  local head = label(message)
  if name then
    head = words(name) .. sub(head, #name + 1)
  end
  local write = INFO_WRITERS[name or ""]
  if write and not values.error and message.value_order[1] then
    return shortened(head .. write(values))
  end
  content = summary(message)
  if content == "" then
    return head
  end
  return shortened(head .. (PHRASED[name or ""] and not values.error and " " or ", ") .. content)
end

--- Any value of a message as printable text: lists and objects as JSON writes them, but cut short nowhere.
local function value_text(value)
  if type(value) == "number" then
    return value == floor(value) and math.abs(value) < 2 ^ 53 and whole(value) or real(value)
  elseif type(value) ~= "table" then
    return visible(tostring(value))
  elseif value == NULL then
    return "null"
  elseif value.digits then
    return value.digits
  end
  local parts = {}
  for _, key in ipairs(value.order or {}) do
    add(parts, visible(key) .. ": " .. value_text(value.fields[key]))
  end
  if value.order then
    return "{" .. concat(parts, ", ") .. "}"
  end
  for place, item in ipairs(value) do
    parts[place] = value_text(item)
  end
  return concat(parts, ", ")
end

spark.label, spark.summary, spark.info, spark.value_text = label, summary, info, value_text
spark.quote = quote
end

-- streams ---------------------------------------------------------------------------------------------------
do
-- Segments to byte streams: what each end of a TCP conversation sent, in order, with its holes.
--
-- One Stream is one direction. It is fed every segment of that sender and every acknowledgement of the peer, and it
-- tells its reader two things, in stream order: bytes (`reader:receive(data, packet, time)`) and holes
-- (`reader:skip(hole)`). It delivers as early as it can, so that a message is shown in the packet that completes it.
-- What is missing it waits for, but never for long without a reason:
--
--   - Acknowledged bytes will not be sent again; only a disorder of the capture itself can still bring them.
--   - Bytes that are not acknowledged by a peer that goes on acknowledging others were lost on the way, and TCP sends
--     them again, for minutes if it must. What came behind them has not reached the peer's program either. So they are
--     waited for as long as there is room for what waits behind them, or until a reset ends the connection.
--   - When the peer has been silent since data came behind the hole, its packets are not in the capture: a peer answers
--     data behind a hole at once (RFC 5681 4.2). Then nobody will ever acknowledge the missing bytes here, and they
--     are given up as soon as they should have been sent again.
--
-- When the user wants no late segment put in its place, nothing is waited for.
--
-- It knows TCP and nothing of Spark.

local constants = spark.constants

local SEQUENCE_SPACE = constants.streams.SEQUENCE_SPACE
local HALF_SPACE = constants.streams.HALF_SPACE
local FIN_REACH = constants.streams.FIN_REACH
local PENDING_PIECES = constants.streams.PENDING_PIECES
local PENDING_BYTES = constants.streams.PENDING_BYTES
local REACH = constants.streams.REACH
local RESENT = constants.streams.RESENT_NS / 1e9
local STEPS = constants.streams.STEPS
-- Seconds for which an acknowledged hole stays open. A card with several queues, or a capture on all interfaces at
-- once, shows packets of one machine out of order by some milliseconds at most. Data that come later shall be shown in
-- their own packet, which a longer patience would not allow.
local PATIENCE = 0.010
-- Seconds that a hole stays open when nothing is heard of the peer: by then lost bytes have been sent again. It is the
-- timer that a connection begins with in stacks of the devices' age (RFC 1122 4.2.3.1); later it is shorter.
local REPAIR = 3
-- What the user switches the waiting off with, and why bytes are missing then.
local PREFERENCE = "Put late segments in their place"
local NOT_WAITED_FOR = "not waited for: '" .. PREFERENCE .. "' is off"

local floor, max, min = math.floor, math.max, math.min
local insert, remove = table.insert, table.remove
local sub = string.sub

--- Returns the stream offset of a raw sequence number, `base` being that of offset 0: of all that it can be (the
-- numbers begin again every 4 GiB) the one nearest to the offset `expected`.
local function offset_near(base, expected, sequence)
  local delta = (sequence - base - expected) % SEQUENCE_SPACE
  if delta >= HALF_SPACE then delta = delta - SEQUENCE_SPACE end
  return expected + delta
end

-- -- pieces that wait behind a hole ------------------------------------------------------------------------------
-- A piece is {offset, stop, data, packet, time}: the bytes from one stream offset up to another. Its data are nil
-- when the capture cut them off.

--- Returns the bytes of a piece from one stream offset to another, both clipped to what there is.
local function part_of(piece, start, stop)
  start = min(max(start, piece.offset), piece.stop)
  stop = max(start, min(stop, piece.stop))
  local data = piece.data and sub(piece.data, start - piece.offset + 1, stop - piece.offset)
  return { offset = start, stop = stop, data = data, packet = piece.packet, time = piece.time }
end

--- Returns the index of the first piece whose `field` is at least `offset` (or beyond it, when `behind`).
local function find_piece(pieces, field, offset, behind)
  local low, high = 1, #pieces + 1
  while low < high do
    local middle = floor((low + high) / 2)
    local value = pieces[middle][field]
    if value < offset or (behind and value == offset) then low = middle + 1 else high = middle end
  end
  return low
end

-- -- the stream --------------------------------------------------------------------------------------------------

local Stream = {}
Stream.__index = Stream

--- Makes the stream of one sender ("device" or "server"), which delivers to `reader`. With `in_order` false it waits
-- for no late segment.
--
-- Fields to read: `base` (sequence number of offset 0, nil while unknown), `base_certain` (a SYN, or the answer to
-- one, told it), `next` (offset of the next byte to deliver), `highest` (end of the furthest byte seen), `acked` (the
-- furthest byte the peer has acknowledged), `bytes` (stream bytes captured, those that wait included), `fin_offset`,
-- `last_packet` (the one that delivered last), `first_unacked_packet` and `first_unacked_time` (when the oldest data
-- came that the peer has not acknowledged) with `unacked_tries`, and the counts in `quality`.
function Stream.new(sender, reader, in_order)
  return setmetatable({
    sender = sender,
    reader = reader,
    in_order = in_order ~= false,
    base = nil,
    base_certain = false,
    next = 0,
    highest = 0,
    acked = 0,
    bytes = 0,
    fin_offset = nil,
    last_packet = nil,
    first_unacked_packet = nil,
    first_unacked_time = nil,
    unacked_tries = 0,
    quality = {
      packets = 0, copies = 0, data_segments = 0, retransmitted = 0, retransmitted_bytes = 0, out_of_order = 0,
      keepalives = 0, cut = 0,
    },
    settled = false, -- whether offset 0 can no longer move
    pending = {}, -- what waits behind a hole: apart from each other, in order
    pending_bytes = 0,
    acks = {}, -- {offset, packet, time} of acknowledgements beyond `next` that are not acted upon yet
    last_ack = nil,
    heard = nil, -- when the peer last acknowledged anything, known or not
    base_ack = nil, -- packet and time of the acknowledgement that told the base
  }, Stream)
end

local function skip(stream, length, packet, time, reason)
  stream.settled = true
  local hole = {
    sender = stream.sender,
    offset = stream.next,
    length = length,
    before = stream.last_packet,
    packet = packet,
    time = time,
    reason = reason,
  }
  stream.next = stream.next + length
  stream.reader:skip(hole)
end

--- Files a piece of more than no bytes at an index; returns how many they are.
local function file(stream, index, piece)
  if piece.offset >= piece.stop then return 0 end
  insert(stream.pending, index, piece)
  if piece.data then
    stream.pending_bytes = stream.pending_bytes + #piece.data
    stream.bytes = stream.bytes + #piece.data
  end
  return piece.stop - piece.offset
end

--- Files a piece by its offset and returns how many of its bytes are new. The first copy of a byte wins; but bytes
-- win over the same bytes cut off by the capture.
local function keep(stream, piece)
  local pending, new = stream.pending, 0
  if piece.offset < stream.next then piece = part_of(piece, stream.next, piece.stop) end
  local index = find_piece(pending, "stop", piece.offset)
  while piece.offset < piece.stop do
    local neighbour = pending[index]
    if neighbour == nil or piece.offset < neighbour.offset then
      local stop = neighbour and neighbour.offset or piece.stop
      new = new + file(stream, index, part_of(piece, piece.offset, stop))
      index = index + 1
      piece = part_of(piece, stop, piece.stop)
    else
      if neighbour.data == nil and piece.data and piece.offset < neighbour.stop then
        remove(pending, index)
        new = new + min(piece.stop, neighbour.stop) - piece.offset
        if file(stream, index, part_of(neighbour, neighbour.offset, piece.offset)) > 0 then index = index + 1 end
        if file(stream, index, part_of(piece, piece.offset, neighbour.stop)) > 0 then index = index + 1 end
        if file(stream, index, part_of(neighbour, piece.stop, neighbour.stop)) > 0 then index = index + 1 end
      else
        index = index + 1
      end
      piece = part_of(piece, neighbour.stop, piece.stop)
    end
  end
  return new
end

--- Files what the capture cut off a segment, as far as it lies before or behind all that waits there. It costs the
-- sender of a packet nothing to claim 64 KiB, so it must not cost us a walk through them.
local function keep_cut(stream, piece)
  local pending = stream.pending
  piece = part_of(piece, stream.next, piece.stop)
  local first = find_piece(pending, "stop", piece.offset, true)
  local last = find_piece(pending, "offset", piece.stop)
  if first < last then
    file(stream, last, part_of(piece, pending[last - 1].stop, piece.stop))
    piece = part_of(piece, piece.offset, pending[first].offset)
  end
  file(stream, first, piece)
end

local function deliver(stream, piece)
  local data = piece.data
  if data == nil then
    skip(stream, piece.stop - piece.offset, piece.packet, piece.time, "cut")
    stream.last_packet = piece.packet
    return
  end
  stream.next = piece.stop
  stream.last_packet = piece.packet
  stream.reader:receive(data, piece.packet, piece.time)
end

--- Delivers the pieces that join on to what was delivered.
local function run(stream)
  local pending, acks, done = stream.pending, stream.acks, 0
  local count = #pending
  while done < count and pending[done + 1].offset <= stream.next do
    done = done + 1
    local piece = pending[done]
    if piece.data then stream.pending_bytes = stream.pending_bytes - #piece.data end
    deliver(stream, piece)
  end
  if done > 0 then
    for index = 1, count do pending[index] = pending[index + done] end
  end
  while acks[1] and acks[1].offset <= stream.next do remove(acks, 1) end
end

--- Declares the bytes from `next` on missing, up to the next ones there are, one acknowledgement at a time. `reason`
-- is that of bytes that nobody has acknowledged.
local function give_up(stream, reason)
  local ack, beyond = stream.acks[1], stream.pending[1]
  if ack == nil then
    if stream.acked >= beyond.offset then reason = "not captured" end
    skip(stream, beyond.offset - stream.next, beyond.packet, beyond.time, reason)
  else
    local stop = beyond and min(ack.offset, beyond.offset) or ack.offset
    skip(stream, stop - stream.next, ack.packet, ack.time, "not captured")
  end
  run(stream)
end

--- Whether all that is missing is one last byte: a FIN that was not captured is acknowledged like one.
local function may_be_fin(stream)
  local acks = stream.acks
  return #acks == 1 and acks[1].offset == stream.next + 1 and stream.pending[1] == nil and stream.fin_offset == nil
end

--- Whether the peer's packets are not in the capture, and the missing bytes should have been sent again by now.
local function is_one_way(stream, time)
  local beyond, heard = stream.pending[1], stream.heard
  return beyond and stream.acks[1] == nil and time - beyond.time > REPAIR and not (heard and heard >= beyond.time)
end

--- Delivers what can be delivered, and gives up on what has been waited for long enough. Call it, when anything waits,
-- with each packet of the connection before its data are taken: a keep-alive probe repeats the last byte, which may be
-- one to give up on.
function Stream:poll(time)
  local pending, acks = self.pending, self.acks
  run(self)
  while acks[1] and time - acks[1].time > PATIENCE and not may_be_fin(self) do give_up(self, "lost") end
  while #pending > PENDING_PIECES or self.pending_bytes > PENDING_BYTES do give_up(self, "lost") end
  while is_one_way(self, time) do give_up(self, "lost") end
  while pending[1] and not self.in_order do give_up(self, NOT_WAITED_FOR) end
end

--- Delivers all that waits: the connection was reset, and nothing will be sent again.
function Stream:finish()
  run(self)
  while self.pending[1] or (self.acks[1] and not may_be_fin(self)) do give_up(self, "lost") end
end

-- -- where a sequence number lies --------------------------------------------------------------------------------

--- Moves offset 0 to another sequence number. Nothing has been delivered and nothing waits: the first data settle it.
local function rebase(stream, first)
  local shift, acks = -offset_near(stream.base, 0, first), stream.acks
  stream.base = first
  if stream.highest > 0 then stream.highest = max(0, stream.highest + shift) end -- else nothing was seen yet
  local told = stream.base_ack
  if told or stream.acked > 0 then stream.acked = max(0, stream.acked + shift) end
  if stream.fin_offset then stream.fin_offset = stream.fin_offset + shift end
  if told and acks[1] == nil then acks[1] = { offset = 0, packet = told.packet, time = told.time } end
  for _, ack in ipairs(acks) do ack.offset = ack.offset + shift end
end

--- Takes `first` as the sequence number of the first byte, unless a surer one is known. `certain` when a SYN, or the
-- answer to one, tells it. Nothing is delivered yet: what an earlier acknowledgement proves missing then is given up
-- with the next call, when the reader has been told of the SYN, too.
function Stream:start_at(first, certain)
  first = first % SEQUENCE_SPACE
  if self.base == nil then
    self.base = first
  elseif certain and not self.settled then
    rebase(self, first)
  end
  if certain and self.base == first then
    self.base_certain, self.settled = true, true
  end
end

--- Returns the stream offset of a raw sequence number: the one nearest to the bytes expected next.
function Stream:offset_of(sequence)
  if self.base == nil then return 0 end
  return offset_near(self.base, self.next, sequence)
end

-- -- what the sender sent ----------------------------------------------------------------------------------------

local function close_at(stream, stop)
  if stop < stream.highest then return end -- bytes beyond it were seen: it belongs to something else
  stream.fin_offset = stop
  if stream.acked == stop + 1 then -- its acknowledgement was captured first
    stream.acked = stop
    local acks = stream.acks
    while acks[1] and acks[#acks].offset > stop do remove(acks) end
  end
end

--- Takes a segment that is not simply the next one, or not whole.
local function take_slowly(stream, offset, segment, ahead)
  local quality, data, length = stream.quality, segment.payload, segment.length
  local number, time = segment.number, segment.time
  if offset < 0 and not stream.settled then
    rebase(stream, segment.seq)
    offset = 0
  end
  stream.settled = true
  local overtaken = stream.pending[1] and stream.pending[1].time or time
  local stop = offset + #data
  local new = keep(stream, { offset = offset, stop = stop, data = data, packet = number, time = time })
  if #data < length then
    quality.cut = quality.cut + 1
    keep_cut(stream, { offset = stop, stop = offset + length, packet = number, time = time })
  end
  if not ahead then
    if new == 0 or time - overtaken >= RESENT then
      quality.retransmitted = quality.retransmitted + 1
      quality.retransmitted_bytes = quality.retransmitted_bytes + length
    else
      quality.out_of_order = quality.out_of_order + 1
    end
  end
  stream.highest = max(stream.highest, offset + length)
  stream:poll(time)
end

--- Takes the payload of one segment of this sender (not a copy).
function Stream:take(segment)
  -- Some stacks put a remark into a RST (RFC 9293 3.5.3); it has no place in the stream.
  if segment.rst then return end
  local length, sequence, syn, fin = segment.length, segment.seq, segment.syn, segment.fin
  if self.base == nil then
    -- A bare acknowledgement tells nothing: a keep-alive is one, and its number is one short of the next byte's.
    if length == 0 and not syn and not fin then return end
    self.base = sequence
  end
  local expected = self.next
  local offset = expected
  if (sequence - self.base - expected) % SEQUENCE_SPACE ~= 0 then -- nearly always it is the next one
    offset = offset_near(self.base, expected, sequence)
  end
  if syn then offset = offset + 1 end -- data in a SYN start one behind its sequence number
  local stop = offset + length
  if fin then close_at(self, stop) end
  local quality = self.quality
  if offset == expected - 1 and not syn and not fin and (length == 0 or (length == 1 and self.settled)) then
    quality.keepalives = quality.keepalives + 1
    return
  end
  if length == 0 then return end
  quality.data_segments = quality.data_segments + 1
  if offset <= self.acked and self.acked < stop then
    self.unacked_tries = self.unacked_tries + 1
    if self.first_unacked_packet == nil then
      self.first_unacked_packet, self.first_unacked_time = segment.number, segment.time
    end
  end
  local payload = segment.payload
  if offset == expected and #payload == length and self.pending[1] == nil and self.acks[1] == nil then
    self.settled = true
    self.next, self.highest = stop, stop
    self.bytes = self.bytes + length
    self.last_packet = segment.number
    self.reader:receive(payload, segment.number, segment.time)
    return
  end
  take_slowly(self, offset, segment, offset >= self.highest)
end

-- -- what the peer acknowledged ----------------------------------------------------------------------------------

--- Takes note that the peer has everything before the raw number `ack`.
function Stream:acknowledge(ack, packet, time)
  self.heard = time
  if ack == self.last_ack then return end
  self.last_ack = ack
  if self.base == nil then
    self.base = ack
    self.base_ack = { packet = packet, time = time }
    return
  end
  local offset = offset_near(self.base, self.next, ack)
  -- The FIN has a number but is no byte.
  if self.fin_offset and offset == self.fin_offset + 1 then offset = self.fin_offset end
  if offset <= self.acked then return end
  if offset - max(self.next, self.highest, self.acked) > REACH then
    self.last_ack = nil -- said again when more is known, it may be right
    return
  end
  self.acked = offset
  self.first_unacked_packet, self.first_unacked_time, self.unacked_tries = nil, nil, 0
  if offset > self.next then
    local acks = self.acks
    acks[min(#acks + 1, STEPS)] = { offset = offset, packet = packet, time = time }
  end
end

-- -- what is known so far ----------------------------------------------------------------------------------------

--- Returns how far the sender came, by its data and by the acknowledgements; and whether the last of these is one
-- beyond, so that it may be of a FIN that was not captured.
local function furthest(stream)
  local pending, acks = stream.pending, stream.acks
  local count = #acks
  local last = pending[#pending]
  local stop = last and last.stop or stream.next
  if count == 0 then return stop, false end
  if count > 1 then stop = max(stop, acks[count - 1].offset) end
  local acked = acks[count].offset
  if acked == stop + 1 and stream.fin_offset == nil then return stop, true end
  return max(stop, acked), false
end

--- Returns how many bytes the peer has acknowledged; what may have been a FIN does not count.
function Stream:acknowledged()
  local stop, is_fin = furthest(self)
  return is_fin and stop or self.acked
end

--- Returns how many bytes this end is known to have sent: delivered, waiting behind a hole, acknowledged, or told by
-- its FIN.
function Stream:sent()
  local sent = furthest(self)
  local fin = self.fin_offset
  if fin and sent < fin and fin <= sent + FIN_REACH then sent = fin end
  return sent
end

spark.Stream = Stream
spark.ORDER_PREFERENCE = PREFERENCE
spark.offset_near = offset_near
end

-- copies ----------------------------------------------------------------------------------------------------
do
-- Packets that the capture holds twice: seen on two interfaces, behind a bridge or by a mirror port (DIAGNOSES 704).
--
-- A copy is not a retransmission: the sender sent it once. It is dropped before anything is counted.

local constants = spark.constants

local COPIES = constants.copies.COPIES
local COPY = constants.copies.COPY_NS / 1e9
local COPY_WITH_ID = constants.copies.COPY_WITH_ID_NS / 1e9

local abs = math.abs

local Headers = {}
Headers.__index = Headers

--- TCP headers of the last packets of one direction, to know a packet that the capture holds twice. `numbered` is
-- false when different packets have the same IP identification: then it says nothing.
--
-- Two generations: when the younger is full it becomes the older, so that nothing is ever moved (and taking one key
-- out of a full table for each put in is what Lua does worst). Each finds by sequence plus acknowledgement number the
-- last header with that sum, which knows the one `before` it, if any.
function Headers.new()
  return setmetatable({ numbered = true, last_id = nil, count = 0, places = {}, younger = {}, older = {} }, Headers)
end

--- Returns what flags say beyond "acknowledges something" as one number.
local function flags_of(segment)
  if not (segment.syn or segment.fin or segment.rst) then return 0 end
  return (segment.syn and 1 or 0) + (segment.fin and 2 or 0) + (segment.rst and 4 or 0) + (segment.acks and 8 or 0)
end

--- Returns the last header like this one, or nil.
local function find(generation, segment, flags)
  local ack, length, ip_id = segment.ack, segment.length, segment.ip_id
  local known = generation[segment.seq + ack]
  while known and (known.ack ~= ack or known.length ~= length or known.ip_id ~= ip_id or known.flags ~= flags) do
    known = known.before
  end
  return known
end

local function remember(headers, segment, flags)
  local count, places = headers.count, headers.places
  if count % COPIES == 0 then headers.older, headers.younger = headers.younger, {} end
  -- The tables of the generation before these two are used again.
  local place = count % (2 * COPIES) + 1
  headers.count = count + 1
  local header = places[place]
  if header == nil then
    header = {}
    places[place] = header
  end
  local key, younger = segment.seq + segment.ack, headers.younger
  header.before = younger[key]
  header.ack, header.length, header.ip_id = segment.ack, segment.length, segment.ip_id
  header.flags, header.time = flags, segment.time
  younger[key] = header
end

local function has_id(headers, segment)
  return headers.numbered and segment.ip_id ~= nil and segment.ip_id ~= 0
end

--- Whether this packet was seen before; if not, remembers it. The IP identification must be the same, or it must
-- come at once.
function Headers:repeats(segment)
  local flags = flags_of(segment)
  local known = find(self.younger, segment, flags) or find(self.older, segment, flags)
  if known then
    if abs(segment.time - known.time) <= (has_id(self, segment) and COPY_WITH_ID or COPY) then return true end
  elseif segment.ip_id == self.last_id then
    self.numbered = false
  end
  self.last_id = segment.ip_id
  remember(self, segment, flags)
  return false
end

--- Whether this may be a copy of a packet seen before; nothing is remembered.
function Headers:knows(segment)
  local flags = flags_of(segment)
  local known = find(self.younger, segment, flags) or find(self.older, segment, flags)
  return known ~= nil and has_id(self, segment)
end

spark.Headers = Headers
end

-- frames ----------------------------------------------------------------------------------------------------
do
-- Stream bytes to frames: two bytes of length, then that much ciphertext (PROTOCOL 4.3).
--
-- FrameReader needs no key. It survives holes: a hole inside one frame costs that frame, a larger one costs the
-- boundary, which is found again where lengths chain (PROTOCOL 4.5). What is skipped is counted, never hidden.
--
-- A frame is {sender, index, offset, length, ciphertext, head, first_packet, packet, time, follows_gap, size}: `index`
-- counts those of one direction from 0, `offset` is the stream offset of its length field, `length` its ciphertext in
-- bytes and `size` the same on the wire. `ciphertext` is nil when a hole took part of it; then `head` still holds
-- what was captured of its first block. `follows_gap` says that the frame before it, or a part of it, is missing.

local constants = spark.constants

local BLOCK = constants.catalogue.BLOCK
local LARGEST_FRAME = constants.catalogue.LARGEST_FRAME
local LENGTH_PREFIX = constants.catalogue.LENGTH_PREFIX
local CHAIN = constants.frames.CHAIN
local SEARCH_WINDOW = constants.frames.SEARCH_WINDOW
local STRIDE = constants.frames.STRIDE
local LOST_LISTED = constants.frames.LOST_LISTED

local byte, rep, sub = string.byte, string.rep, string.sub
local floor, max, min = math.floor, math.max, math.min

--- Whether a 16-bit length field can belong to a frame: whole AES blocks, at least one.
local function is_length(field)
  return field % BLOCK == 0 and field >= BLOCK and field <= LARGEST_FRAME
end

--- Returns the 16-bit field that stands at `index` (from 0) of `data`.
local function field_at(data, index)
  local high, low = byte(data, index + 1, index + 2)
  return high * 256 + low
end

--- Follows length fields from `start` (0 if nil): returns how many whole frames follow, and whether they end exactly
-- at the end of `data`. A field that cannot be a length makes the count 0.
local function chain(data, start)
  local count, position, stop = 0, start or 0, #data
  while position + LENGTH_PREFIX <= stop do
    local field = field_at(data, position)
    if not is_length(field) then return 0, false end
    position = position + LENGTH_PREFIX + field
    if position > stop then return count, false end
    count = count + 1
  end
  return count, position == stop and count > 0
end

-- -- a heap of candidates ----------------------------------------------------------------------------------------
-- A candidate is a place where a boundary may be, in stream offsets: {needs, start, stop, count, begins_packet}. The
-- stream must reach as far as `needs` before more can be said; `stop` is the end of the frame it waits for, or of the
-- last one if that one is whole; `count` are the whole frames so far. The one that needs least is on top.

local function is_above(one, other)
  return one.needs < other.needs or (one.needs == other.needs and one.start < other.start)
end

local function push(heap, candidate)
  local place = #heap + 1
  while place > 1 do
    local parent = floor(place / 2)
    if not is_above(candidate, heap[parent]) then break end
    heap[place] = heap[parent]
    place = parent
  end
  heap[place] = candidate
end

local function pop(heap)
  local count = #heap
  local top, moved = heap[1], heap[count]
  heap[count] = nil
  count = count - 1
  local place = 1
  while 2 * place <= count do
    local child = 2 * place
    if child < count and is_above(heap[child + 1], heap[child]) then child = child + 1 end
    if not is_above(heap[child], moved) then break end
    heap[place] = heap[child]
    place = child
  end
  if count > 0 then heap[place] = moved end
  return top
end

-- -- the reader --------------------------------------------------------------------------------------------------

local FrameReader = {}
FrameReader.__index = FrameReader

--- Cuts one direction's stream into frames from stream offset `offset` on, and calls `emit` with each. `searching` when
-- no boundary is known.
--
-- Fields to read: `offset` (of the first byte that no frame was made of yet), `count` (frames), `skipped` (bytes that
-- could not be assigned to a frame), `lost` (the first places where framing was lost, {sender, offset, packet, time,
-- field}: the length field there cannot be one).
function FrameReader.new(sender, emit, offset, searching)
  return setmetatable({
    sender = sender,
    offset = offset,
    count = 0,
    skipped = 0,
    lost = {},
    unread = 0, -- bytes that do not make a whole frame yet
    emit = emit,
    buffer = "", -- the pending bytes are its last ones
    base = offset, -- stream offset of the buffer's first byte
    marks = {}, -- {offset, packet, time} where each packet's bytes begin
    first_mark = 1,
    last_mark = 0,
    searching = searching,
    after_gap = searching,
    frame_hole = nil, -- offset of the first missing byte of the front frame, which stands there as a zero
    scanned = offset, -- offsets before this one are no boundary, or candidates
    candidates = {},
  }, FrameReader)
end

local function begin_search(reader)
  reader.searching, reader.after_gap = true, true
  reader.scanned = reader.offset
  reader.candidates = {}
end

--- Lets go of the bytes before a stream offset. The last mark at or before it stays, unless nothing does.
local function drop(reader, offset)
  reader.unread = reader.unread - (offset - reader.offset)
  reader.offset = offset
  local marks, first, last = reader.marks, reader.first_mark, reader.last_mark
  if reader.unread == 0 then
    if last > 0 then reader.marks, reader.first_mark, reader.last_mark = {}, 1, 0 end
    return
  end
  while first < last and marks[first + 1].offset <= offset do
    marks[first] = nil
    first = first + 1
  end
  reader.first_mark = first
end

--- Makes the frame that begins the pending bytes, and lets go of them.
local function make(reader, length)
  local start, marks, hole = reader.offset, reader.marks, reader.frame_hole
  local stop = start + LENGTH_PREFIX + length
  local index = reader.first_mark
  local first = marks[index]
  local last = first
  while index < reader.last_mark and marks[index + 1].offset < stop do
    index = index + 1
    -- The packet that completed it is the latest one that holds any of its bytes.
    if marks[index].packet > last.packet then last = marks[index] end
  end
  local position = start - reader.base + LENGTH_PREFIX
  local body = sub(reader.buffer, position + 1, position + length)
  local known = hole and min(BLOCK, hole - start - LENGTH_PREFIX) or BLOCK
  local frame = {
    sender = reader.sender,
    index = reader.count,
    offset = start,
    length = length,
    ciphertext = not hole and body or nil,
    head = sub(body, 1, known),
    first_packet = first.packet,
    packet = last.packet,
    time = last.time,
    follows_gap = reader.after_gap,
    size = LENGTH_PREFIX + length,
  }
  reader.frame_hole = nil
  reader.count = reader.count + 1
  reader.after_gap = hole ~= nil
  drop(reader, stop)
  reader.emit(frame)
end

--- Cuts off all whole frames. Returns false when a length field cannot be one, and the search is on.
local function cut(reader)
  while reader.unread >= LENGTH_PREFIX do
    local length = field_at(reader.buffer, reader.offset - reader.base)
    if not is_length(length) then
      if #reader.lost < LOST_LISTED then
        local mark = reader.marks[reader.first_mark]
        reader.lost[#reader.lost + 1] = {
          sender = reader.sender,
          offset = reader.offset,
          packet = mark.packet,
          time = mark.time,
          field = length,
        }
      end
      begin_search(reader)
      return false
    end
    if LENGTH_PREFIX + length > reader.unread then break end
    make(reader, length)
  end
  return true
end

-- -- finding a boundary again ------------------------------------------------------------------------------------

--- Notes where a length field may stand among the next bytes not looked at before; false without any.
local function scan(reader)
  local buffer, base, marks = reader.buffer, reader.base, reader.marks
  local first = max(reader.scanned, reader.offset)
  local last = min(first + STRIDE, reader.offset + reader.unread - LENGTH_PREFIX + 1)
  local mark = reader.last_mark + 1
  while mark > reader.first_mark and marks[mark - 1].offset >= first do mark = mark - 1 end
  for start = first, last - 1 do
    while mark <= reader.last_mark and marks[mark].offset < start do mark = mark + 1 end
    local length = field_at(buffer, start - base)
    if is_length(length) then
      local stop = start + LENGTH_PREFIX + length
      local begins = mark <= reader.last_mark and marks[mark].offset == start
      push(reader.candidates, { needs = stop, start = start, stop = stop, count = 0, begins_packet = begins })
    end
  end
  reader.scanned = max(first, last)
  return last > first
end

--- Follows the lengths from each candidate as far as the data go; returns the first boundary that is sure.
local function follow(reader)
  local base, heap = reader.base, reader.candidates
  local reached, found = reader.offset + reader.unread, nil
  while heap[1] and heap[1].needs <= reached do
    local candidate = pop(heap)
    if candidate.start >= reader.offset then -- else it left the window
      if candidate.needs == candidate.stop then
        candidate.count = candidate.count + 1
        local enough = candidate.begins_packet and 1 or 2
        if candidate.count >= CHAIN or (candidate.stop == reached and candidate.count >= enough) then
          found = min(found or candidate.start, candidate.start)
        else
          candidate.needs = candidate.needs + LENGTH_PREFIX
          push(heap, candidate)
        end
      else
        local length = field_at(reader.buffer, candidate.stop - base)
        if is_length(length) then
          candidate.stop = candidate.needs + length
          candidate.needs = candidate.stop
          push(heap, candidate)
        end
      end
    end
  end
  return found
end

--- Returns the first boundary that will do when nothing comes that joins on.
local function best_guess(reader)
  local found
  for _, candidate in ipairs(reader.candidates) do
    local sure = candidate.count > 1
      or (candidate.count == 1 and candidate.begins_packet and candidate.needs == candidate.stop)
    if sure and candidate.start >= reader.offset then found = min(found or candidate.start, candidate.start) end
  end
  return found
end

--- Looks for a boundary, each byte once: goes on where the last packet ended. CHAIN frames must follow one another, or
-- two that end exactly with the data; or one, if it begins where a packet begins. When `final`, one frame that begins
-- a packet will do if another legal length follows it.
local function search(reader, final)
  local found
  while found == nil and scan(reader) do found = follow(reader) end
  if found == nil and final then found = best_guess(reader) end
  if found then
    reader.skipped = reader.skipped + found - reader.offset
    drop(reader, found)
    reader.searching = false
    reader.candidates = {}
    return true
  end
  local excess = reader.unread - SEARCH_WINDOW
  if excess > 0 then
    reader.skipped = reader.skipped + excess
    drop(reader, reader.offset + excess)
  end
  return false
end

--- Adds bytes to those pending and makes of them what can be made.
local function append(reader, data, packet, time)
  local reached = reader.offset + reader.unread
  reader.last_mark = reader.last_mark + 1
  reader.marks[reader.last_mark] = { offset = reached, packet = packet, time = time }
  if reader.unread > 0 then data = sub(reader.buffer, reader.offset - reader.base + 1) .. data end
  reader.buffer, reader.base, reader.unread = data, reader.offset, #data
  while (not reader.searching or search(reader, false)) and not cut(reader) do end
end

--- Takes the next bytes of the stream, all from one packet.
function FrameReader:receive(data, packet, time)
  if self.unread == 0 and not self.searching then
    -- Nearly every packet is one whole frame, or several.
    local position, stop = 0, #data
    while position + LENGTH_PREFIX < stop do
      local high, low = byte(data, position + 1, position + 2)
      local length = high * 256 + low
      local following = position + LENGTH_PREFIX + length
      if following > stop or length % BLOCK ~= 0 or length < BLOCK or length > LARGEST_FRAME then break end
      local body = sub(data, position + LENGTH_PREFIX + 1, following)
      local index = self.count
      local frame = {
        sender = self.sender,
        index = index,
        offset = self.offset,
        length = length,
        ciphertext = body,
        head = sub(body, 1, BLOCK),
        first_packet = packet,
        packet = packet,
        time = time,
        follows_gap = self.after_gap,
        size = LENGTH_PREFIX + length,
      }
      self.offset = self.offset + LENGTH_PREFIX + length
      self.count = index + 1
      self.after_gap = false
      self.emit(frame)
      position = following
    end
    if position == stop then return end
    if position > 0 then data = sub(data, position + 1) end
  end
  append(self, data, packet, time)
end

--- Takes note of missing bytes. They cost the frame they lie in, or the boundary if they reach further.
function FrameReader:skip(hole)
  -- Nothing comes that joins on: accept a boundary that the end of the data confirms.
  while self.searching and search(self, true) and not cut(self) do end
  self.after_gap = true
  if not self.searching and self.unread >= LENGTH_PREFIX then
    local length = field_at(self.buffer, self.offset - self.base)
    if hole.length <= LENGTH_PREFIX + length - self.unread then
      self.frame_hole = self.frame_hole or self.offset + self.unread
      append(self, rep("\0", hole.length), hole.packet, hole.time)
      return
    end
  end
  local gone = self.unread
  self.skipped = self.skipped + gone
  drop(self, self.offset + gone)
  self.offset = self.offset + hole.length
  self.frame_hole = nil
  begin_search(self)
end

--- Returns how many bytes were received that do not make a whole frame yet.
function FrameReader:pending()
  return self.unread
end

spark.chain = chain
spark.FrameReader = FrameReader
end

-- handshake -------------------------------------------------------------------------------------------------
do
-- Which bytes are which: nonce, identity, session offer, then frames (PROTOCOL 2.1).
--
-- Each direction is read by itself, because every size is fixed: the server sends 40 bytes, then 384, then frames; the
-- device 256, then frames. A hole counts like the bytes it stands for, so that a message the peer acknowledged but the
-- capture missed is known to have been sent. Knows sizes and turns only: no keys, no cryptography.
--
-- A part is one handshake message, whole or as far as it got: {kind, sender, size, received, missing, sent, complete,
-- data, first_packet, first_time, packet, time, cuts}. `received` counts captured bytes, `missing` those in holes,
-- `sent` both; it is `complete` when that reaches `size`. `data` is nil unless every byte was captured. `cuts` lists
-- {packet, bytes} of the pieces it came in. `packet` and `time` are those of the latest piece. A part whose
-- `first_packet` is 0 stands for a message sent before the capture began.

local constants = spark.constants
local FrameReader, chain = spark.FrameReader, spark.chain

local STEPS = constants.handshake.STEPS
local OPENING = constants.handshake.OPENING
local HELD = constants.handshake.HELD
local CUTS = constants.handshake.CUTS

local min = math.min
local sub = string.sub

local TurnReader = {}
TurnReader.__index = TurnReader

--- Reads one direction of a conversation: its handshake messages, then its frames; it is the reader of a Stream.
-- `emit` is called with each frame.
--
-- Fields to read: `parts` (in order; the last one may be unfinished), `frames` (the FrameReader, nil before any),
-- `early` (frames that came in the place of a handshake message), `opening` (first captured bytes), `started`
-- ("beginning" or "midway"; nil while that is open), `before` (bytes of handshake messages that were sent before the
-- capture began: stream offset 0 is that far into the conversation).
function TurnReader.new(sender, emit)
  return setmetatable({
    sender = sender,
    parts = {},
    frames = nil,
    early = 0,
    opening = "",
    started = "beginning",
    before = 0,
    position = 0, -- stream offset of the next byte, until the frames begin
    emit = emit,
    begins_likely = true,
    in_frames = false,
    unfinished = "",
    held = {}, -- {data, packet, time}
    held_size = 0,
  }, TurnReader)
end

--- Says that the stream's first byte is the conversation's first after all.
function TurnReader:begin()
  if self.started == nil and self.held[1] == nil then self.started = "beginning" end
end

--- Says that the stream's first byte may not be the conversation's first; `likely` when it may well be. Then the first
-- bytes decide whether this is the start of a handshake message or a frame.
function TurnReader:begin_midway(likely)
  if self.position == 0 then
    self.started = nil
    self.begins_likely = likely
  end
end

--- Returns the handshake message of that kind, whole or not, or nil.
function TurnReader:part(kind)
  for _, part in ipairs(self.parts) do
    if part.kind == kind then return part end
  end
  return nil
end

local function add_part(turn, step, missing, packet, time)
  local kind, size = step[1], step[2]
  local part = {
    kind = kind,
    sender = turn.sender,
    size = size,
    received = 0,
    missing = missing,
    sent = missing,
    complete = missing == size,
    data = nil,
    first_packet = packet,
    first_time = time,
    packet = packet,
    time = time,
    cuts = {},
  }
  turn.parts[#turn.parts + 1] = part
  return part
end

--- Returns the handshake message that the next byte belongs to, nil when frames have begun. A device that never got a
-- nonce, or could not use it, may send frames in the place of its identity (PROTOCOL 9.2): a packet that is exactly a
-- run of frames (`data`, nil for a hole) is one.
local function current(turn, packet, time, data)
  local parts, steps = turn.parts, STEPS[turn.sender]
  local done = #parts
  if done > 0 and not parts[done].complete then return parts[done] end
  if done == #steps or (turn.frames and turn.frames:pending() > 0) then return nil end
  if data and done == 0 and turn.sender == "device" then
    local count, exact = chain(data)
    if exact then
      turn.early = turn.early + count
      return nil
    end
  end
  return add_part(turn, steps[done + 1], 0, packet, time)
end

--- Counts a piece of a handshake message, which came or is missing.
local function stamp(turn, part, packet, time, length)
  if packet >= part.packet then part.packet, part.time = packet, time end
  if packet < part.first_packet then part.first_packet, part.first_time = packet, time end
  if #part.cuts < CUTS then part.cuts[#part.cuts + 1] = { packet, length } end
  part.sent = part.received + part.missing
  part.complete = part.sent >= part.size
  turn.position = turn.position + length
end

local function frame_reader(turn, searching)
  if turn.frames == nil then
    turn.frames = FrameReader.new(turn.sender, turn.emit, turn.position, searching)
  elseif not turn.in_frames and turn.frames:pending() == 0 then
    turn.frames.offset = turn.position -- a handshake message may lie between early frames and the rest
  end
  turn.in_frames = #turn.parts == #STEPS[turn.sender]
  return turn.frames
end

local function take(turn, data, packet, time)
  while data ~= "" do
    local part = current(turn, packet, time, data)
    if part == nil then
      frame_reader(turn, false):receive(data, packet, time)
      turn.position = turn.position + #data
      return
    end
    local piece = sub(data, 1, part.size - part.sent)
    data = sub(data, #piece + 1)
    part.received = part.received + #piece
    turn.unfinished = turn.unfinished .. piece
    if part.received == part.size then part.data = turn.unfinished end
    stamp(turn, part, packet, time, #piece)
    if part.complete then turn.unfinished = "" end
  end
end

-- -- a stream whose first byte may not be the conversation's ------------------------------------------------------

--- Takes what was held, as what follows the first `unseen` handshake messages; those were sent before the capture
-- began. `searching` when that is frames, and no boundary is known.
local function settle(turn, unseen, searching)
  local steps = STEPS[turn.sender]
  for index = 1, unseen do
    local size = steps[index][2]
    add_part(turn, steps[index], size, 0, 0)
    turn.before = turn.before + size
  end
  turn.started = unseen == 0 and "beginning" or "midway"
  if unseen == #steps then frame_reader(turn, searching) end
  local held = turn.held
  turn.held, turn.held_size = {}, 0
  for _, piece in ipairs(held) do take(turn, piece.data, piece.packet, piece.time) end
end

--- Settles without proof.
local function settle_anyhow(turn)
  if turn.begins_likely then settle(turn, 0, false) else settle(turn, #STEPS[turn.sender], true) end
end

--- Returns how many handshake messages must be missing for this many bytes to end with one; nil if they do not.
local function parts_before(turn, length)
  local steps, total = STEPS[turn.sender], 0
  local found
  for unseen = #steps - 1, 0, -1 do
    local size = steps[unseen + 1][2]
    total = total + size
    if length == size or length == total then found = unseen end
  end
  return found
end

--- Whether several small packets, that together have the size looked for, are frames cut anyhow.
local function holds_frames(turn)
  local held = turn.held
  if #held == 1 then return false end
  local pieces, begins, position = {}, {}, 0
  for index, piece in ipairs(held) do
    pieces[index] = piece.data
    begins[position] = true
    position = position + #piece.data
  end
  local data = table.concat(pieces)
  for start = 0, position - 1 do
    local count, exact = chain(data, start)
    if count > 1 or (exact and begins[start]) then return true end
  end
  return false
end

--- Decides by the first packets: an exact run of frames, or exactly a handshake message's size. In a single packet the
-- sizes cannot be mistaken: no run of frames has 40 bytes, and one of 384 or 256 has eight frames.
local function guess_start(turn, data, packet, time)
  local held = turn.held
  held[#held + 1] = { data = data, packet = packet, time = time }
  turn.held_size = turn.held_size + #data
  local _, exact = chain(data)
  if exact then
    settle(turn, #STEPS[turn.sender], #held > 1)
    return
  end
  local unseen = parts_before(turn, turn.held_size)
  if unseen and not holds_frames(turn) then
    settle(turn, unseen, false)
  elseif turn.held_size > HELD then
    settle_anyhow(turn)
  end
end

-- -- what a stream tells its reader ------------------------------------------------------------------------------

--- Takes the next bytes, all from one packet.
function TurnReader:receive(data, packet, time)
  local opening = self.opening
  if #opening < OPENING then self.opening = opening .. sub(data, 1, OPENING - #opening) end
  if self.in_frames then
    self.frames:receive(data, packet, time)
  elseif self.started == nil then
    guess_start(self, data, packet, time)
  else
    take(self, data, packet, time)
  end
end

--- Takes note of missing bytes.
function TurnReader:skip(hole)
  local packet, time, length = hole.packet, hole.time, hole.length
  if self.started == nil then
    -- They were acknowledged but not captured: their number may still be a handshake message's size.
    local unseen = self.held[1] == nil and parts_before(self, length)
    if unseen then settle(self, unseen, false) else settle_anyhow(self) end
  end
  while length > 0 do
    local part = current(self, packet, time, nil)
    if part == nil then
      local rest = { offset = hole.offset + hole.length - length, length = length, packet = packet, time = time }
      frame_reader(self, false):skip(rest)
      self.position = self.position + length
      return
    end
    local room = min(length, part.size - part.sent)
    part.missing = part.missing + room
    self.unfinished = ""
    length = length - room
    stamp(self, part, packet, time, room)
  end
end

spark.TurnReader = TurnReader
end

-- sessionwatch ----------------------------------------------------------------------------------------------
do
-- What can be said of a running session from frame sizes and times alone: pings, and firmware updates.
--
-- It sees every frame of a conversation once and keeps counts and a few places, so its size does not depend on how
-- long the session was. What a frame says is not known here; what it probably is follows from the timers of the
-- firmware (PROTOCOL 6) and the sizes of the messages (DIAGNOSES 0.2).
--
-- A probable ping, the device's 18-byte frame after about 15 s without a word from the server, is {packet, time}. A
-- probable firmware update is a run of server frames of one chunk size, {size, begun_packet, first_packet, first_time,
-- last_packet, last_time, chunks, answered, asked, first_asked, last_asked, last_asked_time, server_since,
-- device_since, small_since, acknowledged}: `chunks` counts frames of that size, `answered` the device's 18-byte frames
-- between them, `asked` those at the 3 s rhythm of a chunk that is missed, since the last chunk; `server_since` and
-- `device_since` all other frames since then; `acknowledged` the server's 18-byte frames between chunks: it
-- acknowledged reports of missing ones. `begun_packet` is a server frame of UpdateBegin's size shortly before the
-- first chunk.

local constants = spark.constants

local SMALLEST_FRAME_ON_WIRE = constants.catalogue.SMALLEST_FRAME_ON_WIRE
local CHUNK_SILENCE = constants.catalogue.CHUNK_SILENCE
local CHUNK_LATE = CHUNK_SILENCE * constants.sessionwatch.TOLERANCE + constants.sessionwatch.POLLED
local PING_SILENCE = constants.catalogue.PING_AFTER * (1 - constants.sessionwatch.TOLERANCE)
local QUIET = constants.sessionwatch.QUIET_NS / 1e9
local STALL = constants.sessionwatch.STALL / 1e9
local BEGIN = constants.sessionwatch.BEGIN / 1e9
local UPDATE_BEGIN_FRAME = constants.sessionwatch.UPDATE_BEGIN_FRAME
local CHUNKS_OF_AN_UPDATE = constants.sessionwatch.CHUNKS_OF_AN_UPDATE

local IS_CHUNK_FRAME = {}
for _, size in ipairs(constants.catalogue.CHUNK_FRAMES) do IS_CHUNK_FRAME[size] = true end

local abs, max, min = math.abs, math.max, math.min

local SessionWatch = {}
SessionWatch.__index = SessionWatch

--- Watches one session. Fields to read: `pings`, `pings_answered`, `ping_rtt` (shortest and longest, in seconds),
-- `unanswered` (a ping), `update` (nil while the run of frames is too short to be one).
function SessionWatch.new()
  return setmetatable({
    pings = 0,
    pings_answered = 0,
    ping_rtt = {},
    unanswered = nil,
    update = nil,
    run = nil, -- what may become an update
    last_server = nil, -- times
    last_device = nil,
    announced_packet = nil, -- the server's last frame of UpdateBegin's size
    announced_time = nil,
  }, SessionWatch)
end

local function last_word(run)
  return max(run.last_time, run.last_asked_time or run.last_time)
end

--- Whether a frame of a chunk's size belongs to the same run as those before it.
local function goes_on(run, frame)
  if run.size ~= frame.size then return run.chunks >= CHUNKS_OF_AN_UPDATE end
  return frame.time - last_word(run) <= STALL
end

local function take_chunk(watch, frame)
  local run = watch.run
  if run == nil or not goes_on(run, frame) then
    local known = watch.announced_time and frame.time - watch.announced_time <= BEGIN
    watch.update = nil
    watch.run = {
      size = frame.size,
      begun_packet = known and watch.announced_packet or nil,
      first_packet = frame.packet,
      first_time = frame.time,
      last_packet = frame.packet,
      last_time = frame.time,
      chunks = 1,
      answered = 0,
      asked = 0,
      first_asked = nil,
      last_asked = nil,
      last_asked_time = nil,
      server_since = 0,
      device_since = 0,
      small_since = 0,
      acknowledged = 0,
    }
  elseif run.size == frame.size then
    run.chunks = run.chunks + 1
    run.acknowledged = run.acknowledged + run.small_since
    run.small_since = 0
    run.last_packet, run.last_time = frame.packet, frame.time
    run.asked, run.server_since, run.device_since = 0, 0, 0
    run.first_asked, run.last_asked = nil, nil
    if run.chunks >= CHUNKS_OF_AN_UPDATE then watch.update = run end
  end
end

local function take_server(watch, frame)
  local ping, size, time = watch.unanswered, frame.size, frame.time
  if ping and time >= ping.time then
    watch.pings_answered = watch.pings_answered + 1
    local rtt, known = time - ping.time, watch.ping_rtt
    known[1], known[2] = min(rtt, known[1] or rtt), max(rtt, known[2] or rtt)
    watch.unanswered = nil
  end
  local run = watch.run
  if IS_CHUNK_FRAME[size] then
    take_chunk(watch, frame)
  elseif run then
    run.server_since = run.server_since + 1
    if size == SMALLEST_FRAME_ON_WIRE then run.small_since = run.small_since + 1 end
  end
  if size == UPDATE_BEGIN_FRAME then watch.announced_packet, watch.announced_time = frame.packet, time end
  watch.last_server = time
end

local function take_device(watch, frame)
  local small, time = frame.size == SMALLEST_FRAME_ON_WIRE, frame.time
  local server = watch.last_server
  if small and server and watch.unanswered == nil then
    local heard = max(server, watch.last_device or server)
    if time - server >= PING_SILENCE and time - heard >= QUIET then
      watch.pings = watch.pings + 1
      watch.unanswered = { packet = frame.packet, time = time }
    end
  end
  watch.last_device = time
  local run = watch.run
  if run == nil then return end
  run.device_since = run.device_since + 1
  if not small then return end
  run.answered = run.answered + 1
  if abs(time - last_word(run) - CHUNK_SILENCE) <= CHUNK_LATE then
    run.asked = run.asked + 1
    run.first_asked = run.first_asked or frame.packet
    run.last_asked, run.last_asked_time = frame.packet, time
  end
end

--- Takes the next frame, in the order they are cut.
function SessionWatch:take(frame)
  if frame.sender == "server" then take_server(self, frame) else take_device(self, frame) end
end

spark.SessionWatch = SessionWatch
end

-- conversation ----------------------------------------------------------------------------------------------
do
-- One TCP connection of a device: what was seen of it, as facts. Judgement comes later.
--
-- A Conversation is fed segments while its packets arrive; `refresh` brings its summary up to date whenever somebody
-- wants to read it. When it has been closed for long it is retired: then it only holds what the rules and the views
-- ask for. Its size does not depend on how long the connection was.

local constants = spark.constants
local Stream, TurnReader, Headers, SessionWatch = spark.Stream, spark.TurnReader, spark.Headers, spark.SessionWatch
local offset_near = spark.offset_near

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local SESSION_SIZE = constants.catalogue.SESSION_SIZE
local SMALLEST_FRAME = constants.catalogue.SMALLEST_FRAME_ON_WIRE
local SEQUENCE_SPACE = constants.streams.SEQUENCE_SPACE
local YOUNG = constants.streams.PATIENCE_NS / 1e9
local SYNS = constants.conversation.SYNS
local CLOSINGS = constants.conversation.CLOSINGS
local OVERTAKEN = constants.conversation.OVERTAKEN
local EARLY_ACKS = constants.conversation.EARLY_ACKS
local HOLES = constants.conversation.HOLES
local FIRST_FRAMES = constants.seen.FIRST_FRAMES
local LAST_FRAMES = constants.conversation.LAST_FRAMES
local DEAD_FRAMES = constants.conversation.DEAD_FRAMES

local PEER = { device = "server", server = "device" }
local SENDERS = { "device", "server" }
-- The sizes on the wire that a hello can have, as a set.
local HELLO_SIZES = {}
for _, size in ipairs(constants.catalogue.HELLO_FRAMES) do HELLO_SIZES[size] = true end
local STEPS = constants.handshake.STEPS
local SERVER_REPLIED = NONCE_SIZE + SESSION_SIZE

local abs, max, min = math.abs, math.max, math.min
local byte, format = string.byte, string.format

-- -- the two ends ------------------------------------------------------------------------------------------------

--- The usual spelling of a packed IPv4 (4 bytes) or IPv6 (16 bytes) address.
local function address_text(address)
  if #address == 4 then return format("%d.%d.%d.%d", byte(address, 1, 4)) end
  local groups, best, longest, run = {}, nil, 1, 0
  for index = 1, 8 do
    local high, low = byte(address, 2 * index - 1, 2 * index)
    groups[index] = high * 256 + low
    run = groups[index] == 0 and run + 1 or 0
    if run > longest then best, longest = index - run + 1, run end
  end
  local out = {}
  for index = 1, 8 do
    if best == nil or index < best or index >= best + longest then
      out[#out + 1] = format("%x", groups[index])
    elseif index == best then
      -- The longest run of zeros is left out; the colons at its ends come from the joints.
      out[#out + 1] = (index == 1 and ":" or "") .. (index + longest == 9 and ":" or "")
    end
  end
  return table.concat(out, ":")
end

--- One end of a conversation; `id` needs a key.
local function endpoint(address, port)
  return { address = address, port = port, ip = address_text(address), id = nil }
end

--- What one end did. Counts and sizes in bytes; nil for what was not seen.
local function side(stream)
  return {
    quality = stream.quality,
    captured = 0,
    sent = 0,
    acked = 0,
    frames = 0,
    dead = 0, -- dead-key frames among them
    first_data = nil,
    first_size = 0,
    last_data = nil,
    last_any = nil,
    unacked_since = nil,
    unacked_tries = 0,
    lost = {},
    skipped = 0,
    rest = 0,
    opening = "",
    parts = {},
    early = 0,
    midway = false,
    before = 0,
  }
end

-- -- what a stream tells -----------------------------------------------------------------------------------------

-- Passes a stream's bytes to its turn reader, and tells the listener what they complete, in stream order.
local Recorder = {}
Recorder.__index = Recorder

local function new_recorder(conversation, sender)
  local self = setmetatable({
    conversation = conversation,
    turn = nil,
    steps = #STEPS[sender],
    told_parts = 0,
    told_lost = 0,
  }, Recorder)
  local turn
  turn = TurnReader.new(sender, function(frame)
    -- What stands before it in the stream is told before it.
    if self.told_parts < self.steps or turn.frames.lost[self.told_lost + 1] then self:tell() end
    conversation:_take_frame(frame)
  end)
  self.turn = turn
  return self
end

function Recorder:receive(data, packet, time)
  self.turn:receive(data, packet, time)
  self:tell()
end

function Recorder:skip(hole)
  self.conversation:_take_hole(hole)
  self.turn:skip(hole)
  self:tell()
end

--- Tells of handshake messages that are whole now, and of places where framing was lost.
function Recorder:tell()
  local turn, conversation = self.turn, self.conversation
  while self.told_parts < self.steps do
    local part = turn.parts[self.told_parts + 1]
    if part == nil or not part.complete then break end
    self.told_parts = self.told_parts + 1
    -- One that was sent before the capture began has no packet to be told in.
    if part.first_packet > 0 then conversation.listener:part(conversation, part) end
  end
  local frames = turn.frames
  while frames and frames.lost[self.told_lost + 1] do
    self.told_lost = self.told_lost + 1
    conversation.listener:lost(conversation, frames.lost[self.told_lost])
  end
end

-- -- the conversation --------------------------------------------------------------------------------------------

local Conversation = {}
Conversation.__index = Conversation

--- Makes the conversation that begins with `segment`. `listener` is told of what its bytes complete, with the methods
-- part, frame (which returns what a dead-key frame says, else nil), hole and lost, each given the conversation first.
-- When its `in_order` is false, no late segment is waited for.
--
-- Kept up to date all the time: first_packet, last_packet, start_time, end_time, syns and syn_count, syn_ack,
-- connected, nonce_acked, reply_acked, closings, closed_by, holes and hole_count, first_frames, dead_frames,
-- server_hello, watch, midway, message_count, last_server_message. As of the last `refresh`: sides, last_frames,
-- hello, kind, reached.
function Conversation.new(number, device, server, segment, listener)
  local self = setmetatable({
    number = number,
    device = endpoint(device.address, device.port),
    server = endpoint(server.address, server.port),
    listener = listener,
    first_packet = segment.number,
    last_packet = segment.number,
    start_time = segment.time,
    end_time = segment.time,
    midway = true, -- no SYN was seen: the capture began when this connection was under way
    syns = {},
    syn_count = 0,
    syn_ack = nil,
    connected = nil,
    closings = {},
    closed_by = "none",
    holes = {},
    hole_count = 0,
    reply_acked = nil, -- the device's acknowledgement of all 384 bytes
    nonce_acked = nil,
    first_frames = {},
    last_frames = {},
    dead_frames = {},
    hello = nil,
    server_hello = nil,
    watch = SessionWatch.new(),
    kind = "empty",
    reached = "syn",
    verdict = nil, -- whose the bytes are, once that is decided: "spark" or "coap"
    dialled_again = nil, -- when the device began its next connection to this server
    later = nil, -- the device's next conversation
    secrets = nil, -- what keys told, when there were any
    message_count = 0,
    last_server_message = nil,
    retired = false,
    lingering = false, -- closed, but open for late packets
    isn = {},
    frames_seen = 0,
    latest = {}, -- the last frames, as a ring
    last_hole = {},
    early_acks = {},
    edges = nil,
  }, Conversation)
  local from_device, from_server = new_recorder(self, "device"), new_recorder(self, "server")
  self.turns = { device = from_device.turn, server = from_server.turn }
  local in_order = listener.in_order
  self.streams = {
    device = Stream.new("device", from_device, in_order),
    server = Stream.new("server", from_server, in_order),
  }
  self.headers = { device = Headers.new(), server = Headers.new() }
  self.sides = { device = side(self.streams.device), server = side(self.streams.server) }
  return self
end

-- -- what the tracker asks ---------------------------------------------------------------------------------------

--- Which end sent this segment.
function Conversation:sender_of(segment)
  local device = self.device
  if segment.source_port == device.port and segment.source == device.address then return "device" end
  return "server"
end

--- Base, end of what was seen, and offset of the FIN of one end's stream: to know late packets by.
local function edge(conversation, sender)
  if conversation.retired then
    local kept = conversation.edges[sender]
    return kept.base, kept.stop, kept.fin_offset
  end
  local stream = conversation.streams[sender]
  return stream.base, max(stream.next, stream.highest), stream.fin_offset
end

--- How far sequence and acknowledgement numbers lie from what was seen so far, in bytes. Nil when they belong to
-- another connection: both beyond `window`, or more data after a FIN.
function Conversation:distance(segment, window)
  local sender = self:sender_of(segment)
  local base, stop, fin_offset = edge(self, sender)
  local peer_base, peer_stop = edge(self, PEER[sender])
  local apart, acked
  if base then
    local offset = offset_near(base, stop, segment.seq)
    if fin_offset and segment.length > 1 and offset >= fin_offset then return nil end
    apart = abs(offset - stop)
  end
  if segment.acks and peer_base then acked = abs(offset_near(peer_base, peer_stop, segment.ack) - peer_stop) end
  if apart == nil or (apart > window and not segment.rst) then
    -- An endpoint takes no reset whose sequence number does not fit, so the other number counts for nothing.
    if acked and acked > window then return nil end
    return acked
  end
  if apart > window then return nil end
  return apart
end

--- Whether the numbers of a segment fit what was seen so far, or nothing is known to compare them with.
function Conversation:continues(segment, window)
  local device, sender = self.device, "server"
  if segment.source_port == device.port and segment.source == device.address then sender = "device" end
  if not self.retired then
    local own = self.streams[sender]
    -- Nearly always:
    if own.base and not own.fin_offset and (segment.seq - own.base - own.next) % SEQUENCE_SPACE <= window then
      return true
    end
  end
  if self:distance(segment, window) then return true end
  return edge(self, sender) == nil and (not segment.acks or edge(self, PEER[sender]) == nil)
end

--- Whether the byte with this sequence number can be the first of the stream, as far as it is known.
local function may_begin(stream, first)
  if stream.base == nil then return true end
  local offset = stream:offset_of(first)
  if stream.base_certain then return offset == 0 end
  return offset <= 0 and offset >= -OVERTAKEN
end

--- Whether this SYN (or SYN-ACK) belongs here: a repeat, or the first one, captured behind a later packet.
function Conversation:accepts_syn(segment)
  if self.retired then return false end
  local sender = self:sender_of(segment)
  local own, peer, isn = self.streams[sender], self.streams[PEER[sender]], self.isn
  local answered = segment.acks and isn[PEER[sender]]
  if answered and (segment.ack - answered) % SEQUENCE_SPACE ~= 1 then return false end
  if isn[sender] then
    if isn[sender] ~= segment.seq then return false end
    -- The same number again, long after the handshake, on a connection that has ended: used again. A connection that
    -- was refused is tried again with the same number by some systems.
    return not (self:closed() and own.highest > 0 and not self.headers[sender]:knows(segment))
  end
  if answered then return own.base == nil or may_begin(own, segment.seq + 1) end
  if own.base_certain then return may_begin(own, segment.seq + 1) end
  local young = segment.time - self.start_time <= YOUNG
  local answers = not segment.acks or may_begin(peer, segment.ack)
  return young and answers and may_begin(own, segment.seq + 1)
end

--- Whether new data of the server of a nonce's size come when the nonce is past. No run of frames has 40 bytes, so
-- it is a piece of something longer, or another connection's nonce.
function Conversation:is_out_of_place(segment)
  if self.retired or self:sender_of(segment) == "device" then return false end
  local nonce = self.turns.server:part("nonce")
  if nonce == nil or not nonce.complete then return false end
  local stream = self.streams.server
  return stream:offset_of(segment.seq) >= stream.highest
end

--- Whether both ends have closed, or one has reset the connection. A refusal is no end of it any more once the same
-- request was made again and accepted.
function Conversation:closed()
  local first
  local accepted = self.syn_ack and self.syn_ack.packet or 0
  for _, closing in ipairs(self.closings) do
    if closing.packet > accepted then
      first = first or closing.sender
      if closing.how == "rst" or closing.sender ~= first then return true end
    end
  end
  return false
end

-- -- feeding -----------------------------------------------------------------------------------------------------

local function seen(segment)
  return { packet = segment.number, time = segment.time, ttl = segment.ttl }
end

--- Notes a packet in the place of the one noted before.
local function note(noted, segment)
  if noted == nil then return seen(segment) end
  noted.packet, noted.time, noted.ttl = segment.number, segment.time, segment.ttl
  return noted
end

--- The first number of a direction comes from something else than its SYN: how it begins is to be seen.
local function start_without_syn(conversation, sender)
  conversation.turns[sender]:begin_midway(not conversation.midway)
end

local function take_syn(conversation, segment, sender)
  local isn, streams, turns = conversation.isn, conversation.streams, conversation.turns
  isn[sender] = isn[sender] or segment.seq
  conversation.midway = false
  streams[sender]:start_at(segment.seq + 1, true)
  turns[sender]:begin()
  if segment.acks then
    streams[PEER[sender]]:start_at(segment.ack, true)
    turns[PEER[sender]]:begin()
    conversation.syn_ack = conversation.syn_ack or seen(segment)
    return
  end
  conversation.syn_count = conversation.syn_count + 1
  if conversation.syn_count <= SYNS then conversation.syns[conversation.syn_count] = seen(segment) end
end

--- Tells what the acknowledgements were of, now that it is known how the server's bytes begin.
local function weigh_acks(conversation)
  local stream, before = conversation.streams.server, conversation.turns.server.before
  local waiting = conversation.early_acks
  for index, early in ipairs(waiting) do
    local acked = before + min(stream:offset_of(early.ack), stream.acked)
    if acked >= NONCE_SIZE then conversation.nonce_acked = conversation.nonce_acked or early.seen end
    if acked >= SERVER_REPLIED then conversation.reply_acked = conversation.reply_acked or early.seen end
    waiting[index] = nil
  end
end

--- Notes when the device acknowledged what.
local function note_milestones(conversation, segment)
  if segment.syn then return end
  -- Only who has the SYN-ACK can acknowledge anything.
  if conversation.connected == nil and not conversation.midway then conversation.connected = seen(segment) end
  local waiting = conversation.early_acks
  if #waiting < EARLY_ACKS then waiting[#waiting + 1] = { ack = segment.ack, seen = seen(segment) } end
  if conversation.turns.server.started then weigh_acks(conversation) end
end

local function close(conversation, sender, how, segment)
  local closings = conversation.closings
  for _, known in ipairs(closings) do
    if known.sender == sender and known.how == how then return end
  end
  if #closings >= CLOSINGS then return end
  closings[#closings + 1] = {
    sender = sender,
    how = how,
    packet = segment.number,
    time = segment.time,
    ttl = segment.ttl,
  }
  conversation.closed_by = closings[1].sender .. "-" .. closings[1].how
end

--- Takes the next segment of this connection, in capture order.
function Conversation:take(segment)
  local device = self.device
  local is_device = segment.source_port == device.port and segment.source == device.address
  local sender, peer_name = "server", "device"
  if is_device then sender, peer_name = "device", "server" end
  local from, stream, peer = self.sides[sender], self.streams[sender], self.streams[peer_name]
  local number, time, length = segment.number, segment.time, segment.length
  if number > self.last_packet then self.last_packet = number end
  if time > self.end_time then self.end_time = time end
  local quality = stream.quality
  if self.headers[sender]:repeats(segment) then
    -- The capture already holds this very packet: seen on two interfaces, or by a mirror port.
    quality.copies = quality.copies + 1
    return
  end
  quality.packets = quality.packets + 1
  from.last_any = note(from.last_any, segment)
  if segment.syn then
    take_syn(self, segment, sender)
  elseif stream.base == nil then
    start_without_syn(self, sender)
  end
  if segment.acks and not segment.rst then
    if peer.base == nil then start_without_syn(self, peer_name) end
    peer:acknowledge(segment.ack, number, time)
    if is_device and self.reply_acked == nil then note_milestones(self, segment) end
  end
  if stream.acks[1] or stream.pending[1] then stream:poll(time) end
  if peer.acks[1] or peer.pending[1] then peer:poll(time) end
  if length > 0 and not segment.rst then
    if self.connected == nil then self.connected = seen(segment) end
    if from.first_data == nil then
      from.first_data, from.first_size = seen(segment), length
    end
    from.last_data = note(from.last_data, segment)
  end
  stream:take(segment)
  if segment.rst then
    stream:finish()
    peer:finish()
    close(self, sender, "rst", segment)
  elseif segment.fin then
    close(self, sender, "fin", segment)
  end
end

--- Lists a hole. What was acknowledged in steps is one hole if nothing was captured between them.
function Conversation:_take_hole(hole)
  local last = self.last_hole[hole.sender]
  self.listener:hole(self, hole)
  if last and last.reason == hole.reason and last.offset + last.length == hole.offset and hole.reason ~= "cut" then
    last.length = last.length + hole.length
    return
  end
  local listed = {}
  for name, value in pairs(hole) do listed[name] = value end
  self.last_hole[hole.sender] = listed
  self.hole_count = self.hole_count + 1
  if self.hole_count <= HOLES then self.holes[self.hole_count] = listed end
end

--- Writes what is remembered of a frame into `place`.
local function remember(place, frame, dead)
  place.sender, place.index, place.size = frame.sender, frame.index, frame.size
  place.packet, place.time, place.follows_gap, place.dead = frame.packet, frame.time, frame.follows_gap, dead
  return place
end

function Conversation:_take_frame(frame)
  local sender = frame.sender
  local from = self.sides[sender]
  from.frames = from.frames + 1
  local dead = self.listener:frame(self, frame)
  local place = self.frames_seen
  self.frames_seen = place + 1
  if place < FIRST_FRAMES then
    self.first_frames[place + 1] = remember({}, frame, dead)
    if sender == "server" and self.server_hello == nil then self.server_hello = self.first_frames[place + 1] end
  end
  place = place % LAST_FRAMES + 1
  self.latest[place] = remember(self.latest[place] or {}, frame, dead)
  if dead then
    from.dead = from.dead + 1
    if #self.dead_frames < DEAD_FRAMES then self.dead_frames[#self.dead_frames + 1] = remember({}, frame, dead) end
  else
    self.watch:take(frame)
  end
end

-- -- what the rules and the views ask ----------------------------------------------------------------------------

--- Returns the stream offset of the segment's first payload byte, nil when the books are closed.
function Conversation:offset_of(segment)
  if self.retired then return nil end
  local offset = self.streams[self:sender_of(segment)]:offset_of(segment.seq)
  return segment.syn and offset + 1 or offset
end

--- Says how much is there of what that sender has begun to send; nil when nothing is unfinished.
function Conversation:waiting(sender)
  local turn = self.turns and self.turns[sender]
  if turn == nil then return nil end
  local last, frames = turn.parts[#turn.parts], turn.frames
  if last and not last.complete then return format("%d of %d bytes of the %s", last.sent, last.size, last.kind) end
  local unread = frames and frames:pending() or 0
  return unread > 0 and format("%d bytes of a message that is not whole yet", unread) or nil
end

--- Returns a handshake message of which anything is known, or nil.
function Conversation:part(kind)
  local parts = self.retired and self.sides[kind == "identity" and "device" or "server"].parts
    or self.turns[kind == "identity" and "device" or "server"].parts
  for _, part in ipairs(parts) do
    if part.kind == kind then return part.first_packet > 0 and part or nil end
  end
  return nil
end

--- Complete frames of that sender, without dead-key frames.
function Conversation:live_frames(sender)
  return self.sides[sender].frames - self.sides[sender].dead
end

--- Brings the summary of one end up to date.
local function refresh_side(to, stream, turn, midway)
  to.captured, to.sent, to.acked = stream.bytes, stream:sent(), stream:acknowledged()
  to.unacked_since = stream.first_unacked_packet
    and { packet = stream.first_unacked_packet, time = stream.first_unacked_time }
  to.unacked_tries = stream.unacked_tries
  to.opening, to.parts, to.early, to.before = turn.opening, turn.parts, turn.early, turn.before
  -- What is still open would be settled like this if nothing more came.
  to.midway = turn.started == "midway" or (turn.started == nil and midway)
  local frames = turn.frames
  if frames then to.lost, to.skipped, to.rest = frames.lost, frames.skipped, frames:pending() end
end

--- The device's first frame after the session offer, when it can be a hello.
local function find_hello(conversation)
  for _, frame in ipairs(conversation.first_frames) do
    if frame.sender == "device" and not frame.dead then
      return frame.index == conversation.sides.device.early and HELLO_SIZES[frame.size] and frame or nil
    end
  end
  return nil
end

--- How far beyond the 384 bytes. What is missing counts as sent, but a hole cannot be told to be dead keys.
local function reached_after_session(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  local live = conversation:live_frames("device") > 0
  local answered = server.before + server.sent >= SERVER_REPLIED + SMALLEST_FRAME
  local unseen = device.sent > device.captured and device.before + device.sent >= IDENTITY_SIZE + SMALLEST_FRAME
  local garbled = device.skipped > 0 and device.lost[1] == nil
  if not live and not ((unseen or garbled) and conversation.dead_frames[1] == nil) then return "session" end
  if answered or conversation:live_frames("server") > 0 then return "established" end
  return (conversation.hello or not live) and "hello" or "session"
end

--- How far the connection got, by what the bytes prove (missing ones included when acknowledged).
local function how_far(conversation)
  local kind, midway = conversation.kind, conversation.midway
  if kind ~= "spark" and kind ~= "empty" then return "connected" end
  local device, server = conversation.sides.device, conversation.sides.server
  local nonce, identity = conversation:part("nonce"), conversation:part("identity")
  local session = conversation:part("session")
  if session and session.complete then return reached_after_session(conversation) end
  local live = conversation:live_frames("device") > 0 or conversation:live_frames("server") > 0
  if midway and live and (device.midway or server.midway) then return "established" end
  local greeted = nonce ~= nil and nonce.complete
  if identity and identity.complete and (midway or greeted) then return "identity" end
  if greeted then return "nonce" end
  return (conversation.connected or conversation.syn_ack or midway) and "connected" or "syn"
end

--- Brings `sides`, `last_frames`, `hello`, `kind` and `reached` up to date with the packets taken so far.
function Conversation:refresh()
  if self.retired then return end
  for _, sender in ipairs(SENDERS) do
    refresh_side(self.sides[sender], self.streams[sender], self.turns[sender], self.midway)
  end
  local latest, total = self.latest, self.frames_seen
  for place = 1, #latest do
    self.last_frames[place] = latest[total <= LAST_FRAMES and place or (total + place - 1) % LAST_FRAMES + 1]
  end
  self.hello = find_hello(self)
  self.kind = spark.kind_of(self)
  self.reached = how_far(self)
end

--- Closes the books: keeps the summary and lets the buffers go. Only late packets are still to come.
function Conversation:retire()
  if self.retired then return end
  self:refresh()
  self.edges = {}
  for _, sender in ipairs(SENDERS) do
    local base, stop, fin_offset = edge(self, sender)
    self.edges[sender] = { base = base, stop = stop, fin_offset = fin_offset }
    if self.kind == "spark" then self.sides[sender].opening = "" end -- random bytes that nobody quotes
  end
  self.retired = true
  self.streams, self.turns, self.headers, self.latest = nil, nil, nil, nil
end

spark.Conversation = Conversation
spark.PEER, spark.SENDERS, spark.HELLO_SIZES = PEER, SENDERS, HELLO_SIZES
end

-- kinds -----------------------------------------------------------------------------------------------------
do
-- What protocol a conversation speaks, told from its first bytes and from who spoke first; and, before that, whose the
-- bytes of a segment are: ours, or those of genuine CoAP over TCP (RFC 8323) on the same port.

local constants = spark.constants
local chain = spark.chain

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local SESSION_SIZE = constants.catalogue.SESSION_SIZE
local SMALLEST_FRAME = constants.catalogue.SMALLEST_FRAME_ON_WIRE
local PRINTABLE_SHARE = constants.kinds.PRINTABLE_SHARE
local FEWEST_LETTERS = constants.kinds.FEWEST_LETTERS
local LETTERS_WHEN_CUT = constants.kinds.LETTERS_WHEN_CUT
local PLENTY = constants.kinds.PLENTY
local TLS_RECORDS = constants.kinds.TLS_RECORDS
local CLIENT_HELLO = constants.kinds.CLIENT_HELLO
local LARGEST_RECORD = constants.kinds.LARGEST_RECORD
local COAP_MESSAGES = constants.kinds.COAP_MESSAGES
local CSM = constants.kinds.CSM
local EXTENDED = constants.kinds.EXTENDED
local LONGEST_TOKEN = constants.kinds.LONGEST_TOKEN
local OPENING = constants.handshake.OPENING
local MARKS = constants.kinds.MARKS
local REQUESTS = constants.kinds.REQUESTS
local CODE_CLASSES = {}
for _, class in ipairs(constants.kinds.CODE_CLASSES) do CODE_CLASSES[class] = true end

local LOST_LISTED = constants.frames.LOST_LISTED
-- Frames for each place where framing was lost, from which a run of frames is believed.
local BELIEVED = constants.frames.CHAIN + 1

local byte, gsub, sub = string.byte, string.gsub, string.sub
local floor, max = math.floor, math.max

-- -- single openings ---------------------------------------------------------------------------------------------

--- Whether the first 40 bytes (8 at least) are text, and so no nonce.
local function is_text(data)
  local head = sub(data, 1, NONCE_SIZE)
  if #head < FEWEST_LETTERS then return false end
  local _, printable = gsub(head, "[ -~\t\n\r]", "")
  return printable >= PRINTABLE_SHARE * #head
end

local function starts_with(data, mark)
  return sub(data, 1, #mark) == mark
end

--- Whether a TLS record of this type begins here: version 3.0 to 3.4 and a length that TLS allows.
local function is_tls_record(opening, mark)
  local minor, high, low = byte(opening, 3, 5)
  if low == nil or minor > 4 or not starts_with(opening, mark) then return false end
  local length = high * 256 + low
  return length > 0 and length <= LARGEST_RECORD
end

--- Names the service that greets with these bytes, nil when they may be a nonce. `first` is how many of them came in
-- the first packet, which is all there; nil when it is not, and then more text is asked for. A line of text is a
-- greeting whatever follows it.
local function service(opening, first)
  for _, mark in ipairs(MARKS) do
    if starts_with(opening, mark[1]) then return mark[2] end
  end
  for _, mark in ipairs(TLS_RECORDS) do
    if is_tls_record(opening, mark) then return "tls" end
  end
  if first == nil and #opening < LETTERS_WHEN_CUT then return nil end
  local line = sub(opening, 1, first or -1)
  return (is_text(opening) or sub(line, -1) == "\n" and is_text(line)) and "other" or nil
end

--- Names the protocol that a client begins with these bytes, nil when they may be a device's.
local function request_kind(opening)
  if is_tls_record(opening, TLS_RECORDS[1]) and sub(opening, 6, 6) == CLIENT_HELLO then return "tls" end
  for _, mark in ipairs(REQUESTS) do
    if starts_with(opening, mark) then return "http" end
  end
  return nil
end

-- -- genuine CoAP over TCP ---------------------------------------------------------------------------------------

--- Reads the head of an RFC 8323 message at `position` (from 0): returns the position behind the message, its code and
-- the length of its token. Nothing when the head is not all there; nil and false when no message begins like this.
local function coap_message(data, position)
  local first = byte(data, position + 1)
  local length, token = floor(first / 16), first % 16
  if token > LONGEST_TOKEN then return nil, false end
  local extended = EXTENDED[length]
  local extra = extended and extended[1] or 0
  local code = byte(data, position + extra + 2)
  if code == nil then return nil end
  if not CODE_CLASSES[floor(code / 32)] then return nil, false end
  if extended then
    length = 0
    for index = position + 2, position + 1 + extra do length = length * 256 + byte(data, index) end
    length = length + extended[2]
  end
  return position + 2 + extra + token + length, code, token
end

--- Counts whole RFC 8323 messages from the start. Returns the count (0 if one is impossible), the first message's code,
-- and whether they end exactly with the data. A message that runs beyond the data is left out.
local function coap_messages(data)
  local position, count, first = 0, 0, nil
  while position < #data do
    local stop, code = coap_message(data, position)
    if stop == nil then
      if code == false then return 0, nil, false end
      return count, first, false
    end
    first = first or code
    if stop > #data then return count, first, false end
    position, count = stop, count + 1
  end
  return count, first, count > 0
end

--- Whether genuine CoAP is spoken: whole messages in each direction given, a CSM first. Where one end alone was heard,
-- its messages must end exactly with what there is: random bytes often parse that far.
local function is_coap(openings)
  local messages, spoken = 0, 0
  for _, opening in ipairs(openings) do
    if opening ~= "" then spoken = spoken + 1 end
  end
  for _, opening in ipairs(openings) do
    if opening ~= "" then
      if chain(opening) > 0 then return false end
      local count, first, whole = coap_messages(opening)
      if count == 0 or first ~= CSM or not (whole or spoken > 1 or #opening >= OPENING) then return false end
      messages = messages + count
    end
  end
  return messages >= COAP_MESSAGES
end

-- -- the kind of a conversation ----------------------------------------------------------------------------------

--- The hole that the first bytes of a direction lie in, nil when they are in the capture.
local function first_hole(conversation, sender)
  for _, hole in ipairs(conversation.holes) do
    if hole.sender == sender and hole.offset == 0 then return hole end
  end
  return nil
end

--- Whether the device spoke before the server did (or the server never did).
local function client_first(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  if device.midway or server.midway or device.first_data == nil then return false end
  if server.sent == 0 then return true end
  local unseen = first_hole(conversation, "server")
  if unseen and unseen.reason == "not captured" then
    return device.first_data.packet < unseen.packet -- the device spoke before it acknowledged anything
  end
  return server.first_data == nil or device.first_data.time < server.first_data.time
end

--- Tells from sizes alone: the capture has no byte of what was sent (or it was sent in its absence).
local function kind_by_sizes(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  if server.sent < NONCE_SIZE and device.sent < IDENTITY_SIZE then return "empty" end
  local asks = client_first(conversation) and device.first_size ~= SMALLEST_FRAME
  return (asks or server.first_size > NONCE_SIZE) and "other" or "spark"
end

--- Whether a conversation begun before the capture shows plenty of bytes and nothing of this protocol in them.
local function nothing_of_ours(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  if not (device.midway and server.midway) then return false end
  for _, hole in ipairs(conversation.holes) do
    if hole.reason == "cut" then return false end
  end
  if device.frames > 0 or server.frames > 0 then return false end
  for _, parts in ipairs({ device.parts, server.parts }) do
    for _, part in ipairs(parts) do
      if part.received > 0 then return false end
    end
  end
  return max(device.captured, server.captured) > PLENTY
end

--- Whether both ends begin with more than a login has there, the client before the server: then frames behind that are
-- chance. A login may be seen in the wrong order, in pieces; but neither end has more to send unanswered.
local function is_out_of_turn(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  if device.first_size <= IDENTITY_SIZE or server.first_size <= NONCE_SIZE then return false end
  if first_hole(conversation, "device") or first_hole(conversation, "server") then return false end
  return client_first(conversation)
end

--- Returns `spark`, `coap-tcp`, `tls`, `http`, `ssh`, `other` or `empty`, by the conversation's `sides`.
local function kind_of(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  if device.captured == 0 and server.captured == 0 then return kind_by_sizes(conversation) end
  local opening = server.opening
  local server_hole = first_hole(conversation, "server")
  if server.captured > 0 and not server.midway then
    local whole = not server_hole and server.first_size <= #opening
    local named = service(opening, whole and server.first_size or nil)
    if named then return named end
  end
  local asked = device.first_size ~= IDENTITY_SIZE and request_kind(device.opening)
  if asked then return asked end
  local openings = {}
  if not first_hole(conversation, "device") then openings[1] = device.opening end
  if not server_hole then openings[#openings + 1] = opening end
  local greeting_alone = device.captured == 0 and server.captured <= NONCE_SIZE
  if not greeting_alone and is_coap(openings) then return "coap-tcp" end
  if conversation.dead_frames[1] then return "spark" end
  if is_out_of_turn(conversation) then return "other" end
  if device.frames >= 2 or server.frames >= 2 then return "spark" end
  if client_first(conversation) then return (device.frames > 0 or server.frames > 0) and "spark" or "other" end
  return nothing_of_ours(conversation) and "other" or "spark"
end

-- -- whose the bytes are ----------------------------------------------------------------------------------------

--- Whether one end begins like CoAP over TCP: with a CSM, a short message without a token. "yes" when whole messages
-- end exactly with the data, "no" when it cannot be, "maybe" when it goes on behind the data.
local function coap_opening(data)
  if data == "" then return "maybe" end
  local first, code = byte(data, 1, 2)
  if first % 16 ~= 0 or EXTENDED[floor(first / 16)] then return "no" end
  if code == nil then return "maybe" end
  if code ~= CSM then return "no" end
  local count, _, exact = coap_messages(data)
  if exact then return "yes" end
  -- Without any whole message it is still a CSM; what cannot be a message behind it says no.
  return (count > 0 or #data < first / 16 + 2) and "maybe" or "no"
end

--- The verdict on an end that spoke first, or answered, by all it has said.
local OPENING_VERDICTS = { yes = "coap", maybe = "later", no = "spark" }

--- Whether frames follow one another in that direction for longer than chance has them do: a boundary found by mistake
-- gives two or three, and is lost again at the next length.
local function has_run_of_frames(turn)
  local frames = turn.frames
  if frames == nil or #frames.lost >= LOST_LISTED then return false end
  return frames.count >= BELIEVED * (#frames.lost + 1)
end

--- The verdict on a connection whose SYN was not captured. Little can be told from one segment: CoAP's are pieces of
-- messages, too. So only what cannot be CoAP is ours: frames that fill a segment, or the sizes of two handshake
-- messages in a row.
local function whose_midway(payload, from_server, conversation)
  local count, exact = chain(payload)
  if exact then return "spark" end
  local fills = count == 0 and select(3, coap_messages(payload))
  if conversation == nil then return coap_opening(payload) == "yes" and #payload < NONCE_SIZE and "coap" or "later" end
  local device, server = conversation.turns.device, conversation.turns.server
  if has_run_of_frames(device) or has_run_of_frames(server) then return "spark" end
  if not conversation.sides[from_server and "server" or "device"].first_data and #payload < NONCE_SIZE
    and coap_opening(payload) == "yes" then
    return "coap"
  end
  local before = conversation:part(from_server and "identity" or "nonce")
  if fills or before == nil or before.data == nil then return "later" end
  if not from_server then return #device.opening + #payload == IDENTITY_SIZE and "spark" or "later" end
  local total = #server.opening + #payload
  return (total == SESSION_SIZE or total == NONCE_SIZE + SESSION_SIZE) and "spark" or "later"
end

--- Says whose the bytes are that a segment brings, before it is taken: "spark", "coap" (not ours, for good) or "later"
-- (not decided: not ours so far).
-- @param conversation the one that the segment seems to belong to, nil when there is none yet
local function whose(payload, from_server, conversation)
  if conversation == nil or conversation.midway then return whose_midway(payload, from_server, conversation) end
  local sides, turns = conversation.sides, conversation.turns
  local device, server = turns.device.opening, turns.server.opening
  if from_server then server = server .. payload else device = device .. payload end
  conversation:refresh()
  local server_spoke = from_server or sides.server.sent > 0
  local device_first = sides.device.first_data and client_first(conversation) or not server_spoke
  if device_first then
    -- RFC 8323 has both ends begin with a CSM. Of ours, a device speaks first when it has no key, or when the greeting
    -- is missing from the capture.
    if select(2, chain(device)) then return "spark" end
    local verdict = OPENING_VERDICTS[coap_opening(device)]
    return (verdict == "spark" and #device ~= IDENTITY_SIZE) and "coap" or verdict
  end
  if server ~= "" and not first_hole(conversation, "server") then
    local verdict = OPENING_VERDICTS[coap_opening(server)]
    if #server ~= NONCE_SIZE or verdict == "spark" then return verdict end
    -- The size of a nonce, and one in 5,000 begins like this. Whole messages of just that size: the device will tell.
    if verdict == "later" then return "spark" end
  end
  return device == "" and "later" or OPENING_VERDICTS[coap_opening(device)]
end

spark.kind_of = kind_of
spark.request_kind = request_kind
spark.whose = whose
end

-- tracker ---------------------------------------------------------------------------------------------------
do
-- Segments to conversations: which TCP connection does a segment belong to?
--
-- Ports are used again, copies of packets and late packets turn up, SYNs are missing: this page decides, and everything
-- after it sees one connection at a time.

local constants = spark.constants
local Conversation = spark.Conversation

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local SEQUENCE_SPACE = constants.streams.SEQUENCE_SPACE
local WINDOW = constants.tracker.WINDOW
local LINGER = constants.tracker.LINGER_NS / 1e9
local LIVE = constants.tracker.LIVE
local HELD = constants.tracker.HELD

local PORTS = 65536
local remove = table.remove

local Tracker = {}
Tracker.__index = Tracker

--- Sorts the segments of the given server ports (a set) into conversations. `listener` is the conversations' listener,
-- and is told of each new one with its method begun(conversation).
--
-- Fields to read: `conversations` (all of them, in the order in which they began), `stragglers` (packets of no use),
-- `evicted` (conversations closed for want of room).
function Tracker.new(ports, listener)
  local ends = {}
  ends.older, ends.newer = ends, ends
  return setmetatable({
    ports = ports,
    listener = listener,
    conversations = {},
    stragglers = 0,
    evicted = 0,
    flows = {}, -- by both ports, then by both addresses
    count = 0,
    ends = ends, -- the flows in a ring by last use: `ends.older` is the latest, `ends.newer` the one silent for longest
    closing = {}, -- a queue of {time, flow, conversation} that have closed
    first_closing = 1,
    last_closing = 0,
  }, Tracker)
end

-- -- flows -------------------------------------------------------------------------------------------------------
-- A flow is what is known of one pair of ends: {known, past, doubted}. `known` are its conversations that are open,
-- two at most, the latest last; `past` is the last one that was let go; `doubted` see below.

--- Returns two keys that are the same for both directions of a flow.
local function keys_of(source, source_port, target, target_port)
  if source_port < target_port or (source_port == target_port and source <= target) then
    return source_port * PORTS + target_port, source .. target
  end
  return target_port * PORTS + source_port, target .. source
end

local function link_latest(tracker, flow)
  local ends = tracker.ends
  flow.older, flow.newer = ends.older, ends
  ends.older.newer, ends.older = flow, flow
end

local function unlink(flow)
  flow.older.newer, flow.newer.older = flow.newer, flow.older
end

--- Returns the flow of these ends, or nil.
function Tracker:flow_of(source, source_port, target, target_port)
  local ports, addresses = keys_of(source, source_port, target, target_port)
  local bucket = self.flows[ports]
  return bucket and bucket[addresses]
end

local function forget(tracker, flow)
  local bucket = tracker.flows[flow.ports]
  bucket[flow.addresses] = nil
  if next(bucket) == nil then tracker.flows[flow.ports] = nil end
  unlink(flow)
  tracker.count = tracker.count - 1
end

local function new_flow(tracker, segment)
  local ports, addresses = keys_of(segment.source, segment.source_port, segment.target, segment.target_port)
  local flow = { ports = ports, addresses = addresses, known = {}, past = nil, doubted = nil }
  tracker.flows[ports] = tracker.flows[ports] or {}
  tracker.flows[ports][addresses] = flow
  link_latest(tracker, flow)
  tracker.count = tracker.count + 1
  if tracker.count > LIVE then
    local silent = tracker.ends.newer
    forget(tracker, silent)
    for _, conversation in ipairs(silent.known) do
      tracker.evicted = tracker.evicted + 1
      conversation:retire()
    end
  end
  return flow
end

-- -- inside a flow -----------------------------------------------------------------------------------------------

local function feed(tracker, flow, segment, conversation)
  conversation:take(segment)
  if conversation.closings[1] and not conversation.lingering and conversation:closed() then
    conversation.lingering = true
    local last = tracker.last_closing + 1
    tracker.last_closing = last
    tracker.closing[last] = { time = segment.time, flow = flow, conversation = conversation }
  end
end

--- Returns a segment that stays as it is: who feeds the tracker may use one table for all packets.
local function copy(segment)
  local kept = {}
  for name, value in pairs(segment) do kept[name] = value end
  return kept
end

--- It was no nonce: gives what was held to where it seemed to belong.
local function believe(tracker, flow)
  local doubted = flow.doubted
  if doubted == nil then return end
  flow.doubted = nil
  for _, segment in ipairs(doubted.held) do feed(tracker, flow, segment, doubted.conversation) end
end

local function begin(tracker, flow, segment)
  local ports = tracker.ports
  local from_server
  if segment.syn then
    from_server = segment.acks
  else
    from_server = ports[segment.source_port] and not ports[segment.target_port]
  end
  local device = { address = segment.source, port = segment.source_port }
  local server = { address = segment.target, port = segment.target_port }
  if from_server then device, server = server, device end
  local conversations = tracker.conversations
  local conversation = Conversation.new(#conversations + 1, device, server, segment, tracker.listener)
  conversations[conversation.number] = conversation
  flow = flow or new_flow(tracker, segment)
  flow.past = nil
  local known = flow.known
  known[#known + 1] = conversation
  if #known > 2 then
    believe(tracker, flow)
    remove(known, 1):retire()
  end
  tracker.listener:begun(conversation)
  return conversation, flow
end

--- Returns the conversation of this segment and its flow: a new one if it begins one, nil if it belongs nowhere.
local function find(tracker, flow, segment)
  local known = flow and flow.known
  local current = known and known[#known]
  if current == nil then
    local past = flow and flow.past
    -- Of a conversation that was let go there is nothing more to learn.
    if past and not segment.syn and (segment.length == 0 or past:distance(segment, WINDOW)) then return nil end
    return begin(tracker, flow, segment)
  end
  if tracker.ends.older ~= flow then
    unlink(flow)
    link_latest(tracker, flow)
  end
  if segment.syn then
    for index = #known, 1, -1 do
      if known[index]:accepts_syn(segment) then return known[index], flow end
    end
    return begin(tracker, flow, segment)
  end
  if known[2] then
    local first, second = known[1]:distance(segment, WINDOW), known[2]:distance(segment, WINDOW)
    if first and not (second and second <= first) then current = known[1] end
  end
  if current:continues(segment, WINDOW) then
    if current.retired then return nil end
    return current, flow
  end
  -- Nothing begins with a packet that says nothing: it is late, or somebody else's.
  if segment.length == 0 then return nil end
  return begin(tracker, flow, segment)
end

--- A port used again whose SYN is missing: holds what follows a possible nonce in the place of frames until an answer
-- to it shows what it is. Returns the conversation that the segment belongs to.
local function settle_doubt(tracker, flow, segment, conversation)
  local doubted = flow.doubted
  local held = doubted.held
  local nonce = held[1]
  local again = segment.seq == nonce.seq and segment.length == nonce.length
  local answers = segment.ack == (nonce.seq + nonce.length) % SEQUENCE_SPACE
  if segment.source == nonce.target and segment.length == IDENTITY_SIZE and answers then
    flow.doubted = nil
    local begun = begin(tracker, flow, nonce)
    for _, late in ipairs(held) do feed(tracker, flow, late, begun) end
    conversation = begun
  elseif conversation == doubted.conversation and (segment.length == 0 or again) and #held < HELD then
    held[#held + 1] = copy(segment)
    return conversation
  else
    believe(tracker, flow)
  end
  feed(tracker, flow, segment, conversation)
  return conversation
end

-- -- from outside ------------------------------------------------------------------------------------------------

--- Lets go of conversations that were closed long ago.
local function let_go(tracker, now)
  local closing = tracker.closing
  while tracker.first_closing <= tracker.last_closing do
    local place = tracker.first_closing
    local waiting = closing[place]
    if now - waiting.time <= LINGER then return end
    closing[place] = nil
    tracker.first_closing = place + 1
    local flow, conversation = waiting.flow, waiting.conversation
    if not conversation.retired and not conversation:closed() then
      conversation.lingering = false
    elseif now - conversation.end_time <= LINGER then
      waiting.time = conversation.end_time
      tracker.last_closing = tracker.last_closing + 1
      closing[tracker.last_closing] = waiting
    else
      flow.doubted = nil
      conversation:retire()
      local latest = flow.known[#flow.known]
      if latest and latest.retired and flow.known[1].retired then flow.known, flow.past = {}, latest end
    end
  end
end

--- Takes the next segment of one of the ports, in capture order; it is kept as long as it may matter. Returns the
-- conversation it belongs to, or nil.
function Tracker:take(segment)
  if self.first_closing <= self.last_closing then let_go(self, segment.time) end
  local flow = self:flow_of(segment.source, segment.source_port, segment.target, segment.target_port)
  local conversation
  conversation, flow = find(self, flow, segment)
  if conversation == nil then
    self.stragglers = self.stragglers + 1
    return nil
  end
  if flow.doubted then return settle_doubt(self, flow, segment, conversation) end
  if segment.length == NONCE_SIZE and conversation:is_out_of_place(segment) then
    flow.doubted = { conversation = conversation, held = { copy(segment) } }
    return conversation
  end
  feed(self, flow, segment, conversation)
  return conversation
end

spark.Tracker = Tracker
end

-- deadkey ---------------------------------------------------------------------------------------------------
do
-- Frames of a device whose login failed and which talks on all the same, under a key nobody agreed on.
--
-- Cores of 2014 ignore the result of the handshake (PROTOCOL 9.2): they encrypt with whatever key, IV and counters
-- are in RAM. After power-up these are all zero, so the first frames are constants; later they are those of the
-- session before. Key, IV chain and counters go on across reconnects. Recognising such a frame proves that the login
-- failed, and it needs no key of the user's.

local constants = spark.constants
local aes = spark.aes
local bxor = spark.bits.bxor
local is_whole_coap, without_padding = spark.is_whole_coap, spark.without_padding
local byte, char, sub = string.byte, string.char, string.sub
local concat, floor = table.concat, math.floor

local BLOCK = constants.catalogue.BLOCK
local LARGEST_FRAME = constants.catalogue.LARGEST_FRAME
local ZERO_KEY = constants.deadkey.ZERO_KEY
local ZERO_IV = constants.deadkey.ZERO_IV
local CHAIN_LENGTH = constants.deadkey.CHAIN_LENGTH
local COAP_VERSION = constants.deadkey.COAP_VERSION
local GET = constants.deadkey.GET
local POST = constants.deadkey.POST
local PING = constants.deadkey.PING
local TIME_REQUEST = constants.deadkey.TIME_REQUEST
local UNASKED_GETS = constants.deadkey.UNASKED_GETS
local UNASKED_POSTS = constants.deadkey.UNASKED_POSTS
local UNDER_ZERO_KEY = constants.deadkey.UNDER_ZERO_KEY
local UNDER_EARLIER_KEY = constants.deadkey.UNDER_EARLIER_KEY
local AS_CONSTANT = constants.deadkey.AS_CONSTANT
local AS_CHAIN = constants.deadkey.AS_CHAIN
local HEADS = constants.deadkey.FIRST_BLOCK_HEADS
local RESTS = constants.deadkey.FIRST_BLOCK_RESTS

-- -- a table that forgets ---------------------------------------------------------------------------------------------

--- Values by key, for the last `room` keys that were asked for with `of`; others are forgotten.
-- A ring of entries from the oldest to the newest, so that remembering costs the same however many there are.
local Remembered = {}
Remembered.__index = Remembered

function Remembered.new(room)
  local ring = {}
  ring.older, ring.newer = ring, ring
  return setmetatable({ room = room, count = 0, _entries = {}, _ring = ring }, Remembered)
end

--- Returns the value of a key, or nil. That does not make it any newer.
function Remembered:find(key)
  local entry = self._entries[key]
  return entry and entry.value
end

--- Returns the table of a key, an empty one when it is new, and makes it the newest.
function Remembered:of(key)
  local ring, entry = self._ring, self._entries[key]
  if entry then
    entry.older.newer, entry.newer.older = entry.newer, entry.older
  else
    entry = { key = key, value = {} }
    self._entries[key] = entry
    self.count = self.count + 1
  end
  entry.older, entry.newer = ring.older, ring
  ring.older.newer, ring.older = entry, entry
  if self.count > self.room then
    local oldest = ring.newer
    ring.newer, oldest.newer.older = oldest.newer, ring
    self._entries[oldest.key] = nil
    self.count = self.count - 1
  end
  return entry.value
end

-- -- the frames of a freshly booted device ----------------------------------------------------------------------------

local function xor_block(left, right)
  local bytes = {}
  for at = 1, BLOCK do
    bytes[at] = char(bxor(byte(left, at), byte(right, at)))
  end
  return concat(bytes)
end

--- The first 16 plaintext bytes of the message.
local function first_block(message, number, token)
  local own_token = message == TIME_REQUEST and char(token) or ""
  return HEADS[message] .. char(floor(number / 256), number % 256) .. own_token .. RESTS[message]
end

--- Adds the frames of one boot sequence: what is sent once, then what is sent again and again.
local function add_chain(found, encryptor, opening, repeated)
  local iv, token = ZERO_IV, 0
  for number = 1, CHAIN_LENGTH do
    local message = opening[number] or repeated[(number - #opening - 1) % #repeated + 1]
    if message == TIME_REQUEST then token = token + 1 end
    local block = encryptor:encrypt_block(xor_block(first_block(message, number, token), iv))
    if found[block] == nil then found[block] = iv end
    iv = block
  end
end

local known_constants

--- Returns first ciphertext block → IV, for each frame a freshly booted device can send (PROTOCOL 9.2).
-- Made when first asked for: captures without a device's frame need no AES.
local function zero_key_constants()
  if known_constants == nil then
    known_constants = {}
    local encryptor = aes.encryptor(ZERO_KEY)
    for _, sequence in ipairs(constants.deadkey.BOOT_SEQUENCES) do
      add_chain(known_constants, encryptor, sequence[1], sequence[2])
    end
  end
  return known_constants
end

-- -- recognising ------------------------------------------------------------------------------------------------------

--- Names a message that devices send by themselves; nil for any other, well formed or not.
local function unasked_message(plaintext)
  if not is_whole_coap(plaintext) then return nil end
  local first, code = byte(plaintext, 1, 2)
  if #plaintext == 4 and sub(plaintext, 1, 2) == HEADS[PING] then return PING end
  local token_size = first % 16
  if floor(first / 16) % 4 > 1 or token_size > 1 then return nil end
  local path = sub(plaintext, 5 + token_size, 6 + token_size)
  if code == GET then return UNASKED_GETS[path] end
  return code == POST and UNASKED_POSTS[path] or nil
end

--- Decrypts, and returns the message and its name only if it is whole and one that a device sends unasked.
local function open_unasked(context, iv, ciphertext, first)
  -- One block tells nearly every other frame apart, so long frames cost no more than short ones: confirmable or
  -- not, with at most one byte of token, is how all these messages begin.
  local opened = context:decrypt_cbc(iv, first)
  local head = byte(opened, 1)
  if floor(head / 64) ~= COAP_VERSION or floor(head / 16) % 4 > 1 or head % 16 > 1 then return nil end
  if #ciphertext > BLOCK then opened = context:decrypt_cbc(iv, ciphertext) end
  local plaintext = without_padding(opened)
  local message = plaintext and unasked_message(plaintext)
  if not message then return nil end
  return plaintext, message
end

--- Recognises dead-key frames and keeps each device's IV chain across its connections (PROTOCOL 9.2).
local DeadKeys = {}
DeadKeys.__index = DeadKeys

function DeadKeys.new()
  return setmetatable({ _zero_key = nil, _devices = Remembered.new(constants.deadkey.MOST_DEVICES) }, DeadKeys)
end

--- Returns what the frame says when it is a dead-key frame of `device`, else nil.
-- Odds that a frame under any other key passes are below one in 10^8.
-- @param device whatever tells one device from another (its address)
-- @param frame_ciphertext the frame without its two length bytes
-- @return {plaintext, message, under, how}
function DeadKeys:recognise(device, frame_ciphertext)
  local size = #frame_ciphertext
  if size < BLOCK or size > LARGEST_FRAME or size % BLOCK ~= 0 then return nil end
  local first = sub(frame_ciphertext, 1, BLOCK)
  local chains = self._devices:find(device)
  local zero_key = self._zero_key
  if zero_key == nil then
    zero_key = aes.new(ZERO_KEY)
    self._zero_key = zero_key
  end

  local how, plaintext, message = AS_CONSTANT, nil, nil
  local constant_iv = zero_key_constants()[first]
  if constant_iv then plaintext, message = open_unasked(zero_key, constant_iv, frame_ciphertext, first) end
  if not plaintext then
    how = AS_CHAIN
    if chains and chains.zero_iv then
      plaintext, message = open_unasked(zero_key, chains.zero_iv, frame_ciphertext, first)
    end
    if not plaintext then plaintext, message = open_unasked(zero_key, ZERO_IV, frame_ciphertext, first) end
  end
  if plaintext then
    self._devices:of(device).zero_iv = first
    return { plaintext = plaintext, message = message, under = UNDER_ZERO_KEY, how = how }
  end
  if not chains or not chains.session_context then return nil end

  plaintext, message = open_unasked(chains.session_context, chains.session_iv, frame_ciphertext, first)
  if not plaintext then return nil end
  self._devices:of(device).session_iv = first
  return { plaintext = plaintext, message = message, under = UNDER_EARLIER_KEY, how = AS_CHAIN }
end

--- Notes the AES key of a session that worked, and the IV its next device frame would have had.
-- A device that fails its next login goes on with these.
-- @param key, next_iv 16 bytes each; `next_iv` is the first ciphertext block of the device's last frame
function DeadKeys:remember_session(device, key, next_iv)
  local chains = self._devices:of(device)
  if chains.session_key ~= key then
    chains.session_key, chains.session_context = key, aes.new(key)
  end
  chains.session_iv, chains.zero_iv = next_iv, nil
end

spark.Remembered = Remembered
spark.DeadKeys = DeadKeys
spark.zero_key_constants = zero_key_constants
end

-- session ---------------------------------------------------------------------------------------------------
do
-- Decrypts one direction's frames, and says what is in the way when one does not open (PROTOCOL 4.4, 4.5).
--
-- The chain is unusual: the IV of a frame is the FIRST ciphertext block of the frame before it. So a missing frame
-- costs 16 bytes of the next and nothing more, and that pattern tells a hole from a wrong key.

local constants = spark.constants
local new_context = spark.aes.new
local is_whole_coap, without_padding = spark.is_whole_coap, spark.without_padding
local less = spark.rsa.less
local byte, rep, sub = string.byte, string.rep, string.sub
local min = math.min

local BLOCK = constants.catalogue.BLOCK
local UNKNOWN_IV = constants.session.frames.UNKNOWN_IV
local Obstacle = constants.session.frames.OBSTACLES
local Trouble = constants.session.frames.TROUBLES
local FRAMES_TRIED = constants.session.frames.FRAMES_TRIED
local ENOUGH_PADDING = constants.session.frames.ENOUGH_PADDING
local MOST_CANDIDATES = constants.session.frames.MOST_CANDIDATES
local KEPT_OBSTACLES = constants.session.frames.KEPT_OBSTACLES
local KEPT_RUNS = constants.session.frames.KEPT_RUNS
local MOST_RANGE_VALUES = constants.session.range_test.MOST_RANGE_VALUES
local UNLIKELY = constants.session.range_test.UNLIKELY

-- What an opened frame is: {plaintext, whole, missing, obstacle}. `plaintext` is the CoAP message without padding when
-- `whole`; after a gap what follows the first `missing` bytes (16), nil when that is nothing. Else it is nil, and then
-- one table serves all frames alike.
local NONE = Obstacle.NONE
local GAP_BEFORE = Obstacle.GAP_BEFORE

local function shut(missing, obstacle)
  return { plaintext = nil, whole = false, missing = missing, obstacle = obstacle }
end

local NOTHING_LEFT = shut(BLOCK, GAP_BEFORE)
local BAD_PADDING = shut(0, Obstacle.BAD_PADDING)
local BAD_START = shut(0, Obstacle.BAD_START)
local NOT_COAP = shut(0, Obstacle.NOT_COAP)
local NOT_BLOCKS = shut(0, Obstacle.NOT_BLOCKS)

-- -- one direction ----------------------------------------------------------------------------------------------------

--- Decrypts the frames of one direction in order.
-- `next_iv` is the IV of the frame to come, nil after a gap. A dead-key chain goes on with it (PROTOCOL 9.2).
local FrameDecryptor = {}
FrameDecryptor.__index = FrameDecryptor

--- @param session_key {key, iv, salt}; without `iv` only the AES key is known
-- @param in_step whether the first frame given is the direction's first of the session, so that the session key's IV
-- is its IV; otherwise the first frame loses its first 16 bytes
-- @param context AES with that key, where it is there already: it has no state, so both directions can share it
function FrameDecryptor.new(session_key, in_step, context)
  return setmetatable({
    next_iv = in_step and session_key.iv or nil,
    _context = context or new_context(session_key.key),
  }, FrameDecryptor)
end

--- Notes that frames are missing here.
-- @param first_block the first 16 ciphertext bytes of the last missing frame where the capture still has them: then
-- nothing of the next frame is lost
function FrameDecryptor:skip(first_block)
  if first_block and #first_block == BLOCK then
    self.next_iv = first_block
  else
    self.next_iv = nil
  end
end

--- What is left of a frame whose IV is not known.
local function after_gap(opened)
  if #opened == BLOCK then return NOTHING_LEFT end
  local rest = without_padding(sub(opened, BLOCK + 1))
  if rest == nil then return BAD_PADDING end
  return { plaintext = rest, whole = false, missing = BLOCK, obstacle = GAP_BEFORE }
end

--- Decrypts the next frame (without its length bytes). Never raises on bytes.
function FrameDecryptor:update(ciphertext)
  local size = #ciphertext
  if size == 0 or size % BLOCK ~= 0 then
    self.next_iv = nil
    return NOT_BLOCKS
  end
  local iv = self.next_iv
  self.next_iv = sub(ciphertext, 1, BLOCK)
  if iv == nil then return after_gap(self._context:decrypt_cbc(UNKNOWN_IV, ciphertext)) end

  local plaintext = without_padding(self._context:decrypt_cbc(iv, ciphertext))
  if plaintext == nil then return BAD_PADDING end
  if is_whole_coap(plaintext) then
    return { plaintext = plaintext, whole = true, missing = 0, obstacle = NONE }
  end
  return size == BLOCK and NOT_COAP or BAD_START
end

--- Whether a frame's end is right under this key; asks for its last block alone, however long it is.
-- Where that would save nothing, it says yes.
function FrameDecryptor:may_open(ciphertext)
  local size = #ciphertext
  if size <= BLOCK or size % BLOCK ~= 0 then return true end
  local before = sub(ciphertext, size - 2 * BLOCK + 1, size - BLOCK)
  return without_padding(self._context:decrypt_cbc(before, sub(ciphertext, size - BLOCK + 1))) ~= nil
end

-- -- which session key ------------------------------------------------------------------------------------------------

--- Whether a key shows enough right padding in the first frames of the two directions.
local function fits(key, directions, in_step)
  local context, padding = new_context(key.key), 0
  for _, frames in ipairs(directions) do
    local decryptor = FrameDecryptor.new(key, in_step, context)
    for index = 1, min(#frames, FRAMES_TRIED) do
      local ciphertext = frames[index]
      if decryptor:may_open(ciphertext) then
        local opened = decryptor:update(ciphertext)
        if opened.plaintext then
          padding = padding + #ciphertext - opened.missing - #opened.plaintext
          if padding >= ENOUGH_PADDING then return true end
        end
      else
        decryptor:skip(sub(ciphertext, 1, BLOCK))
      end
    end
  end
  return false
end

--- Returns the first session key that opens the first frames of a conversation; nil when none does.
-- For session keys that were given or logged; one that came out of message 3 needs no test.
-- @param candidates array of session keys
-- @param directions the ciphertexts of each direction's frames, in order and without gaps
-- @param in_step as for FrameDecryptor
local function fitting_session_key(candidates, directions, in_step)
  for index = 1, min(#candidates, MOST_CANDIDATES) do
    if fits(candidates[index], directions, in_step) then return candidates[index] end
  end
  return nil
end

-- -- what failures mean -----------------------------------------------------------------------------------------------

--- Follows one direction's frames and says what the failures among them mean.
local FailurePattern = {}
FailurePattern.__index = FailurePattern

function FailurePattern.new()
  return setmetatable({ frames = 0, opened = 0, runs = {}, _open_run = nil }, FailurePattern)
end

--- Counts one opened frame, in order.
function FailurePattern:note(frame)
  local index = self.frames
  self.frames = index + 1
  local obstacle, run = frame.obstacle, self._open_run
  if obstacle == NONE or obstacle == GAP_BEFORE then
    -- A one-block frame behind a gap opens for any key, so it proves nothing and ends no run.
    if obstacle == NONE or frame.plaintext then
      self.opened = self.opened + 1
      if run then
        run.recovered, self._open_run = true, nil
      end
    end
    return
  end
  if run == nil then
    run = { first = index, obstacles = {}, count = 0, recovered = false }
    self._open_run = run
    if #self.runs < KEPT_RUNS then self.runs[#self.runs + 1] = run end
  end
  run.count = run.count + 1
  if #run.obstacles < KEPT_OBSTACLES then run.obstacles[#run.obstacles + 1] = obstacle end
end

--- What a run of frames that do not open means (PROTOCOL 4.5; DIAGNOSES, SPK501).
function FailurePattern:_meaning(run)
  if self.opened == 0 then return Trouble.WRONG_KEY end
  if #run.obstacles == 1 and run.obstacles[1] == Obstacle.BAD_START then return Trouble.FRAME_MISSING end
  if run.recovered then return Trouble.DAMAGED end
  for _, obstacle in ipairs(run.obstacles) do
    if obstacle == Obstacle.NOT_BLOCKS then return Trouble.FRAMING end
  end
  return Trouble.LOST
end

--- Returns each run with its meaning, oldest first: array of {run = {first, obstacles, count, recovered}, trouble}.
function FailurePattern:troubles()
  local found = {}
  for index, run in ipairs(self.runs) do
    found[index] = { run = run, trouble = self:_meaning(run) }
  end
  return found
end

-- -- public keys alone ------------------------------------------------------------------------------------------------

--- Asks whether a public key can be the one that a series of RSA blocks was made for (PROTOCOL 3.3).
-- A block is a number below its modulus, so one that is not below `n` excludes this key for certain. Without such a
-- block it only grows unlikely: were the key right, all blocks would stay as far below `n` as they do with probability
-- `p_value`. "Not excluded" never means that the key fits.
local RangeTest = {}
RangeTest.__index = RangeTest

--- The first bytes as a fraction of 1, as far as a double holds them.
local function fraction(number)
  local value = 0
  for at = min(#number, 8), 1, -1 do
    value = (value + byte(number, at)) / 256
  end
  return value
end

--- @param n the modulus, big-endian bytes without leading zeros
function RangeTest.new(n)
  return setmetatable({ count = 0, excluded = false, p_value = 1, unlikely = false, _n = n, _seen = {},
    _largest = rep("\0", #n) }, RangeTest)
end

--- Adds one handshake's block. Repeats of the same block and blocks of another length do not count.
function RangeTest:add(block)
  if #block ~= #self._n or self._seen[block] or self.count >= MOST_RANGE_VALUES then return end
  self._seen[block] = true
  self.count = self.count + 1
  if less(self._largest, block) then self._largest = block end
  self.excluded = not less(self._largest, self._n)
  self.p_value = self.excluded and 0 or (fraction(self._largest) / fraction(self._n)) ^ self.count
  self.unlikely = self.p_value < UNLIKELY
end

spark.FrameDecryptor = FrameDecryptor
spark.fitting_session_key = fitting_session_key
spark.FailurePattern = FailurePattern
spark.RangeTest = RangeTest
end

-- opening ---------------------------------------------------------------------------------------------------
do
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
end

-- decryption ------------------------------------------------------------------------------------------------
do
-- What the keys make of a conversation: handshake opened, frames decrypted, messages named.
--
-- One Decryption serves a whole capture, because keys that worked once are tried first again and dead keys go on
-- across connections. It is told of each handshake message and each frame as it is cut, and answers at once: no
-- conversation is ever over, and no message waits for its place. What it learns is kept in the conversation's
-- `secrets`.

local constants = spark.constants
local new_context = spark.aes.new
local FrameDecryptor, FailurePattern = spark.FrameDecryptor, spark.FailurePattern
local fitting_session_key, Remembered = spark.fitting_session_key, spark.Remembered

local QUEUED = constants.decryption.QUEUED
local PROOF = constants.decryption.PROOF
local BAD_FRAMES = constants.decryption.BAD_FRAMES
local KEY_GIVEN = constants.decryption.KEY_GIVEN
local KEY_LOGGED = constants.decryption.KEY_LOGGED
local MOST_DEVICES = constants.deadkey.MOST_DEVICES
local GAP_BEFORE = constants.session.frames.OBSTACLES.GAP_BEFORE

-- -- what was learnt --------------------------------------------------------------------------------------------------

--- What the keys at hand told about one conversation.
-- `identity_tried` and `offer` say what was tried; `session_key` is nil when nothing opened. `key_source` names where
-- it came from. `opened`, `partly`, `lost` count frames (`lost`: a hole left nothing of them). `patterns` is by sender.
-- `bad_frames` are {sender, position, packet, obstacle, behind_gap}: `position` counts the whole frames of its
-- direction from 0. `hellos` has the ends whose hello opened.
local Secrets = {}
Secrets.__index = Secrets

function Secrets.new()
  return setmetatable({
    identity = nil,
    identity_tried = 0,
    offer = nil,
    session_key = nil,
    key_source = nil,
    opened = 0,
    partly = 0,
    lost = 0,
    patterns = {},
    bad_frames = {},
    hellos = {},
    reader = nil,
  }, Secrets)
end

-- -- one capture ------------------------------------------------------------------------------------------------------

--- Opens the conversations of one capture with the keys of a ring.
-- `late`, when set, is called as late(conversation, frame, opened, message) for each frame that had to wait until it
-- was known which key opens it; their rows may be drawn already.
local Decryption = {}
Decryption.__index = Decryption

--- @param keys the key ring
function Decryption.new(keys)
  return setmetatable({
    keys = keys,
    late = nil,
    _opener = spark.SessionOpener.new(keys),
    _sessions = Remembered.new(MOST_DEVICES), -- by device: {latest, before}, conversations that opened; what was told
  }, Decryption)
end

--- The work on one conversation while its packets come.
-- `gap` says, by sender, that bytes are missing since its last message; `primed` that a frame of which only the head
-- was captured has left the next one's IV.
local function new_work()
  return {
    decided = false,
    decryptors = nil,
    primed = {},
    gap = {},
    queue = {}, -- frames that wait
    candidates = nil, -- session keys that may open them
    test_at = 1, -- number of frames that wait at the next test
  }
end

--- Takes charge of a new conversation.
function Decryption.begin(_, conversation)
  conversation.secrets = Secrets.new()
  conversation.secrets._work = new_work()
end

-- -- which key --------------------------------------------------------------------------------------------------------

--- The bytes of a handshake message that was captured whole, or nil.
local function data_of(conversation, kind)
  local part = conversation:part(kind)
  return part and part.data
end

--- Opens what the handshake holds, as soon as it is there. Call it when one of its messages is complete; what was
-- tried once is not tried again.
function Decryption:handshake(conversation)
  local secrets = conversation.secrets
  local block = data_of(conversation, "identity")
  local servers = #self.keys.server_private
  if block and servers > 0 and secrets.identity_tried == 0 then
    local identity
    identity, secrets.identity_tried = self._opener:identity(block, data_of(conversation, "nonce"))
    secrets.identity = identity
    if identity and identity.device_id and identity.nonce_matches ~= false then
      conversation.device.id = identity.device_id
    end
  end
  local session = data_of(conversation, "session")
  if not session or secrets.offer then return end
  local offer = self._opener:offer(session, secrets.identity, conversation.device.address)
  secrets.offer = offer
  if offer.credentials and offer.opened_by then
    secrets.session_key, secrets.key_source = offer.credentials, offer.opened_by.name
  end
end

--- Returns the longest run of one direction's frames without a gap, and whether it begins with the first.
local function longest_run(queue, sender)
  local best, best_is_first, run, first = {}, true, {}, true
  for _, frame in ipairs(queue) do
    if frame.sender == sender then
      if not frame.ciphertext or frame.follows_gap then
        first, run = false, {}
      end
      if frame.ciphertext then
        run[#run + 1] = frame.ciphertext
        if #run > #best then
          best, best_is_first = run, first
        end
      end
    end
  end
  return best, best_is_first
end

--- Puts the session keys that were given or logged to the test on the frames that wait.
function Decryption:_try_session_keys(conversation, work, candidates)
  local device, device_is_first = longest_run(work.queue, "device")
  local server, server_is_first = longest_run(work.queue, "server")
  local in_step = not conversation.midway and device_is_first and server_is_first
  local fitting = fitting_session_key(candidates, { device, server }, in_step)
  if not fitting then return end
  local secrets = conversation.secrets
  secrets.session_key, secrets.key_source = fitting, KEY_LOGGED
  for _, given in ipairs(self.keys.loose_session_keys) do
    if given == fitting then secrets.key_source = KEY_GIVEN end
  end
end

--- Decides, if it can be, which key opens the frames. Returns whether it did.
-- @param full no more frames can wait, so it is decided as it is: a queue that went on would have a hole
function Decryption:_decide(conversation, work, full)
  local secrets = conversation.secrets
  self:handshake(conversation)
  if not secrets.session_key then
    local candidates = work.candidates or self.keys:session_keys_for(data_of(conversation, "nonce"))
    work.candidates = candidates
    if #candidates > 0 then
      if #work.queue < work.test_at and not full then return false end
      self:_try_session_keys(conversation, work, candidates)
      -- The first few frames are tested one by one, because there may be no more; then each time their number has
      -- doubled, because they may have had too little padding to prove anything.
      work.test_at = work.test_at < PROOF and work.test_at + 1 or work.test_at * 2
      if not secrets.session_key and not full then return false end
    end
  end
  work.decided, work.candidates = true, nil
  local session_key = secrets.session_key
  if not session_key then
    work.queue = nil
    return true
  end
  local in_step = not conversation.midway or conversation:part("session") ~= nil
  local context = new_context(session_key.key)
  work.decryptors = {
    device = FrameDecryptor.new(session_key, in_step, context),
    server = FrameDecryptor.new(session_key, in_step, context),
  }
  secrets.patterns = { device = FailurePattern.new(), server = FailurePattern.new() }
  secrets.reader = spark.MessageReader.new(session_key.salt)
  return true
end

-- -- frames and messages ----------------------------------------------------------------------------------------------

--- Notes that the two ends do use this key: from now on the device holds it, and not that of the session before.
function Decryption:_note_session(conversation)
  local sessions = self._sessions:of(conversation.device.address)
  sessions.latest, sessions.before = conversation, sessions.latest
end

--- Decrypts one frame in its turn. Returns what opened and the message in it, or nil.
function Decryption:_decrypt(conversation, work, frame)
  local secrets, sender, ciphertext = conversation.secrets, frame.sender, frame.ciphertext
  local decryptor = work.decryptors[sender]
  if frame.follows_gap then
    work.gap[sender] = true
    if not work.primed[sender] then decryptor:skip() end
  end
  if not ciphertext then
    -- Its first block is the next frame's IV, so a hole behind it costs this frame alone.
    decryptor:skip(frame.head)
    work.primed[sender], work.gap[sender] = true, true
    secrets.lost = secrets.lost + 1
    return nil
  end
  work.primed[sender] = false
  local opened, pattern = decryptor:update(ciphertext), secrets.patterns[sender]
  pattern:note(opened)
  local plaintext = opened.plaintext
  if not plaintext then
    local bad = secrets.bad_frames
    if opened.obstacle == GAP_BEFORE then
      secrets.lost = secrets.lost + 1
    elseif #bad < BAD_FRAMES then
      bad[#bad + 1] = {
        sender = sender,
        position = pattern.frames - 1,
        packet = frame.packet,
        obstacle = opened.obstacle,
        behind_gap = work.gap[sender] or false,
      }
    end
    return opened
  end
  work.gap[sender] = false
  if opened.whole then
    if secrets.opened == 0 then self:_note_session(conversation) end
    secrets.opened = secrets.opened + 1
  else
    secrets.partly = secrets.partly + 1
  end
  local message = secrets.reader:read(sender, plaintext, frame.packet, frame.time, opened.missing)
  if message.name == "Hello" then secrets.hellos[sender] = true end
  conversation.message_count = conversation.message_count + 1
  if sender == "server" then conversation.last_server_message = message end
  return opened, message
end

--- Takes a conversation's next frame (not a dead-key frame).
-- @return opened, message: what it is after decryption and the message in it; nil when it has no key, or has to wait
-- until it is known which one
function Decryption:frame(conversation, frame)
  local work = conversation.secrets._work
  if work.decryptors then return self:_decrypt(conversation, work, frame) end
  if work.decided then return nil end

  local queue = work.queue
  queue[#queue + 1] = frame
  local session = conversation:part("session")
  local full = #queue >= QUEUED
  if not (full or (session and session.complete) or conversation.midway) then return nil end
  if not self:_decide(conversation, work, full) or not work.decryptors then return nil end
  work.queue = nil
  for index = 1, #queue - 1 do
    local opened, message = self:_decrypt(conversation, work, queue[index])
    if opened and self.late then self.late(conversation, queue[index], opened, message) end
  end
  return self:_decrypt(conversation, work, frame)
end

--- Returns the session key, and the IV that the device's next frame would have had, of the device's connection before
-- this one; nil when that is not known or was told already. A device that fails its next login goes on with them.
function Decryption:left_behind(conversation)
  local sessions = self._sessions:find(conversation.device.address)
  if not sessions then return nil end
  local earlier = sessions.latest
  if earlier.number >= conversation.number then earlier = sessions.before end
  if not earlier or earlier.number >= conversation.number then return nil end
  local next_iv = earlier.secrets._work.decryptors.device.next_iv
  if not next_iv or (sessions.told_number == earlier.number and sessions.told_iv == next_iv) then return nil end
  sessions.told_number, sessions.told_iv = earlier.number, next_iv
  return earlier.secrets.session_key, next_iv
end

spark.Secrets = Secrets
spark.Decryption = Decryption
end

-- rules_facts -----------------------------------------------------------------------------------------------
do
-- What every rule asks of a conversation: how long was it watched, and what can this capture not tell?
-- And how a finding is made of a row of the table of findings.

local constants = spark.constants
local wording = spark.wording
local duration, fill, number, packets = wording.duration, wording.fill, wording.number, wording.packets
local floor = math.floor

local FINDINGS = constants.findings.FINDINGS
local PEER, SENDERS = spark.PEER, spark.SENDERS

-- What harms the connection, as a set; and the places of the words in their order, the worst and the surest first.
local BAD, SEVERITY_RANK, CONFIDENCE_RANK = {}, {}, {}
for _, severity in ipairs(constants.findings.BAD) do
  BAD[severity] = true
end
for place, severity in ipairs(constants.findings.SEVERITY_ORDER) do
  SEVERITY_RANK[severity] = place
end
for place, confidence in ipairs(constants.findings.CONFIDENCE_ORDER) do
  CONFIDENCE_RANK[confidence] = place
end

--- Whether a finding is to be shown before another: most severe, then most sure, then most specific. Nil when they do
-- not differ in any of that.
local function is_before(one, other)
  if one.severity ~= other.severity then
    return SEVERITY_RANK[one.severity] < SEVERITY_RANK[other.severity]
  end
  if one.confidence ~= other.confidence then
    return CONFIDENCE_RANK[one.confidence] < CONFIDENCE_RANK[other.confidence]
  end
  if one.specific ~= other.specific then
    return one.specific > other.specific
  end
  return nil
end

--- Seconds between two times, to the nanosecond: without rounding, a wait of just 20 s could come out below it.
local function apart(later, earlier)
  return floor((later - earlier) * 1e9 + 0.5) / 1e9
end

--- One observation: a sentence, and the packets it rests on.
local function saw(text, ...)
  return { text = text, packets = { ... } }
end

--- A look-alike that this capture excludes, and by what.
local function not_it(code, because)
  return { code = code, because = because }
end

local Facts = {}
Facts.__index = Facts

--- The end none of whose packets were captured although the other's prove that there were some; nil if there is none.
local function unseen_end(conversation)
  for _, sender in ipairs(SENDERS) do
    local seen, other = conversation.sides[sender], conversation.sides[PEER[sender]]
    if seen.quality.packets == 0 then
      if other.quality.packets > 0 and (seen.acked > 0 or seen.sent > 0) then
        return sender
      end
      if other.quality.data_segments > 0 then
        return sender -- it cannot have sent data on a connection that was never accepted
      end
    end
  end
  return nil
end

--- Time up to which a silence can be claimed: the first close, else the capture's last packet. A device that dials
-- again has left its connection, though the capture may not show how.
local function end_of_watch(conversation, trace, dialled_again)
  if conversation.closings[1] then
    return conversation.closings[1].time
  end
  local last = trace.last or conversation.end_time
  if dialled_again and dialled_again > conversation.end_time and dialled_again < last then
    return dialled_again
  end
  return last
end

--- The most that may be claimed from silences in a conversation.
local function cap_of(facts)
  if facts.unseen or facts.cut then
    return "likely"
  end
  for _, part in ipairs({ facts.nonce or false, facts.identity or false, facts.session or false }) do
    if part and part.missing > 0 then
      return "strong"
    end
  end
  return "certain"
end

--- One conversation, brought up to date, with the questions that several rules ask of it. `dialled_again` is the time
-- at which the device began its next connection to this server, or nil.
function Facts.new(conversation, trace, dialled_again)
  local facts = setmetatable({
    conversation = conversation,
    trace = trace,
    nonce = conversation:part("nonce"),
    identity = conversation:part("identity"),
    session = conversation:part("session"),
    device = conversation.sides.device,
    server = conversation.sides.server,
    reached = conversation.reached,
    midway = conversation.midway,
    hello = conversation.hello,
    server_hello = conversation.server_hello,
    update = conversation.watch.update,
    is_spark = conversation.kind == "spark",
    unseen = unseen_end(conversation),
    watched_until = end_of_watch(conversation, trace, dialled_again),
    first_closing = conversation.closings[1],
    cut = false,
  }, Facts)
  for _, hole in ipairs(conversation.holes) do
    facts.cut = facts.cut or hole.reason == "cut"
  end
  facts.cap = cap_of(facts)
  return facts
end

--- The first FIN or RST of that end, or nil.
function Facts:closing(sender)
  for _, closing in ipairs(self.conversation.closings) do
    if closing.sender == sender then
      return closing
    end
  end
  return nil
end

--- Whether the other end acknowledged all that this one is known to have sent. Where the other end was not captured,
-- data that were not repeated count as delivered.
function Facts:delivered(sender)
  local side = self.conversation.sides[sender]
  if self.unseen == PEER[sender] then
    return side.quality.retransmitted == 0
  end
  return side.acked >= side.sent
end

--- Seconds since `time` in which nothing more was seen of what was waited for.
function Facts:waited(time)
  return apart(self.watched_until, time)
end

--- How the attempt ended, as evidence.
function Facts:ending()
  local closing = self.first_closing
  if not closing then
    return saw("The capture ends before either side closes.")
  end
  local how = closing.how == "rst" and "cut the connection off" or "closed"
  return saw("The " .. closing.sender .. " " .. how .. " in " .. packets({ closing.packet }) .. ".", closing.packet)
end

--- What a login that got as far as this one excludes.
function Facts:passed()
  local done, ruled = {}, {}
  for _, kind in ipairs({ "nonce", "identity", "session" }) do
    local part = self[kind]
    if part and part.complete and part.received > 0 then
      done[#done + 1] = part
    end
  end
  if #done > 1 then
    local listed = {}
    for index, part in ipairs(done) do
      listed[index] = part.packet
    end
    ruled[1] = not_it("SPK101", fill(constants.rules.words.RULED_IN_TIME, {
      packets = packets(listed),
      duration = duration(done[#done].time - done[1].first_time),
    }))
  end
  if self.nonce and self.nonce.data then
    local is_random = fill(constants.rules.words.RULED_RANDOM, { packet = number(self.nonce.packet) })
    ruled[#ruled + 1] = not_it("SPK103", is_random)
  end
  return ruled
end

--- The packet at which a finding is best shown: where the first thing seen was complete.
local function shown_at(evidence, conversation)
  for _, item in ipairs(evidence) do
    if item.packets[1] then
      return item.packets[#item.packets]
    end
  end
  return conversation.last_packet
end

--- Make a finding about this conversation. `more` may have: summary, because, ruled_out, severity (where the harm seen
-- is not the usual one), silence (it rests on nothing having come), words (what the usual sentence has in braces).
function Facts:finding(code, confidence, evidence, more)
  more = more or {}
  local spec, conversation = FINDINGS[code], self.conversation
  local words = { server = conversation.server.ip, port = conversation.server.port, mac = "" }
  for name, value in pairs(more.words or {}) do
    words[name] = value
  end
  if more.silence and CONFIDENCE_RANK[self.cap] > CONFIDENCE_RANK[confidence] then
    confidence = self.cap
  end
  return {
    code = code,
    severity = more.severity or spec.severity,
    confidence = confidence,
    summary = more.summary or fill(spec.says, words),
    evidence = evidence,
    because = more.because or "",
    ruled_out = more.ruled_out or {},
    packet = shown_at(evidence, conversation),
    specific = spec.specific,
  }
end

spark.rules = {
  Facts = Facts,
  apart = apart,
  fill = fill,
  saw = saw,
  not_it = not_it,
  is_before = is_before,
  BAD = BAD,
  SENDERS = SENDERS,
  PEER = PEER,
}
end

-- rules_login -----------------------------------------------------------------------------------------------
do
-- SPK101-104 and SPK201-204: does a connection come about, does a Spark server answer on it, and where does the login
-- stop before the server has replied?

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local duration, number, packets, plural, size = wording.duration, wording.number, wording.packets, wording.plural,
  wording.size
local apart, fill, saw, not_it = rules.apart, rules.fill, rules.saw, rules.not_it
local abs, max = math.abs, math.max

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local SMALLEST_FRAME_ON_WIRE = constants.catalogue.SMALLEST_FRAME_ON_WIRE
local DEVICE_READ_LIMIT = constants.catalogue.DEVICE_READ_LIMIT
local AT_ONCE = constants.rules.facts.AT_ONCE / 1e9
local ENOUGH_SYNS = constants.rules.connectivity.ENOUGH_SYNS
local LONE_SYN = constants.rules.connectivity.LONE_SYN / 1e9
local LOST_PATIENCE = constants.rules.connectivity.LOST_PATIENCE / 1e9
local DEAD_PING_AFTER = constants.rules.connectivity.DEAD_PING_AFTER / 1e9
local MIDDLEBOX_HOPS = constants.rules.connectivity.MIDDLEBOX_HOPS
local PROBE = constants.rules.handshake.PROBE / 1e9
local SERVER_PATIENCE = constants.rules.handshake.SERVER_PATIENCE / 1e9
local ENOUGH_SILENCE = constants.rules.handshake.ENOUGH_SILENCE / 1e9
local PIECES_TOLD = constants.rules.handshake.PIECES_TOLD
local IDENTITY_WAIT = constants.rules.handshake.IDENTITY_WAIT / 1e9

local login = {}

-- Connectivity -------------------------------------------------------------------------------------------------------

--- SPK101: SYNs without SYN-ACK or RST.
function login.never_answers(facts)
  local c = facts.conversation
  local first, last = c.syns[1], c.syns[#c.syns]
  if not first or c.syn_ack or c.connected or facts.server.quality.packets > 0 or facts:closing("server") then
    return nil
  end
  -- A further attempt from another port does not end the waiting.
  if c.syn_count < ENOUGH_SYNS and apart(facts.trace.last or c.end_time, first.time) < LONE_SYN then
    return nil
  end
  local asked = plural(c.syn_count, "request") .. " to connect"
  if c.syn_count > 1 then
    asked = asked .. " in " .. duration(last.time - first.time)
  end
  return facts:finding(
    "SPK101",
    c.syn_count >= ENOUGH_SYNS and "strong" or "likely",
    { saw(asked .. ": 0 answers, 0 refusals.", first.packet, last.packet) },
    {
      because = fill(constants.rules.words.BECAUSE_DROPPED, { port = c.server.port }),
      ruled_out = { not_it("SPK102", constants.rules.words.RULED_NO_REFUSAL) },
    }
  )
end

--- SPK102: RST to the SYN, or from the server's side before any byte.
function login.refused(facts)
  local c, reset = facts.conversation, facts.first_closing
  if not reset or reset.sender ~= "server" or reset.how ~= "rst" then
    return nil
  end
  local asked = c.syns[#c.syns]
  if facts.server.sent > 0 or facts.device.sent > 0 or not asked then
    return nil
  end
  local accepted = c.syn_ack or c.connected
  if not accepted then
    return facts:finding("SPK102", "certain", {
      saw("The request to connect of " .. packets({ asked.packet }) .. " is refused in "
        .. packets({ reset.packet }) .. ".", asked.packet, reset.packet),
    }, {
      because = constants.rules.words.BECAUSE_REFUSED,
      ruled_out = { not_it("SPK101", constants.rules.words.RULED_IS_ANSWER) },
    })
  end
  if apart(reset.time, accepted.time) > AT_ONCE then
    return nil
  end
  local evidence = {
    saw("Accepted in " .. packets({ accepted.packet }) .. ", cut off by the server's side in "
      .. packets({ reset.packet }) .. ", before a byte was sent.", accepted.packet, reset.packet),
  }
  if accepted == c.syn_ack and abs(reset.ttl - accepted.ttl) > MIDDLEBOX_HOPS then
    evidence[2] = saw("The reset comes from another machine than the acceptance (time-to-live " .. number(reset.ttl)
      .. " against " .. number(accepted.ttl) .. ").", reset.packet)
  end
  return facts:finding("SPK102", "strong", evidence, { because = constants.rules.words.BECAUSE_CUT_OFF })
end

--- Whether the capture lacks the device's first bytes, so that it is not known who spoke first.
local function is_blind(facts)
  if facts.unseen == "device" then
    return true
  end
  for _, hole in ipairs(facts.conversation.holes) do
    if hole.sender == "device" and hole.offset == 0 then
      return true
    end
  end
  return false
end

--- What greeted in the place of a Spark server, as the subject of a sentence.
local function service_name(kind, opening)
  if kind == "http" then
    local lower = opening:lower()
    if opening:sub(1, 13):find(constants.rules.words.REDIRECTION, 1, true) then
      return constants.rules.words.LOGIN_PAGE
    end
    for _, mark in ipairs(constants.rules.words.LOGIN_MARKS) do
      if lower:find(mark, 1, true) then
        return constants.rules.words.LOGIN_PAGE
      end
    end
  end
  return constants.rules.words.SERVICES[kind] or constants.rules.words.OTHER_SERVICE
end

--- SPK103: text or TLS where the nonce belongs.
function login.something_else(facts)
  local c = facts.conversation
  local opening, first, device_first = facts.server.opening, facts.server.first_data, facts.device.first_data
  local what = constants.rules.words.GREETINGS[c.kind]
  if not what or opening == "" or not first or facts.server.midway then
    return nil
  end
  if spark.request_kind(facts.device.opening) then
    return nil -- a client of that service: SPK801
  end
  if device_first and device_first.time < first.time and not (facts.identity and c.dead_frames[1]) then
    return nil -- the connecting side spoke first, and not as a Spark device: SPK801
  end
  if is_blind(facts) and facts.device.sent ~= IDENTITY_SIZE then
    return nil
  end
  local seen = fill(constants.rules.words.SEEN_INSTEAD, {
    packet = packets({ first.packet }),
    what = what,
    quoted = wording.quote(opening:match("^[^\r\n]+") or opening),
  })
  return facts:finding("SPK103", "certain", {
    saw("P" .. seen:sub(2) .. ". A greeting is " .. number(NONCE_SIZE) .. " random bytes.", first.packet),
  }, {
    because = seen .. ".",
    ruled_out = { not_it("SPK301", constants.rules.words.RULED_NO_SPARK_SERVER) },
    words = { service = service_name(c.kind, opening) },
  })
end

--- Whether the device sent nothing, or nothing but what an early Core sends to a server that never greets: a ping, 15 s
-- after the connection or later (PROTOCOL 9.2).
local function only_pinged(facts)
  local c, device = facts.conversation, facts.device
  if device.sent == 0 or c.dead_frames[1] then
    return true
  end
  return device.first_size == SMALLEST_FRAME_ON_WIRE and device.sent == SMALLEST_FRAME_ON_WIRE
    and apart(device.first_data.time, c.connected.time) > DEAD_PING_AFTER
end

--- SPK104: accepted, and no byte from the server (or only after the device had given up).
function login.silence(facts)
  local c, closing = facts.conversation, facts.first_closing
  if not c.connected or facts.midway or not (c.kind == "empty" or c.kind == "spark") or facts.unseen == "server" then
    return nil
  end
  local waited = facts:waited(c.connected.time)
  local device_left = closing and closing.sender == "device"
  local late = device_left and facts.nonce and closing.time < facts.nonce.first_time
  if (facts.server.sent > 0 and not late) or not only_pinged(facts) then
    return nil
  end
  if closing and closing.how == "rst" and closing.sender == "server" and waited <= AT_ONCE then
    return nil -- SPK102
  end
  if (not closing and waited < DEVICE_READ_LIMIT) or (device_left and waited < LOST_PATIENCE) then
    return nil -- too soon to call it silent
  end
  local evidence = {
    saw("Connected in " .. packets({ c.connected.packet }) .. "; then not one byte from the server in "
      .. duration(waited) .. ".", c.connected.packet),
  }
  if closing then
    evidence[2] = facts:ending()
  end
  return facts:finding("SPK104", "strong", evidence, {
    summary = late and fill(constants.rules.words.SAYS_LATE_GREETING, { server = c.server.ip }) or nil,
    because = late and constants.rules.words.BECAUSE_TOO_SLOW or constants.rules.words.BECAUSE_NO_SERVER,
    ruled_out = {
      not_it("SPK101", constants.rules.words.RULED_ACCEPTED),
      not_it("SPK301", constants.rules.words.RULED_BEFORE_KEYS),
    },
    silence = true,
  })
end

-- Greeting and "who I am" --------------------------------------------------------------------------------------------

local function short_nonce(facts)
  local nonce = facts.nonce
  if not facts.first_closing and facts:waited(nonce.time) < DEVICE_READ_LIMIT then
    return nil
  end
  if (nonce.missing > 0 and not facts.cut) or not facts:delivered("server") then
    return nil -- the rest may be lost
  end
  return facts:finding("SPK201", "strong", {
    saw(size(nonce.sent) .. " of the greeting came in packet " .. number(nonce.packet) .. ", and no more.",
      nonce.packet),
    facts:ending(),
  }, { because = constants.rules.words.BECAUSE_NOT_WHOLE, silence = true, words = { size = nonce.sent } })
end

local function long_nonce(facts)
  local nonce, session, answer = facts.nonce, facts.session, facts.device.first_data
  if nonce.missing > 0 or not session or session.received == 0 or facts.unseen then
    return nil
  end
  if facts.identity and facts.identity.missing > 0 then
    return nil -- the device did answer, in a packet that is not in the capture: nobody knows when
  end
  if answer and answer.time <= session.first_time then
    return nil
  end
  local c = facts.conversation
  local round_trip = c.connected and c.syns[1] and apart(c.connected.time, c.syns[1].time) or 0
  if session.first_packet ~= nonce.packet
    and (session.complete or apart(session.first_time, nonce.time) >= round_trip) then
    return nil -- a reply: two capture points whose clocks differ show the device's answer, before it, too late
  end
  local total = NONCE_SIZE
  for _, cut in ipairs(session.cuts) do
    if not answer or cut[1] < answer.packet then
      total = total + cut[2]
    end
  end
  return facts:finding("SPK201", "strong", {
    saw("The server sent " .. size(total) .. " before the device answered.", nonce.first_packet, session.first_packet),
  }, { because = constants.rules.words.BECAUSE_TOO_LONG, words = { size = total } })
end

--- SPK201: 1-39 bytes, or more than 40 before the device has answered.
function login.wrong_nonce(facts)
  local nonce = facts.nonce
  if not nonce or not facts.is_spark or facts.server.midway or facts.unseen == "server" then
    return nil
  end
  if nonce.complete then
    return long_nonce(facts)
  end
  return short_nonce(facts)
end

--- SPK202: the device never says who it is.
function login.nonce_not_answered(facts)
  local c, nonce, closing = facts.conversation, facts.nonce, facts.first_closing
  if not nonce or not nonce.complete or not facts.is_spark or facts.device.sent > 0 or facts.unseen == "device" then
    return nil
  end
  if facts.session and facts.session.sent > 0 then
    return nil -- SPK201: the server did not wait, or the device's answer is missing from the capture
  end
  local device_left = closing and closing.sender == "device"
  local waited = facts:waited(nonce.time)
  local enough = closing and (device_left and PROBE or SERVER_PATIENCE) or DEVICE_READ_LIMIT
  if waited < enough then
    return nil -- SPK104 if the greeting came when the device had given up; else too soon to call it silent
  end
  local evidence = {
    saw("The greeting came in packet " .. number(nonce.packet) .. "; no byte from the device in " .. duration(waited)
      .. ".", nonce.packet),
    facts:ending(),
  }
  if c.nonce_acked then
    evidence[3] = saw("It did arrive: " .. packets({ c.nonce_acked.packet }) .. " acknowledges it.",
      c.nonce_acked.packet)
  end
  local sure = c.nonce_acked and (not device_left or waited >= ENOUGH_SILENCE)
  return facts:finding("SPK202", sure and "strong" or "likely", evidence, {
    because = constants.rules.words.BECAUSE_DEVICE_HANGS,
    ruled_out = facts:passed(),
    silence = true,
  })
end

--- The packets that brought the identity, with the bytes of each; one that was cut by snaplen is one piece.
local function pieces_of(identity)
  local pieces, place = {}, {}
  for _, cut in ipairs(identity.cuts) do
    local packet = cut[1]
    if not place[packet] then
      pieces[#pieces + 1] = { packet, 0 }
      place[packet] = #pieces
    end
    local piece = pieces[place[packet]]
    piece[2] = piece[2] + cut[2]
  end
  return pieces
end

--- Bytes of the device's answer. A message long after it, to a server that does not reply, is none of it: an early
-- Core pings under a key of its own (PROTOCOL 9.2).
function login.identity_total(facts)
  local total = facts.device.sent
  for _, frame in ipairs(facts.conversation.first_frames) do
    if frame.sender == "device" and (frame.dead or apart(frame.time, facts.identity.time) > AT_ONCE) then
      total = total - frame.size
    end
  end
  return total
end

--- SPK203: the 256 bytes in several packets, or another size, and the server hangs up.
function login.identity_in_pieces(facts)
  local identity, closing = facts.identity, facts:closing("server")
  if not identity or not facts.nonce or not facts.is_spark or facts.session then
    return nil
  end
  if facts.unseen or not closing or (identity.missing > 0 and not identity.complete) then
    return nil
  end
  local pieces, total = pieces_of(identity), login.identity_total(facts)
  local after = apart(closing.time, identity.time)
  local how, because
  if identity.complete and total > IDENTITY_SIZE then
    how, because = constants.rules.words.HOW_OTHER_SIZE, constants.rules.words.BECAUSE_OTHER_SIZE
  elseif not identity.complete and after <= IDENTITY_WAIT then
    how, because = constants.rules.words.HOW_UNFINISHED, constants.rules.words.BECAUSE_NOT_WAITED
  elseif identity.complete and #pieces > 1 and after < AT_ONCE then
    how, because = constants.rules.words.HOW_IN_PIECES, constants.rules.words.BECAUSE_PIECES
  else
    return nil
  end
  local listed, at = {}, {}
  for index = 1, #pieces do
    at[index] = pieces[index][1]
    if index <= PIECES_TOLD then
      listed[index] = plural(pieces[index][2], "byte") .. " in packet " .. number(pieces[index][1])
    end
  end
  return facts:finding("SPK203", "likely", {
    { text = '"Who I am": ' .. table.concat(listed, ", ") .. ".", packets = at },
    saw("The server closed in " .. packets({ closing.packet }) .. " without a reply.", closing.packet),
  }, {
    because = because,
    ruled_out = facts:passed(),
    words = { how = fill(how, { total = number(total), size = IDENTITY_SIZE, pieces = #pieces }) },
  })
end

--- The server neither replies nor closes first: it looks for the device's key, or hangs.
local function no_reply(facts)
  local identity = facts.identity
  local waited = facts:waited(identity.time)
  if waited < ENOUGH_SILENCE or facts.device.acked < IDENTITY_SIZE then
    return nil -- too soon, or it never arrived
  end
  return facts:finding("SPK204", "likely", {
    saw('"Who I am" was whole in packet ' .. number(identity.packet) .. "; nothing from the server in "
      .. duration(waited) .. ".", identity.packet),
    facts:ending(),
  }, {
    summary = constants.rules.words.SAYS_NO_REPLY,
    because = constants.rules.words.BECAUSE_KEY_NOT_ON_FILE,
    ruled_out = facts:passed(),
    silence = true,
  })
end

--- SPK204: the server closes after 256 bytes without a reply, or never says anything more.
function login.refused_identity(facts)
  local identity, closing = facts.identity, facts.first_closing
  if not identity or not identity.complete or facts.session or not facts.is_spark then
    return nil
  end
  if facts.unseen == "server" or not facts.nonce or login.identity_total(facts) > IDENTITY_SIZE then
    return nil
  end
  if not closing or closing.sender == "device" then
    return no_reply(facts)
  end
  if rules.cut_by_limit(facts) then
    return nil -- SPK209: it was not "who I am" that the server refused
  end
  local waited = apart(closing.time, identity.time)
  local at_once = waited <= AT_ONCE
  if at_once and #pieces_of(identity) > 1 then
    return nil -- SPK203
  end
  if not at_once and facts.device.acked < facts.device.sent then
    return nil -- it may not have arrived
  end
  local ruled_out = facts:passed()
  ruled_out[#ruled_out + 1] = not_it("SPK301", constants.rules.words.RULED_KEY_NOT_REACHED)
  return facts:finding("SPK204", at_once and identity.received > 0 and "strong" or "likely", {
    saw('"Who I am" was whole in packet ' .. number(identity.packet) .. "; the server closed in "
      .. packets({ closing.packet }) .. ", " .. duration(max(0, waited)) .. " later, and sent nothing.",
      identity.packet, closing.packet),
  }, {
    because = at_once and constants.rules.words.BECAUSE_REFUSED_IDENTITY
      or constants.rules.words.BECAUSE_KEY_NOT_USABLE,
    ruled_out = ruled_out,
    silence = true,
  })
end

rules.login = login
end

-- rules_reply -----------------------------------------------------------------------------------------------
do
-- SPK205-209: the server has replied. Can the device use it, and does it come in time?

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local duration, number, packets, size = wording.duration, wording.number, wording.packets, wording.size
local apart, fill, saw, not_it = rules.apart, rules.fill, rules.saw, rules.not_it
local abs, max, upper = math.abs, math.max, string.upper

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local DEVICE_READ_LIMIT = constants.catalogue.DEVICE_READ_LIMIT
local SERVER_LOGIN_LIMITS = constants.catalogue.SERVER_LOGIN_LIMITS
local AT_ONCE = constants.rules.facts.AT_ONCE / 1e9
local LATE_HELLO = constants.rules.reply.LATE_HELLO / 1e9
local ROUND_TRIP = constants.rules.reply.ROUND_TRIP / 1e9
local NEARLY = constants.rules.reply.NEARLY
local HELLO_WAIT = constants.recognition.together.HELLO_WAIT
local G2B, G2B_OR_G2C = constants.messages.peers.G2B, constants.messages.peers.G2B_OR_G2C
local DEAD_TOLD = constants.rules.reply.DEAD_TOLD
local REPLY_ENDS = constants.rules.reply.REPLY_ENDS
local SLOW_DEVICE = constants.rules.reply.SLOW_DEVICE / 1e9
local SLOW_SERVER = constants.rules.reply.SLOW_SERVER / 1e9
local SLOW_LOGIN = constants.rules.reply.SLOW_LOGIN / 1e9
local TIMER_SLACK = constants.rules.reply.TIMER_SLACK
local HELLO_SIZES = {}
for _, bytes in ipairs(constants.catalogue.HELLO_FRAMES) do
  HELLO_SIZES[bytes] = true
end

local reply = {}

--- When bytes followed the 384 that cannot begin a message, nil without such bytes.
local function reply_goes_on(facts)
  for _, lost in ipairs(facts.server.lost) do
    if lost.offset == REPLY_ENDS then
      return lost.time
    end
  end
  return nil
end

--- Whether the bytes after the 384 came with them and are no message, so that they belong to the reply.
local function too_long(facts)
  local lost = reply_goes_on(facts)
  return lost and facts.device.frames == 0 and apart(lost, facts.session.time) <= AT_ONCE
end

--- SPK205: another number of bytes than 384.
function reply.wrong_reply(facts)
  local session, identity = facts.session, facts.identity
  if not session or not identity or not facts.is_spark or facts.server.midway or facts.unseen then
    return nil
  end
  if session.first_time < identity.first_time or identity.missing > 0 or not facts.nonce
    or facts.nonce.received == 0 then
    return nil -- it is not known where the reply begins
  end
  if session.complete then
    if not too_long(facts) then
      return nil
    end
  elseif not facts.first_closing and facts:waited(session.time) < DEVICE_READ_LIMIT then
    return nil
  elseif not facts:delivered("server") then
    return nil -- the rest may be lost
  end
  local total = facts.server.sent - NONCE_SIZE
  return facts:finding("SPK205", "strong", {
    saw("The reply in packet " .. number(session.packet) .. " has " .. size(total) .. ".", session.packet),
    facts:ending(),
  }, {
    because = constants.rules.words.BECAUSE_SIZE_OF_KEY,
    ruled_out = facts:passed(),
    silence = not session.complete,
    words = { size = number(total) },
  })
end

--- The device's frames since the reply: those under a dead key, and the first that may be genuine.
local function frames_after_reply(facts)
  local since = facts.session.first_time
  local dead = {}
  for _, frame in ipairs(facts.conversation.dead_frames) do
    if frame.time >= since then
      dead[#dead + 1] = frame
    end
  end
  for _, frame in ipairs(facts.conversation.first_frames) do
    if frame.sender == "device" and not frame.dead and frame.time >= since then
      return dead, frame
    end
  end
  return dead, nil
end

--- Whether the device's silence may mean nothing, or another rule has the word.
local function is_doubtful(facts, live)
  local c, session, device = facts.conversation, facts.session, facts.device
  if device.skipped > 0 or (device.sent > IDENTITY_SIZE and not live) then
    return true -- something came from the device that was not captured whole
  end
  if live and apart(live.time, session.time) < LATE_HELLO then
    return true -- SPK208
  end
  if not c.reply_acked then
    if facts.unseen == "server" or not (facts.unseen == "device" and facts:delivered("server")) then
      return true -- the reply may not have arrived
    end
  end
  if facts.unseen == "device" and facts.midway then
    return true
  end
  local closing = facts.first_closing
  if live then
    return not closing and facts:waited(live.time) < LATE_HELLO
  end
  return (not closing or closing.sender == "server") and facts:waited(session.time) < LATE_HELLO
end

local function server_took_it(facts)
  local because = fill(constants.rules.words.RULED_SERVER_TOOK_IT, { packet = number(facts.session.packet) })
  local ruled_out = facts:passed()
  ruled_out[#ruled_out + 1] = not_it("SPK302", because)
  ruled_out[#ruled_out + 1] = not_it("SPK304", because)
  return ruled_out
end

local function is_dead(frame)
  return saw("Packet " .. number(frame.packet) .. " is " .. wording.with_article(frame.dead) .. ".", frame.packet)
end

--- SPK206 and SPK207: the device cannot use the reply.
function reply.silent_after_reply(facts, findings)
  local session, server = facts.session, facts.server
  if not session or not session.complete or not facts.is_spark then
    return
  end
  if server.sent > REPLY_ENDS and (server.frames > 0 or not server.lost[1]) then
    return -- the server goes on talking: it has had a hello, seen or not
  end
  if reply_goes_on(facts) then
    return -- SPK205
  end
  local dead, live = frames_after_reply(facts)
  if dead[1] then
    local evidence = {}
    for index = 1, #dead < DEAD_TOLD and #dead or DEAD_TOLD do
      evidence[index] = is_dead(dead[index])
    end
    findings[#findings + 1] = facts:finding("SPK207", "certain", evidence, {
      because = constants.rules.words.BECAUSE_CANNOT_USE_IT,
      ruled_out = server_took_it(facts),
    })
  elseif is_doubtful(facts, live) then
    return
  end
  local closing, watched = facts.first_closing, facts:waited(session.time)
  local instead
  if closing and closing.sender == "device" and not dead[1] and not live then
    instead = saw("Instead of a hello the device closed, " .. duration(watched) .. " after the reply ("
      .. packets({ closing.packet }) .. ").", closing.packet)
  else
    instead = facts:ending()
    instead.text = "No hello from the device in " .. duration(watched) .. ". " .. instead.text
  end
  findings[#findings + 1] = facts:finding(
    "SPK206",
    (dead[1] or closing or watched >= DEVICE_READ_LIMIT) and "strong" or "likely",
    {
      saw("Packet " .. number(session.packet) .. ': the server replied to "who I am", so it could read it.',
        session.packet),
      instead,
    },
    { because = constants.rules.words.BECAUSE_OTHER_KEY, ruled_out = server_took_it(facts), silence = true }
  )
end

--- SPK207 where no reply ever came: it proves that the device is not logged in, not why.
function reply.dead_without_reply(facts)
  local frame = facts.conversation.dead_frames[1]
  if not frame or (facts.session and facts.session.complete) then
    return nil
  end
  return facts:finding("SPK207", "certain", { is_dead(frame) }, {
    summary = constants.rules.words.SAYS_NOT_LOGGED_IN,
    severity = "info",
  })
end

--- How long (s) this device waits for the server's hello, at least: the firmware is that of its own hello.
local function patience(facts)
  local secrets = facts.trace.keys and facts.conversation.secrets
  local generation = secrets and secrets.reader and secrets.reader.generation
  if generation == G2B_OR_G2C then
    generation = G2B
  end
  for _, known in ipairs(HELLO_WAIT) do
    if generation and known[1][generation] then
      return max(ROUND_TRIP, known[2] * NEARLY)
    end
  end
  return ROUND_TRIP
end

--- Whether the server's silence after a hello may mean nothing.
local function is_hello_doubtful(facts, hello)
  local closing = facts.first_closing
  local waited = facts:waited(hello.time)
  if facts.session.received == 0 then
    return true -- when the reply came, and so what the device's message is, is not known
  end
  if not closing then
    if waited < LATE_HELLO then
      return true
    end
  elseif closing.sender == "device" then
    if waited < patience(facts) then
      return true
    end
  elseif waited <= AT_ONCE then
    return false
  end
  return facts.device.acked < facts.device.sent
end

--- SPK208: a hello in time, and nothing from the server.
function reply.hello_not_answered(facts)
  local c, session = facts.conversation, facts.session
  local hello = facts.hello
  if not session or not session.complete or not hello or not facts.is_spark or c.dead_frames[1] then
    return nil
  end
  if facts.server.sent > REPLY_ENDS or facts.unseen == "server" or hello.follows_gap then
    return nil
  end
  if apart(hello.time, session.time) >= LATE_HELLO or not HELLO_SIZES[hello.size]
    or is_hello_doubtful(facts, hello) then
    return nil
  end
  local ruled_out = facts:passed()
  ruled_out[#ruled_out + 1] = not_it("SPK207", constants.rules.words.RULED_NOT_DEAD)
  return facts:finding("SPK208", "strong", {
    saw("Packet " .. number(hello.packet) .. ": hello from the device; no message from the server in "
      .. duration(facts:waited(hello.time)) .. ".", hello.packet),
    facts:ending(),
  }, { because = constants.rules.words.BECAUSE_SERVER_AT_FAULT, ruled_out = ruled_out, silence = true })
end

--- The steps of the login that were seen: how long they took (s), from when on that is slow, in words, and the packet.
local function steps_of(facts)
  local nonce, identity, session, hello = facts.nonce, facts.identity, facts.session, facts.hello
  local steps = {}
  if not nonce or not identity or nonce.received == 0 or identity.received == 0 or not identity.complete then
    return steps
  end
  steps[1] = { apart(identity.time, nonce.time), SLOW_DEVICE, constants.rules.words.STEP_IDENTITY, identity.packet }
  if not session or session.received == 0 or not session.complete then
    return steps
  end
  steps[2] = { apart(session.time, identity.time), SLOW_SERVER, constants.rules.words.STEP_REPLY, session.packet }
  if hello then
    steps[3] = { apart(hello.time, session.time), SLOW_DEVICE, constants.rules.words.STEP_HELLO, hello.packet }
  end
  return steps
end

--- The server's limit for a whole login (s) when it ended this attempt and a slow step is the reason, else nil.
function rules.cut_by_limit(facts)
  local c, closing = facts.conversation, facts.first_closing
  if not closing or closing.sender ~= "server" or not c.connected or facts.reached == "established" then
    return nil
  end
  local is_slow = false
  for _, step in ipairs(steps_of(facts)) do
    is_slow = is_slow or step[1] > step[2]
  end
  if not is_slow then
    return nil
  end
  local lasted = apart(closing.time, c.connected.time)
  for _, limit in ipairs(SERVER_LOGIN_LIMITS) do
    if abs(lasted - limit) <= TIMER_SLACK * limit then
      return limit
    end
  end
  return nil
end

--- SPK209: it works, but a timer is near; or the server's timer has cut the login in a slow step.
function reply.slow(facts)
  local steps, limit = steps_of(facts), rules.cut_by_limit(facts)
  if not steps[1] or (facts.reached ~= "established" and not limit) then
    return nil
  end
  local total, slowest, evidence = 0, steps[1], {}
  for _, step in ipairs(steps) do
    total = total + step[1]
    if step[1] / step[2] > slowest[1] / slowest[2] then
      slowest = step
    end
    if step[1] > step[2] then
      local text = fill(step[3], { [""] = duration(step[1]) })
      evidence[#evidence + 1] = saw(upper(text:sub(1, 1)) .. text:sub(2) .. ".", step[4])
    end
  end
  if slowest[1] <= slowest[2] and apart(total, SLOW_LOGIN) <= 0 then
    return nil
  end
  local repeats = facts.device.quality.retransmitted + facts.server.quality.retransmitted > 0
  local slowest_step = fill(slowest[3], { [""] = duration(slowest[1]) })
  local more = { words = { total = duration(total), step = slowest_step } }
  if limit then
    evidence[#evidence + 1] = facts:ending()
    local values = { limit = number(limit), step = slowest_step }
    more.summary = fill(constants.rules.words.SAYS_CUT_BY_LIMIT, values)
    more.because = fill(constants.rules.words.BECAUSE_CUT_BY_LIMIT, values)
    more.severity = "major"
  end
  return facts:finding("SPK209", (repeats or limit) and "likely" or "strong", evidence, more)
end

rules.reply = reply
end

-- rules_session ---------------------------------------------------------------------------------------------
do
-- SPK001, SPK501-508, SPK601, SPK602: how a session goes on, what ends it, and what came after it.

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local duration, number, packets, plural = wording.duration, wording.number, wording.packets, wording.plural
local apart, fill, saw = rules.apart, rules.fill, rules.saw
local PEER, SENDERS = rules.PEER, rules.SENDERS
local max = math.max

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local SESSION_SIZE = constants.catalogue.SESSION_SIZE
local PING_ANSWER_LIMIT = constants.catalogue.PING_ANSWER_LIMIT
local STALL = constants.sessionwatch.STALL / 1e9
local STORM_SHARE = constants.rules.session.STORM_SHARE
local STORM_SEGMENTS = constants.rules.session.STORM_SEGMENTS
local GIVEN_UP_TRIES = constants.rules.session.GIVEN_UP_TRIES
local GIVEN_UP_AFTER = constants.rules.session.GIVEN_UP_AFTER / 1e9
local ASKS = constants.rules.session.ASKS
local REPORTS = constants.rules.session.REPORTS
local ANSWER_SLACK = constants.rules.session.ANSWER_SLACK
local PATIENT = constants.rules.session.PATIENT
local CARRIES_ON = constants.rules.session.CARRIES_ON
local DEAD_SILENCE = constants.rules.device.DEAD_SILENCE / 1e9
local GONE = constants.rules.device.GONE / 1e9
local ANSWERS_A_FIN = constants.rules.device.ANSWERS_A_FIN / 1e9
local OVERLAP = constants.rules.device.OVERLAP / 1e9

local session, device = {}, {}

-- A session ----------------------------------------------------------------------------------------------------------

--- SPK001: login complete, and messages after it.
function session.healthy(facts)
  local c = facts.conversation
  if facts.reached ~= "established" or not facts.is_spark or facts.device.midway or facts.server.midway then
    return nil
  end
  local evidence, answer, watch = {}, facts.server_hello, c.watch
  if answer then
    evidence[1] = saw("Packet " .. number(answer.packet) .. ": a server says hello only after it has opened a hello.",
      answer.packet)
  end
  local legal = not facts.device.lost[1] and not facts.server.lost[1]
  evidence[#evidence + 1] = saw((legal and "All " or "Not all of the ")
    .. plural(facts.device.frames + facts.server.frames, "message") .. " have legal lengths.")
  if watch.pings_answered > 0 then
    evidence[#evidence + 1] = saw("When idle, the device pings and is answered ("
      .. plural(watch.pings_answered, "time") .. ").")
  end
  return facts:finding("SPK001", "strong", evidence, { silence = true })
end

--- Frames of one sender among the last ones that came after a time.
local function frames_after(facts, sender, time)
  local count = 0
  for _, frame in ipairs(facts.conversation.last_frames) do
    if frame.sender == sender and frame.time > time then
      count = count + 1
    end
  end
  return count
end

--- Whether a direction has a hole before an offset.
local function has_hole_before(conversation, sender, offset)
  for _, hole in ipairs(conversation.holes) do
    if hole.sender == sender and hole.offset <= offset then
      return true
    end
  end
  return false
end

--- SPK501: a length that cannot be one, without a hole before it.
function session.framing_lost(facts, findings)
  local c = facts.conversation
  if facts.reached ~= "established" or facts.device.midway or facts.server.midway or not facts.is_spark then
    return
  end
  for _, sender in ipairs(SENDERS) do
    local lost = c.sides[sender].lost[1]
    if lost and lost.offset ~= NONCE_SIZE + SESSION_SIZE and not has_hole_before(c, sender, lost.offset)
      -- Who has lost the framing waits for the rest and says nothing.
      and frames_after(facts, PEER[sender], lost.time) < CARRIES_ON then
      findings[#findings + 1] = facts:finding("SPK501", "strong", {
        saw("Packet " .. number(lost.packet) .. ": a length of " .. number(lost.field) .. " from the " .. sender
          .. ", where a message should begin.", lost.packet),
      }, { words = { packet = number(lost.packet) } })
    end
  end
end

--- SPK503: nothing from the server for 10 s after a ping that TCP delivered.
function session.ping_unanswered(facts)
  local c, server = facts.conversation, facts.server
  local ping, update = c.watch.unanswered, facts.update
  if not ping or not facts.is_spark or facts.unseen or facts.reached ~= "established" then
    return nil
  end
  if update and apart(update.last_time, ping.time) > -STALL then
    return nil -- SPK601, SPK602: in an update the device asks for chunks
  end
  local waited = facts:waited(ping.time)
  if waited < PING_ANSWER_LIMIT * ANSWER_SLACK or facts.device.acked < facts.device.sent then
    return nil -- too soon; or SPK505: it was not even delivered
  end
  if frames_after(facts, "device", ping.time + PING_ANSWER_LIMIT * PATIENT) > 0 then
    return nil -- the device goes on longer than it waits for an answer to a ping: then it was none
  end
  if server.rest > 0 then
    return nil
  end
  for _, hole in ipairs(server.sent > server.captured and c.holes or {}) do
    if hole.sender == "server" and hole.time >= ping.time then
      return nil -- bytes from the server behind the ping are missing
    end
  end
  local evidence = {
    saw("Packet " .. number(ping.packet) .. ": a ping of the device, acknowledged; no message came in "
      .. duration(waited) .. ".", ping.packet),
  }
  local closing = facts.first_closing
  if closing and closing.sender == "device" then
    evidence[2] = saw("The device then hung up (" .. packets({ closing.packet }) .. ").", closing.packet)
  end
  return facts:finding("SPK503", "strong", evidence,
    { because = constants.rules.words.BECAUSE_SERVER_HANGS, silence = true })
end

--- SPK505: data repeated; major only when the connection ended by it.
function session.packets_lost(facts, findings)
  if facts.unseen or not facts.is_spark then
    return
  end
  for _, sender in ipairs(SENDERS) do
    local side = facts.conversation.sides[sender]
    local quality, since = side.quality, side.unacked_since
    local given_up = side.unacked_tries >= GIVEN_UP_TRIES and side.acked < side.sent and since
    if given_up and not facts.first_closing then
      given_up = facts:waited(since.time) >= GIVEN_UP_AFTER
    end
    if given_up then
      findings[#findings + 1] = facts:finding("SPK505", "strong", {
        saw("Data of packet " .. number(since.packet) .. " from the " .. sender .. " was sent "
          .. plural(side.unacked_tries, "time") .. " and never acknowledged.", since.packet),
      }, {
        because = fill(constants.rules.words.BECAUSE_NOTHING_ARRIVES, { sender = sender }),
        words = { sender = sender },
      })
    elseif quality.data_segments >= STORM_SEGMENTS and quality.retransmitted / quality.data_segments > STORM_SHARE then
      findings[#findings + 1] = facts:finding("SPK505", "strong", {
        saw(number(quality.retransmitted) .. " of " .. plural(quality.data_segments, "data packet") .. " from the "
          .. sender .. " are repeats."),
      }, { summary = fill(constants.rules.words.SAYS_SURVIVES, { sender = sender }), severity = "minor" })
    end
  end
end

--- SPK601 and SPK602: an update that stops.
function session.update_fails(facts)
  local update = facts.update
  if not update or not facts.is_spark or facts.unseen then
    return nil
  end
  local words = { chunks = update.chunks }
  if update.asked >= ASKS and update.last_asked then
    local evidence = {
      saw("After the last chunk (packet " .. number(update.last_packet) .. ") the device asked "
        .. plural(update.asked, "time") .. " at intervals of 3 s, and no chunk came any more.", update.first_asked,
        update.last_asked),
    }
    if update.acknowledged >= REPORTS then
      return facts:finding("SPK602", "strong", evidence,
        { because = constants.rules.words.BECAUSE_SERVER_GAVE_UP, silence = true, words = words })
    end
    return facts:finding("SPK601", "strong", evidence, {
      summary = fill(constants.rules.words.SAYS_NO_MORE_CHUNKS, { chunks = plural(update.chunks, "chunk") }),
      because = constants.rules.words.BECAUSE_SERVER_STOPPED,
      silence = true,
    })
  end
  local waited = facts:waited(update.last_time)
  local looks_real = update.begun_packet or update.answered >= update.chunks - 1
  if update.device_since > 0 or update.server_since > 0 or waited < STALL or not looks_real then
    return nil
  end
  return facts:finding("SPK601", "likely", {
    saw("The last chunk is in packet " .. number(update.last_packet) .. "; the device sends nothing in "
      .. duration(waited) .. ".", update.last_packet),
  }, { because = constants.rules.words.BECAUSE_DEVICE_STOPPED, silence = true, words = words })
end

-- What came after it -------------------------------------------------------------------------------------------------

--- One end closes after a long silence of the other, which never answers that either: it was gone.
local function closed_on_nobody(facts)
  local c, closing = facts.conversation, facts.first_closing
  local gone = PEER[closing.sender]
  local last = c.sides[gone].last_any
  if closing.how ~= "fin" or not last or apart(closing.time, last.time) < GONE
    or apart(facts.trace.last or c.end_time, closing.time) < ANSWERS_A_FIN then
    return nil
  end
  return facts:finding("SPK505", "likely", {
    saw("The " .. closing.sender .. " closes in packet " .. number(closing.packet) .. ", "
      .. duration(closing.time - last.time) .. " after the last packet from the " .. gone .. "; the " .. gone
      .. " does not answer that either.", last.packet, closing.packet),
  }, {
    summary = fill(constants.rules.words.SAYS_GOES_DEAD, { sender = gone }),
    because = fill(constants.rules.words.BECAUSE_LOST_LINK, { sender = gone }),
  })
end

--- The device connected anew without having closed this connection: it restarted, lost power or lost its link.
local function came_back(facts, later)
  local c = facts.conversation
  if not later.syns[1] or apart(later.start_time, c.end_time) <= -OVERLAP then
    return nil
  end
  return facts:finding("SPK508", "likely", {
    saw("The connection of packets " .. number(c.first_packet) .. " to " .. number(c.last_packet)
      .. " was never closed; " .. duration(max(0, later.start_time - c.end_time))
      .. " after its last packet the device connects anew (" .. packets({ later.first_packet }) .. ").",
      c.last_packet, later.first_packet),
  }, { summary = constants.rules.words.SAYS_CAME_BACK, severity = "minor" })
end

local function went_silent(facts)
  local c, update = facts.conversation, facts.update
  local quiet = apart(facts.trace.last or c.end_time, c.end_time)
  if quiet < DEAD_SILENCE or (update and update.server_since > 0) then
    return nil -- too short to tell, or the restart after an update
  end
  local last = facts.device.last_any
  return facts:finding("SPK505", "likely", {
    saw("Nobody closed the connection, and no packet of it comes in the last " .. duration(quiet)
      .. " of the capture; a living device pings after 15 s.", last and last.packet),
  }, {
    summary = constants.rules.words.SAYS_NEVER_CLOSED,
    because = fill(constants.rules.words.BECAUSE_LOST_LINK, { sender = "device" }),
  })
end

--- SPK505 and SPK508 of a session that came up and was never closed properly. `later` is the device's next connection,
-- to whatever server, or nil.
function device.left_open(facts, later)
  if facts.reached ~= "established" or not facts.is_spark or facts.unseen then
    return nil
  end
  if facts.first_closing then
    return closed_on_nobody(facts)
  end
  if later then
    return came_back(facts, later)
  end
  return went_silent(facts)
end

rules.running, rules.device = session, device
end

-- rules_capture ---------------------------------------------------------------------------------------------
do
-- SPK701-704, SPK801: what the capture itself allows, and what is not our protocol.

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local number, plural, size = wording.number, wording.plural, wording.size
local fill, saw = rules.fill, rules.saw
local PEER = rules.PEER
local max = math.max

local GAPS_TOLD = constants.rules.capture.GAPS_TOLD

local capture = {}

--- SPK701: no SYN, and the first bytes are not the login.
function capture.begun_midway(facts)
  local c = facts.conversation
  if not facts.midway or not facts.is_spark then
    return nil
  end
  if not (facts.device.midway or facts.server.midway) and facts.nonce then
    return nil -- only the SYN is missing: the login is all there
  end
  local summary
  if facts.session then
    summary = constants.rules.words.SAYS_INSIDE_LOGIN
  elseif facts.device.frames + facts.server.frames == 0 then
    summary = constants.rules.words.SAYS_NOTHING_WHOLE
  end
  return facts:finding("SPK701", "certain", {
    saw("No request to connect; packet " .. number(c.first_packet) .. " is already under way.", c.first_packet),
  }, { summary = summary })
end

--- SPK702: one end's packets are missing altogether.
function capture.one_way(facts)
  local missing = facts.unseen
  if not missing then
    return nil
  end
  local side = facts.conversation.sides[missing]
  local text = "Not one packet from the " .. missing .. " is in the capture"
  if side.acked > 0 or side.sent > 0 then
    text = text .. ", yet " .. size(max(side.acked, side.sent)) .. " of its data were acknowledged"
  end
  return facts:finding("SPK702", "certain", { saw(text .. ".", facts.conversation.first_packet) },
    { words = { sender = PEER[missing] } })
end

--- SPK703: holes and cut packets in this conversation.
function capture.bytes_missing(facts)
  local evidence, count, cut = {}, 0, 0
  for _, hole in ipairs(facts.conversation.holes) do
    if hole.sender ~= facts.unseen then
      count = count + 1
      if hole.reason == "cut" then
        cut = cut + hole.length
      elseif #evidence < GAPS_TOLD then
        local place = hole.before and "after packet " .. number(hole.before) or "at the start"
        local fate = hole.reason
        if fate == "lost" then
          fate = "never acknowledged"
        elseif fate == "not captured" then
          fate = "acknowledged in packet " .. number(hole.packet)
        end
        evidence[#evidence + 1] = saw(size(hole.length) .. " from the " .. hole.sender .. " " .. place .. ": " .. fate
          .. ".", hole.packet)
      end
    end
  end
  if count == 0 then
    return nil
  end
  if cut > 0 then
    evidence[#evidence + 1] = saw("Packets captured short (snaplen): " .. size(cut) .. " are missing.")
  end
  return facts:finding("SPK703", "certain", evidence)
end

--- SPK704: packets that the capture holds twice.
function capture.artefacts(facts)
  local copies = facts.device.quality.copies + facts.server.quality.copies
  if copies == 0 then
    return nil
  end
  return facts:finding("SPK704", "certain", {
    saw(plural(copies, "copy", "copies") .. " of packets already seen; not counted."),
  }, { words = { what = fill(constants.rules.words.TWICE, { packets = plural(copies, "packet") }) } })
end

local function client_began(facts)
  local device_first, server_first = facts.device.first_data, facts.server.first_data
  if spark.request_kind(facts.device.opening) then
    return true -- whatever the order: two capture points may show the answer first
  end
  return device_first and (not server_first or device_first.time < server_first.time)
end

--- SPK801: the connecting side speaks first, or the bytes parse as something else.
function capture.other_protocol(facts)
  local c = facts.conversation
  local first = facts.device.first_data or facts.server.first_data
  if not first then
    return nil
  end
  if c.kind == "coap-tcp" then
    return facts:finding("SPK801", "certain", {
      saw("Both sides begin with a CSM (7.01), and every message parses to its exact end.", first.packet),
    }, { words = { what = constants.rules.words.GENUINE_COAP } })
  end
  local name = constants.rules.words.PROTOCOLS[c.kind]
  if not name or facts.device.opening == "" or not client_began(facts) then
    return nil
  end
  return facts:finding("SPK801", "strong", {
    saw("The connecting side speaks first, with " .. wording.quote(facts.device.opening:sub(1, 16))
      .. "; on a Spark connection the server does.", first.packet),
  }, { words = { what = fill(constants.rules.words.CLIENT_FIRST, { name = name, port = c.server.port }) } })
end

rules.capture = capture
end

-- rules_places ----------------------------------------------------------------------------------------------
do
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
end

-- rules_identity --------------------------------------------------------------------------------------------
do
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
end

-- rules_keys ------------------------------------------------------------------------------------------------
do
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
end

-- rules -----------------------------------------------------------------------------------------------------
do
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
end

-- analysis --------------------------------------------------------------------------------------------------
do
-- The engine's front: packets in, what they complete out, in one step each. It knows nothing of Wireshark.
--
-- What a packet completes is an array of items in stream order, each with `what` and `conversation`:
--   {what = "part", part = a handshake message that is whole}
--   {what = "frame", frame, dead = what a dead-key frame says, opened = what it is after decryption, message}
--   {what = "hole", hole = bytes that the capture does not have}
--   {what = "lost", lost = a place where a length cannot be one}

local constants = spark.constants
local Tracker, Decryption, DeadKeys = spark.Tracker, spark.Decryption, spark.DeadKeys

local DEAD_KEYS = constants.pipeline.DEAD_KEYS

local NOTHING = {} -- what most packets complete; nobody writes into it

local Analysis = {}
Analysis.__index = Analysis

--- Begins an analysis. `options.ports` is the set of the server's TCP ports, `options.keys` a key ring or nil; with
-- `options.in_order` false, what comes behind missing bytes does not wait for them.
--
-- `trace` is what the rules ask of the capture as a whole: first and last (times of packets), keys, conversations,
-- ports. `late`, when set, is called as late(conversation, frame, opened, message) for a frame of an earlier packet
-- that had to wait until it was known which key opens it.
function Analysis.new(options)
  local self = setmetatable({
    late = nil,
    in_order = options.in_order ~= false,
    items = nil, -- what the packet at hand has completed so far
    decryption = nil,
    dead_keys = nil, -- made when needed: captures without such frames need no AES
    told = nil, -- the verdict on a payload that was asked about before its conversation began
    latest = {}, -- the last conversation of each device and server, and of each device
  }, Analysis)
  self.tracker = Tracker.new(options.ports, self)
  self.trace = { keys = options.keys, conversations = self.tracker.conversations, ports = options.ports }
  if options.keys then
    self.decryption = Decryption.new(options.keys)
    self.decryption.late = function(...)
      if self.late then self.late(...) end
    end
  end
  return self
end

--- Takes the next packet's segment, in capture order. Returns its conversation (nil when it belongs to none) and the
-- items; those of a packet that came before another's doubt was settled may be of another conversation.
function Analysis:take(segment)
  local trace, time = self.trace, segment.time
  if trace.first == nil or time < trace.first then trace.first = time end
  if trace.last == nil or time > trace.last then trace.last = time end
  local conversation = self.tracker:take(segment)
  self.told = nil
  local items = self.items
  if items == nil then return conversation, NOTHING end
  self.items = nil
  return conversation, items
end

--- Returns what is to be said of a conversation, as of the packets taken so far.
function Analysis:judge(conversation)
  return spark.judge(conversation, self.trace, conversation.dialled_again)
end

--- Returns the current conversation between these ends, or nil.
function Analysis:conversation_of(source, source_port, target, target_port)
  local flow = self.tracker:flow_of(source, source_port, target, target_port)
  return flow and flow.known[#flow.known]
end

--- Says whose a payload is, before its segment is taken: "spark"; "coap", not ours, and so for the whole conversation;
-- or "later": not ours as far as can be told, ask again.
-- @param conversation that of its ends, or nil
function Analysis:verdict(payload, from_server, conversation)
  if conversation and conversation.verdict then return conversation.verdict end
  local verdict = conversation and conversation.retired and "later" or spark.whose(payload, from_server, conversation)
  if verdict ~= "later" then
    if conversation then conversation.verdict = verdict else self.told = verdict end
  end
  return verdict
end

-- -- what the tracker and the conversations tell -----------------------------------------------------------------

local function add(analysis, item)
  local items = analysis.items
  if items then items[#items + 1] = item else analysis.items = { item } end
end

--- A conversation has begun.
function Analysis:begun(conversation)
  if self.decryption then self.decryption:begin(conversation) end
  conversation.verdict = self.told
  local latest, device, server = self.latest, conversation.device.address, conversation.server
  local before = latest[device]
  if before then before.later = conversation end
  latest[device] = conversation
  local ends = device .. server.address .. server.port
  before = latest[ends]
  if before then before.dialled_again = conversation.start_time end
  latest[ends] = conversation
end

--- A handshake message is whole.
function Analysis:part(conversation, part)
  if self.decryption then self.decryption:handshake(conversation) end
  add(self, { what = "part", part = part, conversation = conversation })
end

--- Bytes are missing.
function Analysis:hole(conversation, hole)
  add(self, { what = "hole", hole = hole, conversation = conversation })
end

--- Framing is lost.
function Analysis:lost(conversation, lost)
  add(self, { what = "lost", lost = lost, conversation = conversation })
end

--- Returns what a dead-key frame says, nil for any other. Only a device that never logged in can send one, so nothing
-- is tried once the server has answered.
local function look_for_dead(analysis, conversation, frame)
  if frame.sender == "server" or conversation.server_hello or frame.ciphertext == nil then return nil end
  local dead_keys = analysis.dead_keys or DeadKeys.new()
  analysis.dead_keys = dead_keys
  local address = conversation.device.address
  if analysis.decryption then
    local session_key, next_iv = analysis.decryption:left_behind(conversation)
    if session_key then dead_keys:remember_session(address, session_key.key, next_iv) end
  end
  local dead = dead_keys:recognise(address, frame.ciphertext)
  return dead and dead.message .. " under " .. DEAD_KEYS[dead.under]
end

--- A frame was cut. Returns what it says when it is a dead-key frame.
function Analysis:frame(conversation, frame)
  local dead = look_for_dead(self, conversation, frame)
  local opened, message
  if self.decryption and not dead then opened, message = self.decryption:frame(conversation, frame) end
  add(self, {
    what = "frame",
    frame = frame,
    conversation = conversation,
    dead = dead,
    opened = opened,
    message = message,
  })
  return dead
end

spark.Analysis = Analysis
end

-- stories ---------------------------------------------------------------------------------------------------
do
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
end

-- Outside Wireshark this file is a library of the parts above.
if rawget(_G, "Proto") == nil then
  return spark
end

-- fields ----------------------------------------------------------------------------------------------------
do
-- What can be filtered on: the protocol, its fields, its expert infos and its preferences.

local constants = spark.constants

local proto = Proto("spark", "Spark Core and Particle Photon cloud protocol")

-- The fields of the interface, and a few beside them. What is worked out and not on the wire is marked generated
-- where it is added.
local field = {
  conversation = ProtoField.uint32("spark.conversation", "Conversation"),
  direction = ProtoField.string("spark.direction", "From"),
  stage = ProtoField.string("spark.stage", "Step"),
  reached = ProtoField.string("spark.reached", "Reached"),
  time_in_step = ProtoField.relative_time("spark.time_in_step", "Since the step before"),
  device_id = ProtoField.string("spark.device_id", "Device id"),
  nonce = ProtoField.bytes("spark.nonce", "Nonce"),
  identity = ProtoField.bytes("spark.identity", "Identity, sealed for the server"),
  session = ProtoField.bytes("spark.session", "Session offer"),
  sealed_key = ProtoField.bytes("spark.session.sealed_key", "Session key, sealed for the device"),
  signature_bytes = ProtoField.bytes("spark.session.signature", "Signature of the server"),
  signature = ProtoField.string("spark.signature", "Signature"),
  key_source = ProtoField.string("spark.key_source", "Opened with"),
  nonce_matches = ProtoField.bool("spark.identity.nonce_matches", "Holds the nonce of this connection"),
  offered_key = ProtoField.string("spark.identity.offered_key", "Public key that the device offers"),
  length = ProtoField.uint16("spark.frame.length", "Length"),
  index = ProtoField.uint32("spark.frame.index", "Number of the frame in its direction"),
  ciphertext = ProtoField.bytes("spark.frame.ciphertext", "Ciphertext"),
  message = ProtoField.string("spark.message", "Message"),
  plaintext = ProtoField.bytes("spark.plaintext", "Plaintext"),
  missing = ProtoField.uint32("spark.missing", "Bytes missing"),
  answers = ProtoField.framenum("spark.answers", "Answers the request in packet", base.NONE, frametype.REQUEST),
  answered = ProtoField.framenum("spark.answered", "Answered in packet", base.NONE, frametype.RESPONSE),
  answer_time = ProtoField.relative_time("spark.answer_time", "Since the request"),
  finding = ProtoField.string("spark.finding", "Finding"),
  severity = ProtoField.string("spark.severity", "Severity"),
  confidence = ProtoField.string("spark.confidence", "Confidence"),
  note = ProtoField.string("spark.note", "Note"),
}

-- The values of messages: one field for each, named after the thing and the value. The messages that tell of a thing:
local THINGS = {
  Hello = "hello",
  Goodbye = "goodbye",
  TimeResponse = "time",
  Event = "event",
  EventAck = "event",
  Subscribe = "subscribe",
  SubscribeAck = "subscribe",
  Describe = "describe",
  DescribeResponse = "describe",
  DescribePost = "describe",
  FunctionCall = "function",
  FunctionCallAck = "function",
  FunctionReturn = "function",
  VariableRequest = "variable",
  VariableRequestAck = "variable",
  VariableValue = "variable",
  Signal = "signal",
  UpdateBegin = "update",
  SaveBegin = "update",
  UpdateReady = "update",
  UpdateAbort = "update",
  UpdateDone = "update",
  UpdateDoneAck = "update",
  Chunk = "chunk",
  ChunkMissed = "chunk",
}
local U, S, B, I, D = ProtoField.uint32, ProtoField.string, ProtoField.bool, ProtoField.int32, ProtoField.double

local function is_whole(value, least, most)
  return type(value) == "number" and value >= least and value <= most and value == math.floor(value)
end

-- What such a field can hold: a value that a strange message gives another form is shown as text.
local HOLDS = {
  [U] = function(value) return is_whole(value, 0, 4294967295) end,
  [I] = function(value) return is_whole(value, -2147483648, 2147483647) end,
  [B] = function(value) return type(value) == "boolean" end,
  [D] = function(value) return type(value) == "number" end,
}
local VALUES = {
  hello = {
    product_id = U, firmware_version = U, flags = U, flag_names = S, platform_id = U, platform = S,
    device_id_length = U, system_version = U, largest_message = U, largest_binary = U, ota_chunk_size = U,
  },
  goodbye = { flags = U, cloud_reason = U, reset_reason = U, sleep_seconds = U, network_reason = U },
  time = { time = U },
  event = { name = S, data = S, ttl = U, scope = S },
  subscribe = { prefix = S, scope = S, device_id = S },
  describe = { flags = U, flag_names = S, functions = S, variables = S, modules = S, metrics = S },
  ["function"] = { name = S, argument = S, arguments = S, return_value = I },
  variable = { name = S, type = S, type_source = S, value = S, number = D },
  signal = { on = B },
  update = {
    flags = U, fast_offered = B, chunk_size = U, file_length = U, store = U, store_name = S, address = U, fast = B,
    reason = U, modules = S,
  },
  chunk = { crc = U, crc_ok = B, index = U, size = U, indexes = S, count = U },
}

local function words(name)
  local text = string.gsub(name, "_", " ")
  return string.upper(string.sub(text, 1, 1)) .. string.sub(text, 2)
end

-- Names in order, so that the file does the same each time it is loaded.
local function sorted(names)
  local list = {}
  for name in pairs(names) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local value_fields, all_fields = {}, {}
for _, name in ipairs(sorted(field)) do all_fields[#all_fields + 1] = field[name] end
for _, thing in ipairs(sorted(VALUES)) do
  value_fields[thing] = {}
  for _, name in ipairs(sorted(VALUES[thing])) do
    local abbreviation = "spark." .. thing .. "." .. name
    local made = VALUES[thing][name](abbreviation, words(thing) .. ": " .. string.gsub(name, "_", " "))
    value_fields[thing][name] = { field = made, is_text = VALUES[thing][name] == S, holds = HOLDS[VALUES[thing][name]] }
    all_fields[#all_fields + 1] = made
  end
end
-- Whatever has no field of its own: "name: value".
field.value = ProtoField.string("spark.value", "Value")
all_fields[#all_fields + 1] = field.value
proto.fields = all_fields

-- One expert info for each finding: Wireshark lists and counts them by this text.
local SEVERITIES = {
  critical = expert.severity.ERROR,
  major = expert.severity.ERROR,
  minor = expert.severity.WARN,
  info = expert.severity.NOTE,
  ok = expert.severity.CHAT,
}
local DECRYPTION = expert.group.DECRYPTION or expert.group.SECURITY
local GROUPS = {
  keys = DECRYPTION,
  session = expert.group.SEQUENCE,
  update = expert.group.SEQUENCE,
  capture = expert.group.REASSEMBLE,
}
local FINDINGS = constants.findings.FINDINGS

-- The same finding can be worse in one conversation than in another, so there is one for each severity.
local experts, all_experts = {}, {}
for _, code in ipairs(sorted(FINDINGS)) do
  local spec = FINDINGS[code]
  for _, severity in ipairs(constants.findings.SEVERITY_ORDER) do
    local abbreviation = "spark.expert." .. string.lower(code) .. "." .. severity
    local group = GROUPS[spec.group] or expert.group.PROTOCOL
    local made = ProtoExpert.new(abbreviation, code .. ": " .. spec.title, group, SEVERITIES[severity])
    experts[code .. severity] = made
    all_experts[#all_experts + 1] = made
  end
end
local note = ProtoExpert.new("spark.expert.note", "A note of the Spark plugin", expert.group.COMMENTS_GROUP,
  expert.severity.NOTE)
local undecrypted = ProtoExpert.new("spark.expert.undecrypted", "Not opened by the keys given", DECRYPTION,
  expert.severity.NOTE)
all_experts[#all_experts + 1] = note
all_experts[#all_experts + 1] = undecrypted
proto.experts = all_experts

local own

--- Returns our dissector as Wireshark knows it: not before all files are loaded.
function spark.own_dissector()
  own = own or Dissector.get("spark")
  return own
end

spark.proto, spark.field = proto, field
spark.value_fields, spark.things = value_fields, THINGS
spark.experts, spark.note_expert, spark.undecrypted_expert = experts, note, undecrypted
end

-- rows ------------------------------------------------------------------------------------------------------
do
-- What a packet shows: its columns and its tree. Everything is drawn from a `row`, made when the packet was first
-- seen, so that every pass and every jump shows the same.

local constants, field, proto = spark.constants, spark.field, spark.proto
local value_fields, things = spark.value_fields, spark.things
local value_text = spark.value_text
local char, format, sub = string.char, string.format, string.sub
local abs, floor, min = math.abs, math.floor, math.min
local concat = table.concat

local SEALED_KEY_SIZE = constants.catalogue.SEALED_KEY_SIZE
local LENGTH_PREFIX = constants.catalogue.LENGTH_PREFIX
local BAD = spark.rules.BAD

-- More texts than these are counted, not shown: a packet of an update can hold dozens of messages.
local TEXTS_IN_COLUMN = 3
-- Messages that are drawn in one packet's tree. The largest segment holds fewer than this many of the smallest.
local MESSAGES_IN_TREE = 4096
-- Bytes of notes that are told in one expert info, which Wireshark cuts: the verdict has them all.
local NOTES_SIZE = 200

local STEPS = {
  nonce = "Nonce (handshake 1/5, random bytes)",
  identity = "Identity (handshake 2/5, who I am, locked for the server)",
  session = "Session offer (handshake 3/5, locked for the device)",
}
local HELLOS = { device = "Hello (handshake 4/5)", server = "Hello (handshake 5/5)" }

local coap = Dissector.get("coap")

-- -- what a row is --------------------------------------------------------------------------------------------------
-- A row is kept for each packet that shows something, so it is small: `conversation`, `sender`, `time_in_step`, its
-- items as the array part; `waiting`, `findings` and `notes` where there are any. An item is one of
--   {part = nonce|identity|session, text, size, identity, offer}
--   {index, length, text, dead, hello, obstacle, name, plaintext, missing}, and by number what a message says besides
--   {text} alone
-- and the first two have `at`, the place of their bytes in the packet, or `bytes` when they came in several.

-- By number, because names cost more than twice the memory, and half of it is names beyond eight.
local VALUES, ORDER, ANSWERS, ANSWER_TIME = 1, 2, 3, 4

local function part_text(part, offer)
  local text = STEPS[part.kind]
  if part.missing and part.missing > 0 then
    return format("%s, %d of %d bytes missing in the capture", text, part.missing, part.size)
  end
  if part.kind ~= "session" or not offer or offer.opened == nil then return text end
  return text .. (offer.opened and ", opened" or ", does not open with the device keys given")
end

--- Puts into an item what a key showed of its frame, at once or when the key was found later.
local function opened_item(item, opened, message)
  local step = HELLOS[item.hello]
  if item.dead then
    item.text = "Dead-key frame: " .. item.dead
  elseif message then
    local text = spark.info(message)
    item.text = step and step .. sub(text, #(message.name or "") + 1) or text
    item.name, item.plaintext = message.name or "?", message.plaintext
    item[VALUES], item[ORDER] = message.values, message.value_order
    item[ANSWERS], item[ANSWER_TIME] = message.answers_packet, message.answer_time
    if message.missing > 0 then item.missing = message.missing end
  elseif opened then
    item.obstacle = opened.obstacle
    item.text = format("Message of %d bytes, does not open (%s)", item.length, opened.obstacle)
  else
    item.text = step and step .. ", encrypted" or format("Encrypted message (%d bytes)", item.length)
  end
  return item
end

--- Makes an item of what the engine completed.
-- @param at where its bytes stand in the packet, nil when they came in several
local function item_of(made, secrets, hello, at)
  if made.what == "part" then
    local part = made.part
    local item = { part = part.kind, sender = part.sender, size = part.size, at = at }
    if not at then item.bytes = part.data end
    if secrets and part.kind == "identity" then item.identity = secrets.identity end
    if secrets and part.kind == "session" then item.offer = secrets.offer end
    item.text = part_text(part, item.offer)
    return item
  elseif made.what == "frame" then
    local frame, item = made.frame
    if made.message then
      -- Room for all that a message says: a table that grows is built anew.
      item = {
        nil, nil, nil, nil, index = frame.index, sender = frame.sender, length = frame.length, at = at, text = nil,
        name = nil, plaintext = nil,
      }
    else
      item = { index = frame.index, sender = frame.sender, length = frame.length, at = at, text = nil }
      if made.dead then item.dead = made.dead end
    end
    if hello then item.hello = hello end
    if not at and frame.ciphertext then
      item.bytes = char(floor(frame.length / 256), frame.length % 256) .. frame.ciphertext
    end
    return opened_item(item, made.opened, made.message)
  elseif made.what == "hole" then
    return { sender = made.hole.sender, text = format("%d bytes missing (%s)", made.hole.length, made.hole.reason) }
  end
  return { text = format("No message can begin here: length %d", made.lost.field) }
end

--- The text of a row's Info column.
local function info(row)
  local count = #row
  if count == 1 and not row.waiting and not row.findings then return row[1].text end
  local texts = {}
  for place = 1, min(count, TEXTS_IN_COLUMN) do texts[place] = row[place].text end
  if count > TEXTS_IN_COLUMN then texts[#texts + 1] = format("+%d more", count - TEXTS_IN_COLUMN) end
  texts[#texts + 1] = row.waiting
  for _, finding in ipairs(row.findings or {}) do
    if BAD[finding.severity] then texts[#texts + 1] = finding.code end
  end
  return concat(texts, " | ")
end

-- -- the tree -------------------------------------------------------------------------------------------------------
-- Most packets are drawn for a list or a filter, and nobody sees their tree: then only what can be filtered on is made.

local visible = false
-- The method of tree items that adds one: looking it up in an item costs as much as calling it.
local put

--- Adds what is worked out and not on the wire.
local function add(tree, of, value)
  local made = put(tree, of, value)
  if visible then made:set_generated() end
end

--- Seconds as Wireshark shows them without an exponent, to the microsecond: what is beyond comes from counting in
-- binary.
local function span(seconds)
  local microseconds = floor(abs(seconds) * 1e6 + 0.5)
  local whole = floor(microseconds / 1e6)
  local rest = floor(microseconds - whole * 1e6) * 1000
  if seconds < 0 then return NSTime.new(-whole, -rest) end
  return NSTime.new(whole, rest)
end

--- The bytes of an item: where they stand in the packet, or put together from several packets in a tab of their own.
local function bytes_of(item, size, tvb, title)
  if item.at and item.at + size <= tvb:len() then return tvb(item.at, size) end
  return item.bytes and ByteArray.new(item.bytes, true):tvb(title)() or nil
end

--- The same for an item whose tree somebody sees, or whose bytes are a field; nil for the others.
local function range_for(item, tvb)
  if item.part then return bytes_of(item, item.size, tvb, "Spark " .. item.part) end
  if visible and item.index then return bytes_of(item, item.length + LENGTH_PREFIX, tvb, "Spark message") end
  return nil
end

local function draw_part(item, tree, range)
  add(tree, field.stage, item.part)
  if range then
    local of = put(tree, field[item.part], range)
    if item.part == "session" then
      put(of, field.sealed_key, range(0, SEALED_KEY_SIZE))
      put(of, field.signature_bytes, range(SEALED_KEY_SIZE))
    end
  end
  local identity, offer = item.identity, item.offer
  if identity then
    if identity.nonce_matches ~= nil then add(tree, field.nonce_matches, identity.nonce_matches) end
    add(tree, field.key_source, identity.opened_by.name)
  elseif offer then
    if offer.opened then
      add(tree, field.key_source, offer.opened_by.name)
    elseif offer.opened == false then
      tree:add_proto_expert_info(spark.undecrypted_expert, "None of the device keys given opens this reply.")
    end
    add(tree, field.signature, offer.signature)
  end
end

local function draw_values(item, tree)
  local of = value_fields[things[item.name]]
  for _, name in ipairs(item[ORDER]) do
    local value = item[VALUES][name]
    if value ~= nil then
      local known = of and of[name]
      if known and known.is_text then
        put(tree, known.field, value_text(value))
      elseif known and known.holds(value) then
        put(tree, known.field, value)
      else
        put(tree, field.value, format("%s: %s", name, value_text(value)))
      end
      if name == "value" and type(value) == "number" and of and of.number then add(tree, of.number.field, value) end
    end
  end
end

local function draw_message(item, tree)
  put(tree, field.message, item.name)
  if item.missing then add(tree, field.missing, item.missing) end
  draw_values(item, tree)
  if item[ANSWERS] then
    add(tree, field.answers, item[ANSWERS])
    add(tree, field.answer_time, span(item[ANSWER_TIME]))
  end
  if item.answered then add(tree, field.answered, item.answered) end
end

--- Puts the plaintext into a tab of its own, and lets Wireshark's own dissector read it: that one shows the options,
-- and makes the coap.* filters work. It is a field of ours only where somebody looks.
local function draw_plaintext(item, tree, pinfo, is_field)
  if item.plaintext == "" then return end
  local plain = ByteArray.new(item.plaintext, true):tvb("Decrypted CoAP")
  if is_field then put(tree, field.plaintext, plain()) end
  if not item.missing then coap:call(plain, pinfo, tree) end
end

local function draw_frame(item, tree, range, pinfo, key_source)
  add(tree, field.stage, item.hello and not item.dead and "hello" or "message")
  -- What it says comes first; how it was wrapped is for those who look further.
  if item.name then draw_message(item, tree) end
  if range then
    put(tree, field.length, range(0, LENGTH_PREFIX))
    put(tree, field.ciphertext, range(LENGTH_PREFIX))
  else
    put(tree, field.length, item.length)
  end
  add(tree, field.index, item.index)
  if item.name then
    if key_source then add(tree, field.key_source, key_source) end
    draw_plaintext(item, tree, pinfo, true)
  elseif item.obstacle then
    tree:add_proto_expert_info(spark.undecrypted_expert, item.text)
  end
end

--- Draws an item into `tree`, which is its own.
local function draw_item(item, tree, range, pinfo, key_source)
  if item.part then
    draw_part(item, tree, range)
  elseif item.index then
    draw_frame(item, tree, range, pinfo, key_source)
  else
    add(tree, field.note, item.text)
  end
end

--- A finding as one paragraph: what it says, how sure that is, and the first reason.
local function finding_text(finding)
  local sure = constants.findings.CONFIDENCE_WORDS[finding.confidence]
  local text = format("%s %s %s.", finding.code, finding.summary, sure)
  local first = finding.evidence and finding.evidence[1]
  return first and text .. " " .. first.text or text
end

local function draw_finding(finding, tree)
  local branch = put(tree, field.finding, finding.code):set_generated()
  if visible then branch:append_text(", " .. constants.findings.FINDINGS[finding.code].title) end
  add(branch, field.severity, finding.severity)
  add(branch, field.confidence, finding.confidence)
  branch:add_proto_expert_info(spark.experts[finding.code .. finding.severity], finding_text(finding))
end

--- All that is wrong with the keys as one text: the first problem, and others while there is room.
local function notes_text(notes)
  local text, place = notes[1], 2
  while notes[place] and #text + #notes[place] < NOTES_SIZE do
    text, place = text .. " | " .. notes[place], place + 1
  end
  local left = #notes - place + 1
  return left > 0 and format("%s | +%d more", text, left) or text
end

local TITLE = "Spark Core cloud protocol"

local function branch_of(parent, range, text)
  if not visible then return put(parent, proto) end
  if range then return put(parent, proto, range, text) end
  return put(parent, proto, text)
end

--- Writes the columns: last, because the CoAP dissector writes its own.
local function write_columns(pinfo, text)
  local columns = pinfo.cols
  columns.protocol = "Spark"
  columns.info = text
end

--- Whether a row is one message whose tree nobody sees and whose fields nobody asks for: most are, when a capture is
-- read. What else a row can hold has to be said all the same: expert infos, bytes put together in a tab.
local function is_unseen(row, root)
  local item = row[1]
  if item == nil or row[2] or not item.index or item.obstacle or row.findings or row.notes then return false end
  return not root:referenced(spark.own_dissector())
end

--- Draws a row into the packet's tree and columns.
local function draw(row, tvb, pinfo, root)
  if is_unseen(row, root) then
    local item = row[1]
    root:add(proto) -- statistics count protocols
    -- Wireshark's own dissector shall not miss a message: it finds out which answers which.
    if item.plaintext then draw_plaintext(item, root, pinfo, false) end
    return write_columns(pinfo, row.waiting and info(row) or item.text)
  end
  visible, put = root.visible, put or root.add
  local conversation, count, text = row.conversation, #row, info(row)
  local range = count == 1 and range_for(row[1], tvb) or nil
  local tree = branch_of(root, range, text ~= "" and TITLE .. ", " .. text or TITLE)
  add(tree, field.conversation, conversation.number)
  -- An acknowledgement can show that bytes of the other end are missing, and complete what lies behind them.
  add(tree, field.direction, count == 1 and row[1].sender or row.sender)
  local device_id, secrets = conversation.device.id, conversation.secrets
  -- The session offer says what opened it. A key that came from elsewhere is named with each message.
  local key_source = secrets and not (secrets.offer and secrets.offer.opened) and secrets.key_source or nil
  if device_id then add(tree, field.device_id, device_id) end
  if row.time_in_step then add(tree, field.time_in_step, span(row.time_in_step)) end
  if count == 1 then
    draw_item(row[1], tree, range, pinfo, key_source)
  else
    for place = 1, min(count, MESSAGES_IN_TREE) do
      local item = row[place]
      range = range_for(item, tvb)
      local branch = branch_of(tree, range, item.text)
      if item.sender and item.sender ~= row.sender then add(branch, field.direction, item.sender) end
      draw_item(item, branch, range, pinfo, key_source)
    end
  end
  if row.waiting then add(tree, field.note, row.waiting) end
  if row.findings then
    for _, finding in ipairs(row.findings) do draw_finding(finding, tree) end
  end
  if row.notes then tree:add_proto_expert_info(spark.note_expert, notes_text(row.notes)) end
  if count > 0 or row.waiting then
    write_columns(pinfo, text)
  elseif text ~= "" then
    pinfo.cols.info:append("  [" .. text .. "]")
  end
end

spark.draw_row, spark.finding_text, spark.item_of, spark.opened_item = draw, finding_text, item_of, opened_item
end

-- dissector -------------------------------------------------------------------------------------------------
do
-- Wireshark's side: what it calls, and when.
--
-- Two dissectors share the work. `proto` is registered for the ports: it claims what is ours, so that Wireshark does
-- not read it as CoAP, and hands back what is not. `watcher` is a post-dissector: it sees every packet of the capture
-- in order, also those that TCP hands to nobody (late, repeated, without data), feeds the engine when a packet comes
-- for the first time, and draws its row each time.

local constants, proto = spark.constants, spark.proto
local read_segment, is_damaged = spark.packets.read_segment, spark.packets.is_damaged
local item_of, HELLO_SIZES = spark.item_of, spark.HELLO_SIZES
local max, sub = math.max, string.sub

local SPARK_PORT = constants.catalogue.SPARK_PORT
local SEQUENCE_SPACE = constants.streams.SEQUENCE_SPACE
local NAME = "SPARK" -- what Wireshark calls our dissector
local TCP_PORTS = 2 -- Wireshark's number for "these ports are TCP's"
local PORTS = 65536
-- Stands where several conversations use the same two ports.
local SEVERAL = {}
-- A pause after which a login that has not come through is looked at again.
local PAUSE = 1
-- Packets of a conversation that are claimed afterwards, once it is known whose it is.
local UNDECIDED = 64
-- Frames of a conversation that do not open and are judged at once; what comes after them says the same.
local JUDGED_FRAMES = 8

local watcher = Proto("spark_packets", "Spark packets")

proto.prefs.about = Pref.statictext(
  "Messages are shown in clear when a key is given; everything else works without.", "")
proto.prefs.device_key = Pref.string("Device key", "",
  "The device's private key: a file (PEM, DER or a dump of the device's memory), or a folder with many")
proto.prefs.server_key = Pref.string("Server key", "",
  "The server's key, a file or a folder: public checks signatures, private tells which device it is")
proto.prefs.keylog = Pref.string("Key log", "",
  "Session keys, as written by: sparkshark decrypt CAPTURE --keys KEYS --keylog-out FILE")
proto.prefs.ports = Pref.range("TCP ports of the server", tostring(SPARK_PORT), "For instance 5683,8883", 65535)
proto.prefs.reassemble_out_of_order = Pref.bool(spark.ORDER_PREFERENCE, true,
  "Off: what comes after a missing segment is shown at once, and the message it belongs to is lost")

-- -- the state of one capture -----------------------------------------------------------------------------------------

local analysis, ring, rows, handed, names, by_ports, lasts, offered
local registered = tostring(SPARK_PORT)
local ports, asked
local told_of_keys = false

--- Reads "5683,8000-8010" as a set.
local function set_of(text)
  local set = {}
  for first, last in string.gmatch(text, "(%d+)%-?(%d*)") do
    first = tonumber(first)
    for port = first, math.min(tonumber(last) or first, 65535) do set[port] = true end
  end
  return set
end

--- Forgets everything: Wireshark calls this before a capture is read, at times twice, and when it is closed.
local function forget()
  analysis, ring = nil, nil
  spark.packets.forget()
  rows, handed, names, by_ports, lasts, offered = {}, {}, {}, {}, nil, {}
  ports, asked = set_of(registered), {}
  told_of_keys = false
end
proto.init = forget
forget()

--- Begins when there is something to do: the keys are read here, so that their files may change between captures.
local function begin()
  ring = spark.KeyRing.load {
    device_key = proto.prefs.device_key,
    server_key = proto.prefs.server_key,
    keylog = proto.prefs.keylog,
  }
  analysis = spark.Analysis.new {
    ports = ports,
    keys = not ring.empty and ring or nil,
    in_order = proto.prefs.reassemble_out_of_order,
  }
  -- Messages that waited until their key was sure: their packets are drawn already, and right the next time.
  analysis.late = function(conversation, frame, opened, message)
    local row = rows[frame.packet]
    for _, item in ipairs(row and row.conversation == conversation and row or {}) do
      if item.index == frame.index and item.sender == frame.sender then spark.opened_item(item, opened, message) end
    end
  end
  return analysis
end

-- -- whose payload is it? --------------------------------------------------------------------------------------------

local tcp_port = DissectorTable.get("tcp.port")
-- Wireshark's own dissector for the port, asked for before it is replaced.
local built_in = tcp_port:get_dissector(SPARK_PORT)

local function flow_name(pinfo)
  return tostring(pinfo.src) .. " " .. pinfo.src_port .. " " .. tostring(pinfo.dst) .. " " .. pinfo.dst_port
end

--- The conversation of these ports, if that is all there is to ask: writing out addresses costs more than all else.
local function conversation_of(pinfo)
  local known = by_ports[pinfo.src_port * PORTS + pinfo.dst_port]
  if known == SEVERAL then known = names[flow_name(pinfo)] end
  return known
end

--- Whether Wireshark's own dissector shall read this payload.
local function is_foreign(tvb, pinfo)
  local conversation = conversation_of(pinfo)
  if conversation and conversation.verdict then return conversation.verdict ~= "spark" end
  local known = analysis or begin()
  local from_server = ports[pinfo.src_port] and not ports[pinfo.dst_port]
  if conversation then from_server = conversation.server_flow == flow_name(pinfo) end
  return known:verdict(tvb:raw(0, tvb:len()), from_server, conversation) ~= "spark"
end

-- The payload that was claimed or handed back last, what else Wireshark gave of the same packet, and its number.
local claimed, behind, claimed_number
-- A row on its way through Wireshark, which lists a finding under the protocol that is being dissected.
local drawn

local function draw_as_spark(tvb, pinfo, tree)
  local row = drawn
  drawn = nil
  spark.draw_row(row, tvb, pinfo, tree)
  return tvb:len()
end

--- Claims the payload, or hands it back for good. The packet is drawn by `watcher`.
function proto.dissector(tvb, pinfo, tree)
  if drawn then return draw_as_spark(tvb, pinfo, tree) end
  local number = pinfo.number
  if not pinfo.visited then
    if claimed_number == number then
      behind = behind .. tvb:raw()
    else
      claimed, behind, claimed_number = tvb, "", number
      if is_foreign(tvb, pinfo) then handed[number] = true end
    end
  end
  -- Without an answer, all of it counts as read: asking for its size would cost more than all of this.
  return handed[number] and built_in and built_in:call(tvb, pinfo, tree) or nil
end

-- -- a packet seen for the first time --------------------------------------------------------------------------------

--- What stands for an address where only its text is known: 16 bytes, like the longest address.
local function stand_in(address)
  return sub(string.rep(" ", 16) .. tostring(address), -16)
end

--- Where in its stream a payload stands that follows all that was seen; how its conversation calls the two ends.
local function following(conversation, name)
  local from_server = conversation.server_flow == name
  local stream = not conversation.retired and conversation.streams[from_server and "server" or "device"]
  local device, server = conversation.device.address, conversation.server.address
  local seq = stream and stream.base and (stream.base + max(stream.next, stream.highest)) % SEQUENCE_SPACE
  return seq or 1, from_server and server or device, from_server and device or server
end

--- The payload without what was handed to Wireshark's own dissector before: that one asks for it again, with more
-- behind it, when it sees the beginning of a message.
local function new_payload(name, number)
  local payload, before = claimed:raw() .. behind, offered[name]
  offered[name] = handed[number] and payload
  if before and sub(payload, 1, #before) == before then return sub(payload, #before + 1) end
  return payload
end

--- Makes a segment of a payload whose header is not among the frame's bytes (decrypted radio, fragments put
-- together): it follows what came before it, because TCP hands on nothing else.
local function follow_on(pinfo)
  if claimed_number ~= pinfo.number then return nil end
  local name = flow_name(pinfo)
  local seq, source, target = 1, stand_in(pinfo.src), stand_in(pinfo.dst)
  if names[name] then seq, source, target = following(names[name], name) end
  local payload = new_payload(name, pinfo.number)
  return {
    source = source,
    target = target,
    source_port = pinfo.src_port,
    target_port = pinfo.dst_port,
    seq = seq,
    ack = 0,
    syn = false,
    fin = false,
    rst = false,
    acks = false,
    length = #payload + claimed:reported_len() - claimed:len(),
    payload = payload,
    window = 0,
  }
end

--- Returns the findings of a conversation that have not been told yet, nil without any. Of one that may still turn out
-- to be genuine CoAP nothing is said. `at_end`, what is surer now than when it was told is told again.
local function untold(conversation, at_end)
  local sides = conversation.sides
  if not conversation.verdict and (sides.device.first_data or sides.server.first_data) then return nil end
  local new
  for _, finding in ipairs(analysis:judge(conversation)) do
    local told = conversation.told[finding.code .. finding.severity]
    if not told or (at_end and told ~= finding.confidence) then
      new = new or {}
      new[#new + 1] = finding
    end
  end
  return new
end

local function notes_on_keys()
  told_of_keys = true
  return ring.problems[1] and ring.problems
end

--- Which hello a frame can be, told by its place and size, or is, told by what it says: its sender; else nil.
local function hello_of(conversation, frame, message)
  if frame.index ~= conversation.sides[frame.sender].early then return nil end
  local session = conversation:part("session")
  if not session or not session.complete then return nil end
  if message then return message.name == "Hello" and frame.sender or nil end
  return (frame.sender == "server" or HELLO_SIZES[frame.size]) and frame.sender or nil
end

--- Where the bytes of what was completed stand in the packet, nil when they came in several.
local function place_of(made, segment, payload_offset, stream_offset)
  if not payload_offset then return nil end
  if made.what == "part" then
    local data = made.part.data
    local place = data and string.find(segment.payload, data, 1, true)
    return place and payload_offset + place - 1
  end
  local frame = made.frame
  if not frame or frame.first_packet ~= segment.number or not stream_offset then return nil end
  return payload_offset + frame.offset - stream_offset
end

--- Whether something happened by which the verdict may have changed.
local function is_news(segment, items, conversation)
  if segment.fin or segment.rst then return true end
  for _, item in ipairs(items) do
    if item.what ~= "frame" or item.dead then return true end
    if item.opened and not item.message then
      conversation.bad_frames = conversation.bad_frames + 1
      if conversation.bad_frames <= JUDGED_FRAMES then return true end
    end
  end
  return segment.time - conversation.heard >= PAUSE and not conversation.settled
end

--- What is known of a conversation for the rows' sake alone.
local function meet(conversation, pinfo, segment)
  local source, target = pinfo.src_port, pinfo.dst_port
  local name = flow_name(pinfo)
  local other = tostring(pinfo.dst) .. " " .. target .. " " .. tostring(pinfo.src) .. " " .. source
  local from_server = conversation:sender_of(segment) == "server"
  for ports_of, flow in pairs({ [source * PORTS + target] = name, [target * PORTS + source] = other }) do
    local known = by_ports[ports_of]
    by_ports[ports_of] = (known == nil or names[flow] == known) and conversation or SEVERAL
    names[flow] = conversation
  end
  conversation.server_flow = from_server and name or other
  if not segment.acks and not segment.syn and segment.ack == 0 then
    -- Made by `follow_on`: what stands for the addresses there is no address.
    conversation.server.ip = tostring(from_server and pinfo.src or pinfo.dst)
    conversation.device.ip = tostring(from_server and pinfo.dst or pinfo.src)
  end
  conversation.told, conversation.bad_frames, conversation.heard = {}, 0, segment.time
  conversation.requests, conversation.handed, conversation.settled = {}, {}, false
end

--- Takes back what was handed to Wireshark's own dissector before it was known whose it is.
local function claim_what_was_handed(conversation)
  for _, number in ipairs(conversation.handed) do handed[number] = nil end
  conversation.handed = {}
end

--- Makes an item of what a packet completed; `at` is where its bytes stand in the packet, or nil.
local function item_at(conversation, made, number, at)
  local frame, message = made.frame, made.message
  local hello = frame and hello_of(conversation, frame, message)
  local item = item_of(made, conversation.secrets, hello, at)
  if message then
    local requests, answered = conversation.requests, message.answers
    requests[message.index] = item
    local request = answered and requests[answered]
    if request then request.answered = request.answered or number end
  end
  return item
end

--- Makes a row with its items. Rows of the common kind are made in one piece, with room for all that is set later:
-- a table that grows is built anew, and a key that is set to nil makes it grow, too.
local function new_row(conversation, items, segment, payload_offset)
  local number, sender, made = segment.number, conversation:sender_of(segment), items[1]
  local frame = made and made.frame
  if frame and items[2] == nil and frame.first_packet == number and frame.size == segment.length then
    -- The payload is one whole frame: nothing is to be looked for.
    local item = item_at(conversation, made, number, payload_offset)
    return { item, conversation = conversation, sender = sender, time_in_step = nil }
  end
  local row = { conversation = conversation, sender = sender, time_in_step = nil }
  local stream_offset = made and payload_offset and conversation:offset_of(segment)
  for place = 1, #items do
    made = items[place]
    row[place] = item_at(conversation, made, number, place_of(made, segment, payload_offset, stream_offset))
  end
  return row
end

--- A packet that was damaged on its way counts as one that was not captured: its receiver has dropped it, too.
local function damaged_row(segment)
  local conversation = analysis
    and analysis:conversation_of(segment.source, segment.source_port, segment.target, segment.target_port)
  if not conversation or conversation.verdict ~= "spark" then return nil end
  local row = { conversation = conversation, sender = conversation:sender_of(segment) }
  row.waiting = "damaged on its way (its checksum is wrong): left out"
  rows[segment.number] = row
  return row
end

--- Feeds a packet to the engine and makes its row, if there is anything to show.
local function take(tvb, pinfo, time, source_port, target_port)
  local number = pinfo.number
  local segment, payload_offset = read_segment(tvb:raw(), tvb:reported_len(), source_port, target_port)
  if not segment then
    segment = follow_on(pinfo)
    if not segment then return nil end
  end
  segment.number, segment.time = number, time
  if payload_offset and is_damaged(segment) then return damaged_row(segment) end
  local conversation, items = (analysis or begin()):take(segment)
  if not conversation then return nil end
  if not conversation.told then meet(conversation, pinfo, segment) end
  lasts, conversation.last_packet_taken = nil, number
  if conversation.verdict == "coap" then return nil end
  local length, row = segment.length, nil
  -- Before the verdict: what a hello is must not depend on when it was last judged.
  if items[1] then row = new_row(conversation, items, segment, payload_offset) end
  local findings
  if is_news(segment, items, conversation) then
    findings = untold(conversation)
    -- As of this packet: windows and rows that are drawn while a capture is read bring `reached` up to date as well,
    -- and what a packet tells must not depend on them.
    conversation.settled = conversation.reached == "established"
  end
  conversation.heard = time
  if not row then
    local waiting = length > 0 and conversation:waiting(conversation:sender_of(segment)) or nil
    if not waiting and not findings then return nil end
    row = new_row(conversation, items, segment, payload_offset)
    row.waiting = waiting
  end
  if findings then
    row.findings = findings
    for _, finding in ipairs(findings) do
      conversation.told[finding.code .. finding.severity] = finding.confidence
    end
  end
  if length > 0 then
    row.time_in_step = time - (conversation.stepped or conversation.start_time)
    conversation.stepped = time
  end
  if not told_of_keys then row.notes = notes_on_keys() end
  rows[number] = row
  if not handed[number] then
    if conversation.handed[1] then claim_what_was_handed(conversation) end
    return row
  end
  local undecided = conversation.handed
  if #undecided < UNDECIDED then undecided[#undecided + 1] = number end
  return nil
end

-- -- drawing -------------------------------------------------------------------------------------------------------

--- Returns the conversation whose last packet this is, as far as packets were taken; nil when it goes on.
local function ended_by(number)
  if not lasts then
    lasts = {}
    for _, conversation in ipairs(analysis and analysis.trace.conversations or {}) do
      if conversation.last_packet_taken then lasts[conversation.last_packet_taken] = conversation end
    end
  end
  return lasts[number]
end

--- A row for what is known only at the end of the capture: silences. It is said at the conversation's last packet.
local function last_word(conversation, row, pinfo)
  local late = conversation.verdict ~= "coap" and untold(conversation, true)
  if not late then return row end
  local sender = conversation.server_flow == flow_name(pinfo) and "server" or "device"
  local whole = { conversation = conversation, sender = sender, findings = {} }
  for name, value in pairs(row or {}) do whole[name] = value end
  local all = {}
  for _, list in ipairs({ whole.findings, late }) do
    for _, finding in ipairs(list) do all[#all + 1] = finding end
  end
  whole.findings = all
  return whole
end

--- Whether this is the port of a server: one of the preference, or one that "Decode As" gives to this protocol.
local function is_server_port(port)
  if ports[port] or asked[port] then return ports[port] end
  asked[port] = true
  local decoder = tcp_port:get_dissector(port)
  ports[port] = decoder and tostring(decoder) == NAME or nil
  return ports[port]
end

function watcher.dissector(tvb, pinfo, tree)
  local row
  if pinfo.visited then
    local number = pinfo.number
    row = rows[number]
    if handed[number] then row = nil end
    local ended = ended_by(number)
    if ended then row = last_word(ended, row, pinfo) end
  else
    local time = pinfo.rel_ts
    if analysis then analysis.trace.last = time end
    if pinfo.port_type ~= TCP_PORTS then return end
    -- Asked for once: each question to Wireshark costs as much as twenty steps of ours.
    local source_port, target_port = pinfo.src_port, pinfo.dst_port
    if not (is_server_port(target_port) or is_server_port(source_port)) then return end
    row = take(tvb, pinfo, time, source_port, target_port)
  end
  if not row then return end
  if row.findings or row.notes then
    drawn = row
    spark.own_dissector():call(tvb, pinfo, tree)
  else
    spark.draw_row(row, tvb, pinfo, tree)
  end
end

register_postdissector(watcher)

-- -- preferences -----------------------------------------------------------------------------------------------------

tcp_port:set(registered, proto)

function proto.prefs_changed()
  local wanted = tostring(proto.prefs.ports)
  if wanted == registered then return end
  -- `set` forgets what was registered before.
  registered = wanted
  tcp_port:set(registered, proto)
end

spark.current = function() return analysis, ring end
end

-- verdict ---------------------------------------------------------------------------------------------------
do
-- The verdict in words: `tshark -q -z spark`, the window under Tools, and the explanation of one finding.

local constants, wording = spark.constants, spark.wording
local format, rep, sub = string.format, string.rep, string.sub
local concat, sort = table.concat, table.sort

local FINDINGS = constants.findings.FINDINGS
local ASIDE_FOR_ALL = constants.report.layout.ASIDE_FOR_ALL
-- The window that Wireshark opens shows 75 columns of 21 lines; tshark's user has 80.
local WIDTH = 72
local LABEL = 13
-- Reasons, and causes with their remedies, that are told; the findings behind them are listed all.
local REASONS, CAUSES = 4, 3
-- Conversations that are named behind a finding.
local NAMED = 8

-- -- lines ----------------------------------------------------------------------------------------------------------

--- Columns that a text takes: the later bytes of a character have no width.
local function width_of(text)
  return select(2, string.gsub(text, "[^\128-\191]", ""))
end

local function padded(text, width)
  return text .. rep(" ", width - width_of(text))
end

--- Breaks a text into lines that hang behind `lead`, with which the first begins. What stands behind two blanks is a
-- command and stays in one piece, so that it can be copied.
local function paragraph(out, lead, text)
  local indent = rep(" ", width_of(lead))
  local line, empty = lead, true
  local function add(word)
    if not empty and width_of(line) + 1 + width_of(word) > WIDTH then
      out[#out + 1], line, empty = line, indent, true
    end
    line, empty = line .. (empty and "" or " ") .. word, false
  end
  local words, command = string.match(text, "^(.-%S)  (%S.*)$")
  for word in string.gmatch(words or text, "%S+") do add(word) end
  if command then add(command) end
  out[#out + 1] = line
end

--- A paragraph behind a label.
local function block(out, label, text)
  paragraph(out, padded(label, LABEL), text)
end

--- Steps with numbers, commands alone on their line, asides without a number.
local function numbered(out, label, steps)
  local count, step = 0, 0
  for _, text in ipairs(steps) do
    if not string.find(text, "^  ") and not string.find(text, "^\194\183 ") then count = count + 1 end
  end
  local deeper = count > 1 and "   " or ""
  for place, text in ipairs(steps) do
    local head = padded(place == 1 and label or "", LABEL)
    if string.find(text, "^  ") then
      -- In one piece, so that it can be copied.
      out[#out + 1] = head .. deeper .. text
    elseif string.find(text, "^\194\183 ") then
      local is_for_all = sub(text, 1, #ASIDE_FOR_ALL) == ASIDE_FOR_ALL
      paragraph(out, head .. (is_for_all and "" or deeper), sub(text, 4))
    elseif count > 1 then
      step = step + 1
      paragraph(out, head .. format("%d. ", step), text)
    else
      paragraph(out, head, text)
    end
  end
end

--- Lays rows of texts out in columns; numbers in `right` (set of places) stand on the right.
local function columns(out, rows, right)
  local widths = {}
  for _, row in ipairs(rows) do
    for place, text in ipairs(row) do widths[place] = math.max(widths[place] or 0, #text) end
  end
  out[#out + 1] = ""
  for _, row in ipairs(rows) do
    local cells = {}
    for place, text in ipairs(row) do
      local blanks = rep(" ", widths[place] - #text)
      cells[place] = right[place] and blanks .. text or text .. blanks
    end
    out[#out + 1] = (string.gsub(concat(cells, "  "), "%s+$", ""))
  end
end

-- -- what is said ---------------------------------------------------------------------------------------------------

--- The stories to tell of: those that fail, or all if none does; one for each cause.
local function causes(verdict)
  local chosen, known, failing = {}, {}, false
  for _, story in ipairs(verdict.stories) do failing = failing or story.mark == "fails" or story.mark == "warns" end
  for _, story in ipairs(verdict.stories) do
    local cause = story.state .. (story.lead and story.lead.finding.code or "")
    if not known[cause] and (not failing or story.mark == "fails" or story.mark == "warns") then
      known[cause] = true
      chosen[#chosen + 1] = story
    end
  end
  return chosen
end

local function say_how_sure_and_what_to_do(out, verdict)
  if verdict.sure == "" and #verdict.stories[1].steps == 0 then return end
  out[#out + 1] = ""
  if verdict.sure ~= "" then block(out, "How sure", verdict.sure) end
  local told, several = 0, #verdict.stories > 1
  for _, story in ipairs(causes(verdict)) do
    if #story.steps > 0 and told < CAUSES then
      told = told + 1
      local label = told == 1 and "Do this" or ""
      if several then
        block(out, label, format("For %s:", story.address))
        label = ""
      end
      numbered(out, label, story.steps)
    end
  end
end

--- The reasons for the first story, each once.
local function say_why(out, verdict)
  local known, told = {}, 0
  for _, entry in ipairs(spark.evidence_of(verdict.stories[1])) do
    for _, evidence in ipairs(entry.finding.evidence) do
      if not known[evidence.text] and told < REASONS then
        if told == 0 then out[#out + 1] = "" end
        known[evidence.text], told = true, told + 1
        block(out, told == 1 and "Why" or "", evidence.text)
      end
    end
  end
end

local function endpoint(of)
  return format(string.find(of.ip, ":", 1, true) and "[%s]:%d" or "%s:%d", of.ip, of.port)
end

local function say_conversations(out, analysis, codes)
  local seen = { { "#", "device", "reached", "frames", "findings" } }
  local ends = { { "#", "id", "server", "kind", "opened" } }
  for place, c in ipairs(analysis.trace.conversations) do
    local name = format("%d", c.number)
    seen[place + 1] = {
      name,
      endpoint(c.device),
      c.reached,
      format("%d", c.sides.device.frames + c.sides.server.frames),
      #codes[c] > 0 and concat(codes[c], " ") or "-",
    }
    ends[place + 1] = {
      name,
      c.device.id or "-",
      endpoint(c.server),
      c.kind,
      c.secrets and format("%d", c.secrets.opened) or "-",
    }
  end
  columns(out, seen, { true, [4] = true })
  columns(out, ends, { true, [5] = true })
end

--- Every finding by its name, with the conversations it is of.
local function say_findings(out, verdict)
  local by_code, order = {}, {}
  for _, story in ipairs(verdict.stories) do
    for _, entry in ipairs(story.findings) do
      local code = entry.finding.code
      if not by_code[code] then
        by_code[code] = { severity = entry.finding.severity, numbers = {} }
        order[#order + 1] = code
      end
      for _, c in ipairs(entry.conversations) do table.insert(by_code[code].numbers, c.number) end
    end
  end
  if #order > 0 then out[#out + 1] = "" end
  for _, code in ipairs(order) do
    local own, names = by_code[code], {}
    sort(own.numbers)
    for place = 1, math.min(#own.numbers, NAMED) do names[place] = format("%d", own.numbers[place]) end
    local more = #own.numbers > NAMED and format(" and %d more", #own.numbers - NAMED) or ""
    block(out, code, format("%s (%s). Conversation%s %s%s.", FINDINGS[code].title, own.severity,
      #own.numbers == 1 and "" or "s", concat(names, ", "), more))
  end
end

local function count(set)
  local number = 0
  for _ in pairs(set) do number = number + 1 end
  return number
end

local function has_keys(ring) return ring ~= nil and not ring.empty end

local function say_keys(out, ring)
  out[#out + 1] = ""
  if has_keys(ring) then
    local parts = {}
    for _, kind in ipairs({
      { #ring.device_private, "private device key" },
      { #ring.server_keys, "server key" },
      { count(ring.logged) + #ring.loose_session_keys, "session key" },
    }) do
      if kind[1] > 0 then parts[#parts + 1] = wording.plural(kind[1], kind[2]) end
    end
    block(out, "Keys", wording.listing(parts) .. ".")
  else
    block(out, "Keys", "None is given. A key opens the messages and makes the verdict surer: Tools > Spark > Keys, or"
      .. " Edit > Preferences > Protocols > SPARK. Paste the path of the device's private key, of a folder, or of a"
      .. " key log.")
  end
  for _, note in ipairs(ring and ring.notes or {}) do block(out, "", note) end
end

--- The whole verdict as text.
local function report()
  local analysis, ring = spark.current()
  local out = {}
  if not analysis or #analysis.trace.conversations == 0 then
    out[1] = constants.report.verdict.NO_TRAFFIC
    paragraph(out, "", format("No TCP packet goes to or comes from port %s. Another port: Edit > Preferences >"
      .. " Protocols > SPARK.", tostring(spark.proto.prefs.ports)))
    return concat(out, "\n") .. "\n"
  end
  local verdict, codes = spark.verdict_of(analysis, has_keys(ring))
  out[1] = verdict.state
  paragraph(out, "", verdict.sentence)
  say_how_sure_and_what_to_do(out, verdict)
  say_why(out, verdict)
  say_conversations(out, analysis, codes)
  say_findings(out, verdict)
  say_keys(out, ring)
  local lead = verdict.stories[1].lead
  local page = lead and lead.finding.code or "capture"
  block(out, "More", "sparkshark analyze CAPTURE; sparkshark explain " .. page)
  return concat(out, "\n") .. "\n"
end

-- -- windows --------------------------------------------------------------------------------------------------------

local function show(title, text)
  local window = TextWindow.new(title)
  window:set(text)
  window:set_editable(false)
  return window
end

local function show_verdict()
  local window = show("Spark: verdict", report())
  window:add_button("Refresh", function() window:set(report()) end)
  window:add_button("Filter findings", function()
    set_filter("spark.finding")
    apply_filter()
  end)
  window:add_button("Copy", function() copy_to_clipboard(window:get_text()) end)
end

local PREFERENCES = { "device_key", "server_key", "keylog" }

local function ask_for_keys()
  new_dialog("Spark: keys", function(...)
    local changed = false
    for place, value in ipairs({ ... }) do
      changed = set_preference("spark." .. PREFERENCES[place], value) or changed
    end
    if changed then
      apply_preferences()
      redissect_packets()
    end
  end, { name = "Device key (file or folder)", value = spark.proto.prefs.device_key },
    { name = "Server key (file or folder)", value = spark.proto.prefs.server_key },
    { name = "Key log (file)", value = spark.proto.prefs.keylog })
end

--- The page of a finding, as `sparkshark explain` has it.
local function explain(code)
  local spec, out, steps = FINDINGS[code], {}, {}
  for place, text in ipairs(spec.fix) do
    steps[place] = wording.fill(text, constants.report.explained.ANY_SERVER)
  end
  paragraph(out, code .. "  ", spec.title)
  out[#out + 1] = ""
  paragraph(out, "", spec.means)
  out[#out + 1] = ""
  block(out, "In packets", spec.looks)
  if spec.led ~= "" then block(out, "LED", spec.led) end
  numbered(out, "Do this", steps)
  for place, other in ipairs(spec.not_it) do
    block(out, place == 1 and "Not this" or "", other[1] .. ": " .. other[2])
  end
  if spec.settle ~= "" then block(out, "Settled by", spec.settle) end
  return concat(out, "\n") .. "\n"
end

local function explain_packet(...)
  local pages = {}
  for _, info in ipairs({ ... }) do
    if info.name == "spark.finding" and FINDINGS[info.value] then pages[#pages + 1] = explain(info.value) end
  end
  if #pages == 0 then
    pages[1] = "No finding is told of in this packet.\nTools > Spark > Verdict has those of the whole capture.\n"
  end
  show("Spark: explanation", concat(pages, "\n"))
end

-- -- statistics -----------------------------------------------------------------------------------------------------

local function statistics()
  local tap = Listener.new("frame")
  local window, is_closed
  function tap.packet() end
  function tap.reset() end
  function tap.draw()
    if is_closed then return end
    if gui_enabled() then
      if not window then
        window = show("Spark: verdict", "")
        -- A closed window cannot be written to.
        window:set_atclose(function() is_closed = true end)
      end
      window:set(report())
    else
      io.stdout:write(report())
    end
  end
  if gui_enabled() then retap_packets() end
end

register_stat_cmd_arg("spark", statistics)
if gui_enabled() then
  register_menu("Spark/Verdict", show_verdict, MENU_TOOLS_UNSORTED)
  register_menu("Spark/Keys", ask_for_keys, MENU_TOOLS_UNSORTED)
  if register_packet_menu then register_packet_menu("Spark/Explain this packet", explain_packet, "spark") end
end

spark.report, spark.explain = report, explain
end
