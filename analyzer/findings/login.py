"""How far the login comes, from sizes and times alone (SPK2xx)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from analyzer.catalogue import (
    DEVICE_READ_LIMIT,
    HELLO_FRAMES,
    HELLO_WAIT,
    IDENTITY_SIZE,
    NONCE_SIZE,
    SEALED_KEY_SIZE,
    SERVER_LOGIN_LIMITS,
    SESSION_SIZE,
    SIGNATURE_SIZE,
    SLOW_DEVICE,
    SLOW_LOGIN,
    SLOW_SERVER,
    SMALLEST_FRAME_ON_WIRE,
)
from analyzer.findings.commands import (
    BUTTONS,
    CLOUD_KEY,
    CLOUD_SERVER_KEY,
    DFU,
    DOCTOR,
    DOCTOR_SENDS,
    NEW_PAIR,
    OWN_KEY,
    OWN_REGISTRY,
    OWN_SERVER,
    OWN_SERVER_KEY,
    PAIR_BY_HAND,
    REGISTER,
    SAFE_MODE,
    SAVE_KEY,
    STORED,
)
from analyzer.findings.model import Act, FindingSpec, Group, Key, LadderStep, Severity
from analyzer.findings.sources import issues, thread
from analyzer.findings.steps import (
    COMMUNITY,
    CONNECTED,
    DEVICE,
    GREETING,
    HELLO,
    HELLO_BACK,
    LEGACY,
    LOGGED_IN,
    LOGIN_SIZES,
    NO_HELLO,
    REPLY,
    REPLY_NOT_USED,
    SERVER,
    SERVER_REFUSES,
    SMALLEST,
    TO_GREETING,
    TO_IDENTITY,
    TO_REPLY,
    WHO_I_AM,
)

_LED_BETWEEN: Final = (
    f"orange: cannot open it · magenta: opened, signature wrong · red: a {DEVICE_READ_LIMIT:.0f} s limit ran out. Colours are"
    " easily confused; do not rely on one."
)
_KEYS_NO_PAIR: Final = (
    "Look at the LED between the cyan flashes: orange agrees, magenta would point to SPK303.",
    DFU,
    DOCTOR,
    DOCTOR_SENDS,
    OWN_SERVER,
)
_WHY_NOT_USED: Final = ("SPK301 keys are no pair (usual)", "SPK306 unlucky key", "SPK303 signature")
_SETTLED_BY: Final = "--device-key FILE tells 301 from 306; with --server-key FILE also 303."
_SETTLES_THE_REPLY: Final = (
    (Key.DEVICE_PRIVATE, "does not open the reply: SPK301; opens it, but not for the firmware: SPK306"),
    (Key.SERVER_PUBLIC, "the signature is another server's: SPK303"),
    (Key.DEVICE_PUBLIC, "the half on file: a number too large for it excludes it"),
    (Key.SERVER_PRIVATE, "the device's ID, on a Photon its public half too"),
)

LOGIN: Final = (
    FindingSpec(
        "SPK201",
        "nonce-wrong-size",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="The greeting has the wrong size",
        short="Broken greeting",
        says=f"The server's greeting has {{size}} bytes instead of {NONCE_SIZE}, so the login cannot begin.",
        of="gets a broken greeting",
        means="The server does not speak this protocol correctly, or its data was cut on the way.",
        looks=f"1 to {NONCE_SIZE - 1} bytes from the server and then nothing, or more than {NONCE_SIZE} before the device has answered.",
        led=f"fast cyan, red after {DEVICE_READ_LIMIT:.0f} s",
        fix=(
            "Own server: check changes to its code, and proxies in front of it that add a line of their own.",
            "  nc {server} {port} | xxd | head",
        ),
        causes=("changed server code", "a proxy that adds bytes", "a connection that breaks"),
        settle="The same capture on the server itself.",
        not_it=(("SPK103", "text instead of random bytes"), ("SPK703", "the capture cut the packet")),
        engineer=f"M1 is exactly {NONCE_SIZE} bytes; two segments that add up to {NONCE_SIZE} are fine.",
        source="DIAGNOSES SPK201",
        ladder=(
            CONNECTED,
            LadderStep(
                Act.BYTES,
                SERVER,
                f"not {NONCE_SIZE} bytes",
                (*range(1, NONCE_SIZE), *range(NONCE_SIZE + 1, 200)),
                label="wrong size",
            ),
            LadderStep(Act.SILENCE, DEVICE, "too little: nothing to answer", sometimes=True),
            replace(WHO_I_AM, note="too much: the rest is misread", sometimes=True),
            LadderStep(Act.CLOSE, note="one of the two gives up", sometimes=True),
        ),
    ),
    FindingSpec(
        "SPK202",
        "nonce-not-answered",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="The device does not answer the greeting",
        short="Device that does not answer",
        says="The server greets the device; the device never says who it is.",
        of="does not answer the server's greeting",
        means="The greeting arrived, and the device has nothing to send: it hangs, or it cannot use the server key"
        " that is stored in it.",
        looks=f"{NONCE_SIZE} bytes from the server, acknowledged; no byte from the device for {DEVICE_READ_LIMIT:.0f} s or until one side closes.",
        led="fast cyan, frozen",
        fix=(
            DFU,
            CLOUD_SERVER_KEY,
            "It writes the cloud's own key back. Own server, instead:",
            OWN_SERVER_KEY,
            "Press reset. Still silent: start in safe mode, to leave the program on the device out of it.",
        ),
        causes=("server-key slot blank or unusable (SPK307)", "program on the device blocks", "Wi-Fi loss"),
        settle="A dump of the device's server-key slot: sparkshark keys FILE",
        not_it=(("SPK702", "the device's direction is not in the capture"),),
        engineer=f"M1 delivered, no M2; the server gives up after {LEGACY} s (old) or {COMMUNITY} s (Brewskey).",
        source="DIAGNOSES SPK202; PROTOCOL 2.6",
        ladder=(
            *TO_GREETING,
            LadderStep(Act.SILENCE, DEVICE, 'no "who I am"'),
            LadderStep(
                Act.CLOSE, SERVER, f"the server gives up: {COMMUNITY} s (community), {LEGACY} s (old)", sometimes=True
            ),
        ),
        keys=((Key.SERVER_PUBLIC, "read out of the device: blank or unusable is SPK307, certainly"),),
        recipes=(CLOUD_KEY, OWN_KEY, STORED, SAFE_MODE, BUTTONS),
        seen_in=(issues("spark-protocol", 2), thread(1130)),
    ),
    FindingSpec(
        "SPK203",
        "identity-split-or-wrong-size",
        Severity.MAJOR,
        Group.HANDSHAKE,
        title='"Who I am" comes in pieces, or in the wrong size',
        short='"Who I am" in pieces',
        says='The device\'s "who I am" {how}, and the server hangs up.',
        of='sends "who I am" in pieces, and the server hangs up',
        means=f"Both open servers read once and decrypt what has arrived by then. When the {IDENTITY_SIZE} bytes come in two"
        " packets, the server may see only the first and hang up, although every key is right.",
        looks=f"The {IDENTITY_SIZE} bytes in several packets, and the server closes within 1 s without a reply; or another size.",
        led="fast cyan with red",
        fix=(
            f"Look for a small MTU, MSS clamping or a tunnel between device and server: {IDENTITY_SIZE} bytes must pass in one"
            " packet.",
            f"Own server: collect {IDENTITY_SIZE} bytes before decrypting.",
            "It is a race: some attempts get through.",
        ),
        causes=(
            "small MTU or MSS",
            "a relay that cuts packets",
            "a server key of another size in the device",
        ),
        settle=f"--server-key with the server's private key: {IDENTITY_SIZE} bytes that open prove that the cut is the cause.",
        not_it=(
            ("SPK703", "the capture lacks a packet"),
            ("SPK302", "the same, but in one packet, and each time"),
        ),
        engineer="M2 over more than one segment, FIN or RST from the server within 1 s, no M3.",
        specific=1,
        source="DIAGNOSES SPK203; PROTOCOL 2.5, 9.1",
        ladder=(
            *TO_GREETING,
            LadderStep(Act.BYTES, DEVICE, "who I am, not in one piece", label="a part"),
            LadderStep(Act.BYTES, DEVICE, "the rest, in a second packet", label="the rest", sometimes=True),
            replace(SERVER_REFUSES, note="the server hangs up, or never replies", sometimes=True),
        ),
        keys=((Key.SERVER_PRIVATE, 'opens the whole of "who I am": the cut is the cause, not a key'),),
    ),
    FindingSpec(
        "SPK204",
        "refused-after-identity",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title='The server hangs up after "who I am"',
        short="Wrong server key, unknown device",
        says="The server reads the device's \"who I am\" and hangs up: the device has another server's key, or the"
        " server does not know this device.",
        of='is refused by the server after "who I am"',
        means="The greeting passed, the device answered, and the server refused the answer. Either it could not"
        " open it, or it opened it and has no (or another) key on file for this device.",
        looks=f"{NONCE_SIZE} and {IDENTITY_SIZE} bytes, then the server closes within 1 s without sending {SESSION_SIZE}.",
        led="fast cyan with a short red burst",
        fix=(
            'Find out which of the two it is. Own server: its log says "decryption failed" (server key) or'
            ' "couldn\'t find key for core" (device).',
            "Server key, the cloud's or an own server's. In DFU mode on USB:",
            CLOUD_SERVER_KEY,
            OWN_SERVER_KEY,
            "Device not known. In DFU mode on USB:",
            DOCTOR,
            DOCTOR_SENDS,
        ),
        causes=(
            "SPK302 the device has another server's key",
            "SPK304 the device is not on file, or with another key",
            "SPK308 the server program is too new or too old",
            "SPK203 the answer came in pieces",
        ),
        settle="--server-key with the server's private key settles it; the public half can exclude a key.",
        not_it=(("SPK102", "closed before any data"), ("SPK206", f"{SESSION_SIZE} bytes were sent")),
        engineer="M2 complete, FIN or RST by the server, no byte of M3.",
        source="DIAGNOSES SPK204; PROTOCOL 2.5",
        ladder=(
            *TO_IDENTITY,
            LadderStep(
                Act.CLOSE,
                SERVER,
                f"no reply: it hangs up at once, or after {COMMUNITY}, {LEGACY} or {SERVER_LOGIN_LIMITS[-1]:.0f} s",
            ),
        ),
        keys=(
            (
                Key.SERVER_PRIVATE,
                '"who I am" does not open: SPK302. It opens: SPK304; SPK308 if every device fails; SPK203 if it came in pieces',
            ),
            (Key.SERVER_PUBLIC, "a number too large for this key: SPK302, certainly. The more attempts, the surer"),
            (Key.DEVICE_PRIVATE, "nothing of this: no reply came that it could open"),
        ),
        recipes=(OWN_KEY, CLOUD_KEY, NEW_PAIR, REGISTER, OWN_REGISTRY, BUTTONS),
        seen_in=(issues("Brewskey", 104, 263, 303), issues("spark-server", 6, 83)),
    ),
    FindingSpec(
        "SPK205",
        "reply-wrong-size",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="The server's reply has the wrong size",
        short="Key of the wrong size",
        says=f"The server's reply has {{size}} bytes instead of {SESSION_SIZE}: a key of the wrong size is on file.",
        of="gets a reply of the wrong size",
        means=f"The reply is one block as large as the device's key and one as large as the server's. Only {SEALED_KEY_SIZE} + {SIGNATURE_SIZE}"
        " fits this protocol.",
        looks=f"Another number of bytes than {SESSION_SIZE} from the server after the device's {IDENTITY_SIZE}.",
        led="red (too short), orange or magenta (too long)",
        fix=(
            "Own server: its key must have 2048 bits, the device's 1024 (RSA):",
            "  openssl rsa -pubin -in DEVICE_ID.pub.pem -text -noout",
            "Replace the key that is not. In DFU mode on USB:",
            DOCTOR,
        ),
        causes=(
            f"{2 * SEALED_KEY_SIZE} bytes: the server's key has 1024 bits",
            f"{2 * SIGNATURE_SIZE}: the device is on file with a 2048-bit key",
            "128, or any other number: the signature is missing",
        ),
        settle="The public key files show their sizes: sparkshark keys FILE",
        not_it=(("SPK703", "the capture lacks a packet"),),
        engineer="M3 = device modulus + server modulus in bytes.",
        source="DIAGNOSES SPK205; PROTOCOL 3.4",
        ladder=(
            *TO_IDENTITY,
            LadderStep(
                Act.BYTES,
                SERVER,
                f"reply, but not {SESSION_SIZE} bytes",
                (SEALED_KEY_SIZE, 2 * SEALED_KEY_SIZE, 2 * SIGNATURE_SIZE),
            ),
            replace(NO_HELLO, sometimes=True),
            LadderStep(Act.CLOSE, note="one of the two gives up", sometimes=True),
        ),
        keys=(
            (Key.SERVER_PUBLIC, "its size: 2048 bits are right"),
            (Key.DEVICE_PUBLIC, "its size: 1024 bits are right"),
        ),
        recipes=(NEW_PAIR, PAIR_BY_HAND, BUTTONS),
    ),
    FindingSpec(
        "SPK206",
        "silent-after-reply",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="The device goes silent after the server's reply",
        short="Reply that cannot be used",
        says="The server accepts the device, but the device cannot use the server's reply, so the login never"
        " finishes.",
        of="cannot use the server's reply",
        means="The server locked its reply with the key on file for this device. The device cannot open it, or does"
        " not accept it. The network, the server's key and the device's ID are right, or no reply would have come.",
        looks=f"{LOGIN_SIZES}, then no message from the device within {HELLO_WAIT:.0f} s.",
        led=_LED_BETWEEN,
        fix=_KEYS_NO_PAIR,
        causes=_WHY_NOT_USED,
        settle=_SETTLED_BY,
        not_it=(
            ("SPK702", "one direction is missing"),
            ("SPK505", "the device never acknowledges the reply: Wi-Fi loss"),
            ("SPK209", "the hello comes, but late"),
            ("SPK204", "there the server does not even reply"),
        ),
        engineer=f"M3 = {SEALED_KEY_SIZE} bytes RSAES-PKCS1-v1_5 for the device + {SIGNATURE_SIZE} bytes signature; no M4.",
        source="DIAGNOSES SPK206; PROTOCOL 2.4 D3, D4",
        ladder=(
            *TO_REPLY,
            NO_HELLO,
            *REPLY_NOT_USED,
        ),
        keys=_SETTLES_THE_REPLY,
        recipes=(SAVE_KEY, NEW_PAIR, REGISTER, OWN_REGISTRY, BUTTONS),
        seen_in=(thread(2662), thread(627)),
    ),
    FindingSpec(
        "SPK207",
        "dead-key-frame",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="A message under a key that nobody agreed on",
        short="Dead-key message",
        says="The server accepts the device, but the device cannot use the server's reply, so the login never"
        " finishes.",
        of="cannot use the server's reply",
        means="Firmware of 2014 goes on talking after a failed login, with whatever key is in its memory: all zero"
        " after power-up, else that of the session before. Seeing one proves that the login failed.",
        looks=f"An {SMALLEST_FRAME_ON_WIRE}-byte frame that opens under the all-zero key (or the previous session's), after the {SESSION_SIZE} bytes"
        ' or in the place of "who I am".',
        led=_LED_BETWEEN,
        fix=_KEYS_NO_PAIR,
        causes=_WHY_NOT_USED,
        settle=_SETTLED_BY,
        not_it=(
            ("SPK001", f"a real hello has {SMALLEST_FRAME_ON_WIRE} bytes too, but the server answers it"),
            ("SPK208", "there the message is a genuine hello, under the session's own key"),
        ),
        engineer="AES-128-CBC under key 0 (or the earlier session's), IV chain continued across reconnects.",
        specific=2,
        source="DIAGNOSES 0.4, SPK207; PROTOCOL 9.2",
        ladder=(
            *TO_REPLY,
            NO_HELLO,
            LadderStep(
                Act.BYTES,
                DEVICE,
                "time request or ping, locked with an all-zero or an old key",
                SMALLEST,
                (0, DEVICE_READ_LIMIT),
            ),
            LadderStep(Act.BYTES, DEVICE, "more of that kind", sometimes=True, label="more bytes"),
            LadderStep(Act.BYTES, DEVICE, "a ping", SMALLEST, (0, DEVICE_READ_LIMIT), sometimes=True),
            REPLY_NOT_USED[-1],
        ),
        keys=_SETTLES_THE_REPLY,
        recipes=(SAVE_KEY, NEW_PAIR, REGISTER, OWN_REGISTRY, BUTTONS),
        seen_in=(thread(2662),),
    ),
    FindingSpec(
        "SPK208",
        "hello-not-answered",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="The device's hello is not answered",
        short="Server that ignores the hello",
        says="The device logs in and says hello, but the server does not say hello back.",
        of="says hello and gets no hello back",
        means="The device has just checked the server's reply, so the keys are right. The server could not read the"
        " hello, lost it, or waits for something else.",
        looks=f"{NONCE_SIZE}, {IDENTITY_SIZE}, {SESSION_SIZE}, then {HELLO_FRAMES[0]} or {HELLO_FRAMES[1]} bytes from the device, and no message from the server.",
        led="fast cyan, then red",
        fix=(
            'Own server: look in its log for "failed to parse hello", "recovering from early data" or'
            ' "Invalid CoAP version", and update it.',
            "Particle cloud: try again later; the device is fine.",
        ),
        causes=("server loses a message that comes too early", "server waits for its database", "server bug"),
        settle="--device-key FILE: a hello that opens proves that the fault is at the server.",
        not_it=(("SPK207", f"a ping under a dead key has {SMALLEST_FRAME_ON_WIRE} bytes too"),),
        engineer="M4 seen, no M5; the device closes after 2 s (to 0.7) or 4 s (0.8+).",
        specific=1,
        source="DIAGNOSES SPK208; PROTOCOL 2.4 D5",
        ladder=(
            *TO_REPLY,
            HELLO,
            LadderStep(Act.SILENCE, SERVER, "no hello back"),
            LadderStep(Act.CLOSE, note="server, or device after 2 s (to 0.7) or 4 s (0.8 on)", sometimes=True),
        ),
        keys=((Key.DEVICE_PRIVATE, "opens the hello: the fault is at the server, certainly"),),
        seen_in=(issues("core-communication-lib", 21), issues("spark-server", 18, 66, 69)),
    ),
    FindingSpec(
        "SPK209",
        "slow-handshake",
        Severity.MINOR,
        Group.HANDSHAKE,
        title="The login works, but slowly",
        short="Slow login",
        says="The login takes {total}: {step}.",
        of="logs in slowly",
        means=f"One step of the login takes so long that a timer may cut it: some servers give up after {SERVER_LOGIN_LIMITS[0]:.0f} s, the"
        f" device after {DEVICE_READ_LIMIT:.0f} s a step.",
        looks=f"More than {SLOW_DEVICE:.0f} s for the device's step, {SLOW_SERVER:.0f} s for the server's, or {SLOW_LOGIN:.0f} s in all.",
        led="long fast cyan, sometimes no success",
        fix=("Improve the Wi-Fi signal at the device, and look at the server's load.",),
        causes=("weak signal", "a busy server"),
        settle="A capture on the server shows which side waits.",
        not_it=(
            ("SPK505", "repeated packets inside the step: the network, not the device"),
            ("SPK206", "there no hello comes at all"),
        ),
        engineer="Times between M1, M2, M3 and M4.",
        source="DIAGNOSES SPK209",
        ladder=(
            *TO_GREETING,
            replace(WHO_I_AM, note=f"slow device: over {SLOW_DEVICE:.0f} s"),
            replace(REPLY, note=f"slow server: over {SLOW_SERVER:.0f} s"),
            HELLO,
            HELLO_BACK,
        ),
        seen_in=(thread(2323),),
    ),
    FindingSpec(
        "SPK210",
        "repeated-login-bytes",
        Severity.MINOR,
        Group.HANDSHAKE,
        title="Login bytes that should never come twice come twice",
        short="Repeated login bytes",
        says="{what} of this login came on another connection before, byte for byte; they should be random each time.",
        of="takes part in a login whose random bytes came before",
        means="The greeting is a random number made for one connection, and the two locked parts are filled up with random"
        " bytes. When one comes again on another connection, it is played back from a recording, it comes from a program"
        " that only imitates a device or a server, or that side's random numbers are none: then session keys can be"
        " guessed.",
        looks=f"The {NONCE_SIZE}, {IDENTITY_SIZE} or {SESSION_SIZE} bytes of one connection again on a later one, whose TCP"
        " sequence numbers differ.",
        fix=(
            "Find out what answers at the server's address: a test program, a proxy, or the server itself?",
            "Own server: look at where its random numbers come from, above all on a small or virtual machine"
            " soon after its start.",
        ),
        causes=("a recorded login is played back", "an emulator with fixed bytes", "a broken source of random numbers"),
        settle="A capture at the server shows which of the two logins it took part in.",
        not_it=(
            ("SPK704", "the capture holds one connection twice: its TCP sequence numbers are the same"),
            ("SPK507", "two devices share an ID; their logins still differ"),
        ),
        engineer="Equal M1, M2 or M3 on two connections with different ISNs that do not overlap, or overlap with different"
        " M2.",
        source="DIAGNOSES 4; PROTOCOL 2.1",
        ladder=(
            replace(LOGGED_IN, note="one connection"),
            replace(GREETING, note="on another one: the same bytes", sometimes=True),
            replace(WHO_I_AM, note="or these", sometimes=True),
            replace(REPLY, note="or these: the same session key", sometimes=True),
        ),
        keys=((Key.SERVER_PRIVATE, "whether the number inside is that of this greeting"),),
    ),
)
