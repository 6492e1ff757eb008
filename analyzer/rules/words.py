"""What the rules say, as far as the report and the Wireshark plugin say it alike.

``BECAUSE_*`` go behind the word of confidence ("Very likely that ..."), ``RULED_*`` say what excludes a look-alike,
``SAYS_*`` take the place of a finding's usual sentence. Names in braces are filled in by the rule.
"""

from __future__ import annotations

from typing import Final

# -- connectivity ------------------------------------------------------------------------------------------------

BECAUSE_DROPPED: Final = (
    "that something on the way drops TCP port {port}. A server that is switched off looks the same."
)
BECAUSE_REFUSED: Final = "that the request to connect is refused."
BECAUSE_CUT_OFF: Final = "that the connection is cut off at once."
BECAUSE_TOO_SLOW: Final = "that the server is too slow: a device waits 20 s."
BECAUSE_NO_SERVER: Final = "that what accepts the connection is no working Spark server."
SAYS_LATE_GREETING: Final = "{server} sends its greeting only after the device has given up waiting for it."
GREETINGS: Final = {"http": "a web page", "tls": "the start of TLS (https)", "ssh": "an SSH banner", "other": "text"}
"""What comes in the place of a greeting, by the kind of the conversation."""
SEEN_INSTEAD: Final = "{packet} is {what}, {quoted}"
RULED_NO_REFUSAL: Final = "a refusal would be in the capture"
RULED_IS_ANSWER: Final = "a refusal is an answer: the way to the server is open"
RULED_NO_SPARK_SERVER: Final = "the device met no Spark server here"
RULED_ACCEPTED: Final = "the connection is accepted"
RULED_BEFORE_KEYS: Final = "keys play no part before the greeting"
RULED_IN_TIME: Final = "{packets} came within {duration}"
RULED_RANDOM: Final = "packet {packet} is random, not text"

# -- login -------------------------------------------------------------------------------------------------------

BECAUSE_NOT_WHOLE: Final = "that the greeting is not whole."
BECAUSE_TOO_LONG: Final = "that the greeting is too long."
BECAUSE_DEVICE_HANGS: Final = "that the device hangs, or cannot use the server key stored in it."
HOW_OTHER_SIZE: Final = "has {total} bytes instead of {size}"
HOW_UNFINISHED: Final = "comes in pieces: {total} of {size} bytes had been sent"
HOW_IN_PIECES: Final = "comes in {pieces} pieces"
BECAUSE_OTHER_SIZE: Final = "that the server key stored in the device has another size than the server's."
BECAUSE_NOT_WAITED: Final = "that the server did not wait for the rest."
BECAUSE_PIECES: Final = "that the pieces are the cause: both open servers read only once."
BECAUSE_REFUSED_IDENTITY: Final = (
    'that the server refused "who I am"; which of the causes it is cannot be seen without a key.'
)
BECAUSE_REFUSED_WITH_KEY: Final = (
    'that the server refused "who I am"; which of the causes it is is not said by that alone.'
)
BECAUSE_KEY_NOT_USABLE: Final = "that the server could not find or use this device's key."
BECAUSE_KEY_NOT_ON_FILE: Final = "that the server waits for a key that is not on file."
SAYS_NO_REPLY: Final = (
    'The server greets the device, takes its "who I am" and never replies: its look-up of the device\'s key hangs, as'
    " old servers do when the key is not on file."
)
RULED_KEY_NOT_REACHED: Final = "the server never came to use the device's key"
BECAUSE_SIZE_OF_KEY: Final = "that a key of the wrong size is on file at the server."
BECAUSE_OTHER_KEY: Final = "because the key on file at the server is not the key inside this device."
BECAUSE_CANNOT_USE_IT: Final = "that it cannot use the reply."
RULED_SERVER_TOOK_IT: Final = "the server would have hung up instead of sending packet {packet}"
SAYS_NOT_LOGGED_IN: Final = "The device sends a message under a key that nobody agreed on: it is not logged in."
BECAUSE_SERVER_AT_FAULT: Final = "that the fault is at the server: the device has just checked its reply."
RULED_NOT_DEAD: Final = "the frame is none that a dead key makes"
STEP_IDENTITY: Final = 'the device takes {} for its "who I am"'
STEP_REPLY: Final = "the server takes {} for its reply"
STEP_HELLO: Final = "the device takes {} for its hello"
SAYS_CUT_BY_LIMIT: Final = "The login takes too long: the server allows {limit} s, and {step}."
BECAUSE_CUT_BY_LIMIT: Final = "that the server's limit of {limit} s for a login cut it."

# -- session -----------------------------------------------------------------------------------------------------

BECAUSE_SERVER_HANGS: Final = "that the server's program hangs: its computer still confirms packets."
BECAUSE_NOTHING_ARRIVES: Final = "that nothing from the {sender} arrives any more."
SAYS_SURVIVES: Final = (
    "Some packets from the {sender} get lost on the way and are sent again; the connection survives it."
)
BECAUSE_DEVICE_STOPPED: Final = "that the device stopped in mid-update."
BECAUSE_SERVER_STOPPED: Final = "that the server stopped in mid-update."
BECAUSE_SERVER_GAVE_UP: Final = "that the server has given up the update."
SAYS_NO_MORE_CHUNKS: Final = (
    "A firmware update stops after {chunks}: the device asks for the next one, and the server sends none."
)
SAYS_GOES_DEAD: Final = "The connection goes dead: nothing comes from the {sender} any more."
SAYS_NEVER_CLOSED: Final = "The connection goes dead without being closed: the device lost its link or its power."
SAYS_CAME_BACK: Final = "The device came back without having closed its connection: it restarted, or lost its link."
BECAUSE_LOST_LINK: Final = "that the {sender} lost its link or its power."

# -- capture -----------------------------------------------------------------------------------------------------

SAYS_INSIDE_LOGIN: Final = "The capture begins inside the login; what is missing of it cannot be judged."
SAYS_NOTHING_WHOLE: Final = (
    "The connection was there when the capture began, and no whole message of it is in the file,"
    " so it cannot be judged."
)
TWICE: Final = "{packets} twice"
GENUINE_COAP: Final = "This is genuine CoAP over TCP (RFC 8323), not a Spark connection. Wireshark shows it rightly."
CLIENT_FIRST: Final = "{name} on port {port}: the connecting side speaks first, which a Spark device never does."
PROTOCOLS: Final = {"tls": "TLS", "http": "HTTP", "other": "Another protocol"}
SERVICES: Final = {"http": "A web server", "tls": "A TLS (https) server", "ssh": "An SSH server"}
LOGIN_PAGE: Final = "A web login page"
OTHER_SERVICE: Final = "Another service"
LOGIN_MARKS: Final = (b"login", b"portal")
REDIRECTION: Final = b" 30"

# -- with keys ---------------------------------------------------------------------------------------------------

RULED_ID_UNREAD: Final = "a server with that key cannot even read the device's ID"
RULED_SERVER_KEY_FITS: Final = '{key} opens "who I am"'
BECAUSE_SIGNED: Final = ": {key} is this server's key, it signed packet {packet}."
BECAUSE_IF_SERVER_KEY: Final = ", if {file} is the key of the server that was called."
BECAUSE_IF_AMONG_SERVER_KEYS: Final = ", if the key of the server that was called is among those given."
BECAUSE_LOCKED_FOR_OTHER: Final = ': "who I am" is locked for {key}, which is not this server\'s key.'
BECAUSE_OPENED_PIECES: Final = "that the pieces are the cause: the keys are right."
BECAUSE_SHOWN: Final = ': the device shows it in "who I am".'
BECAUSE_OTHERS_KEY: Final = "that the device has another server's key: it is so if {server} has {others}."
BECAUSE_UNKNOWN_DEVICE: Final = "that the device is unknown: it is so if {server} has {key}."
BECAUSE_IF_ON_FILE: Final = ", if {file} is what the server has on file."
BECAUSE_ALL_ALIKE: Final = "that the server's program is the cause: all devices fail alike."
SAYS_KNOWN_AND_REFUSED: Final = (
    'The server can read "who I am" and, by the keys given, knows this device; it hangs up all the same.'
)
BECAUSE_KNOWN_AND_REFUSED: Final = "that the server's program is the cause, if {file} is what it has on file."
BECAUSE_NOT_ON_FILE: Final = "that the server has no key, or another one, on file for it."
RULED_REPLY_OPENS: Final = "{key} opens the reply"
BECAUSE_TRUSTS: Final = "the server key in this device is {key}: {how}."
BECAUSE_NOT_LOCKED: Final = '"who I am" was not locked with {key}: it is too large a number for that.'
OPENED_IT: Final = 'it opens "who I am" (packet {packet})'
SIGNED_A_LOGIN: Final = "the device logged in with a reply signed by it (packet {packet})"
PREMISE_ONE_SERVER_KEY: Final = ", if {file} is the server key in this device."
PREMISE_AMONG_SERVER_KEYS: Final = ", if the server key in this device is among those given."
SAYS_LOCKED_FOR_OTHER: Final = "The server locks its reply for {file}; the device has another key."
BECAUSE_OFFERS_OTHER: Final = ", by what the device itself offers."
BECAUSE_OFFERS_THIS: Final = ': the device offers this very key in "who I am".'
BECAUSE_IF_HELD: Final = ", if {file} is what the device holds."
RULED_PAIR: Final = "the two keys are a pair"
BECAUSE_HOLDS_OTHER: Final = (
    "that the device holds another key than {file}: this file opens the reply, and the device cannot. If it was read"
    " out of this very device just now, the device hangs."
)
RULED_READABLE: Final = "the firmware can read {keys}"
BECAUSE_SAYS_ITSELF: Final = ': the device itself says in "who I am" that its key is {key}.'
BECAUSE_LOGGED_IN_WITH: Final = ": the device logged in with {file} (from packet {packet} on)."
BECAUSE_IF_INSIDE: Final = ", if {file} is the key inside this device{check}."
BECAUSE_IF_AMONG: Final = ", if this device's key is among those given."
RULED_SIGNATURE: Final = "the signature opens with {key}"
BECAUSE_OTHER_SERVER: Final = "that another server answers, if {keys} is the server key in this device."
BECAUSE_IDENTITY_UNLIKELY: Final = 'that "who I am" was not locked with {keys}{premise}'
BECAUSE_REPLY_UNLIKELY: Final = "that the reply was not locked with {keys}{premise}"
OWN_KEY: Final = "the device's own key"
PREMISE_OFFERED: Final = ", by the key{key} that the device itself offers."
PREMISE_PUBLIC_HALF: Final = ", if {file} is the public half of the key inside this device."
BECAUSE_HELLO_OPENS: Final = ": the hello opens with {source}, so the keys are right and the server does not answer."
RULED_NO_HELLO: Final = "packet {packet} is no hello of this session"
BECAUSE_BOTH_HELLOS: Final = ": both hellos open with {source}."
BECAUSE_OTHERS_OPEN: Final = ": {source} opens the other messages."
SAYS_OUT_OF_STEP: Final = "A message from the {sender} is damaged or out of step (packet {packet})."
SAYS_NONE_OPENS: Final = "No message from the {sender} opens under the session key."
HANGS_UP_ON_REFUSAL: Final = "most releases of its firmware ({firmware}) hang up on any {code}"
HANGS_UP_ON_LONG: Final = "its firmware ({firmware}) hangs up on arguments of {limit} bytes or more"
