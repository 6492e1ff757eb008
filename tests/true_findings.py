"""What may be called critical or major in each story, by what is true of it.

`TRUE` has, for each scenario of `analyzer.simulate`, the codes that are true of it without any key, and those that
only keys can prove; `may_claim` says which of them a given set of keys can. SPK204 is the umbrella of what a key tells
apart (SPK302, SPK304, SPK308), as SPK206 and SPK207 are of SPK301, SPK303 and SPK306.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from analyzer.simulate import SCENARIOS

KeySet = Literal[
    "none", "device", "server public", "server private", "all", "registry", "other device's", "other server's"
]
"""Which keys the analysis is given: those of this story, or of a stranger."""
KEY_SETS: Final[tuple[KeySet, ...]] = (
    *("none", "device", "server public", "server private", "all", "registry"),
    *("other device's", "other server's"),
)
STRANGERS: Final[tuple[KeySet, ...]] = ("other device's", "other server's")
"""Keys that nobody in the story holds: what rests on them rests on a premise that does not hold."""


@dataclass(frozen=True, slots=True)
class Truth:
    """``bare`` is true and visible without keys, ``keyed`` is true and needs a key."""

    bare: frozenset[str] = frozenset()
    keyed: frozenset[str] = frozenset()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with any connection of it."""
        return not self.bare and not self.keyed


REFUSED, NOT_USED = {"SPK204"}, {"SPK206", "SPK207"}
UPDATE = {"SPK601", "SPK602"}
WORKING: Final = (
    *("healthy", "healthy-idle", "keepalive-slow", "id-wraps", "ota-complete", "ota-chunk-again"),
    *("split-identity-fine", "slow-hello", "slow-handshake", "planned-reconnects", "dns-fallback-works"),
    *("seq-wrap", "port-reuse", "lossy", "background", "mid-session", "missing-syn", "one-way-device"),
    *("one-way-server", "gap", "gap-in-handshake", "snaplen", "duplicates", "routed-duplicates", "two-interfaces"),
    *("offload", "damaged-copy", "same-nonce-again", "ota-refused-once", "short-capture", "not-enough-time"),
)
"""Stories of which nothing bad is known; in the last two, nothing at all."""
NOT_OURS: Final = (
    *("coap-tcp", "tls-client", "udp-coap", "dtls", "no-spark", "announcements-only", "other-port", "web-port"),
    "encrypted-wifi",
)
"""Captures without a connection of this protocol on its port."""
_FAILING: Final[tuple[tuple[set[str], set[str], tuple[str, ...]], ...]] = (
    (NOT_USED, {"SPK301"}, ("key-mismatch", "dead-key", "old-session-key", "two-devices", "fixed")),
    (NOT_USED, set(), ("snaplen-mismatch",)),  # without the whole reply no key can tell more
    (NOT_USED, {"SPK303"}, ("bad-signature",)),
    (NOT_USED, {"SPK306"}, ("short-integer",)),
    (REFUSED, {"SPK302"}, ("wrong-server-key", "retries")),
    (REFUSED, {"SPK304"}, ("unknown-device", "worked-then-fails", "offers-other-key", "server-closes-late")),
    (REFUSED, {"SPK308"}, ("server-broken",)),
    ({"SPK101"}, set(), ("port-blocked", "blocked-icmp", "dns-second-try", "local-server-blocked")),
    ({"SPK101"}, set(), ("cloud-unreachable", "no-internet")),
    ({"SPK101", "SPK105"}, set(), ("dns-failed", "dns-unanswered")),
    ({"SPK101", "SPK106"}, set(), ("server-moved", "name-astray", "other-than-looked-up")),
    ({"SPK102"}, set(), ("refused", "reset-after-accept")),
    ({"SPK103"}, set(), ("http-portal", "ssh-banner", "tls-service")),
    ({"SPK103", "SPK104"}, set(), ("http-late",)),  # a capture that ends early has the silence alone
    ({"SPK104"}, set(), ("closed-after-accept", "no-nonce", "no-nonce-ping", "late-nonce")),
    ({"SPK201"}, set(), ("short-nonce", "long-nonce")),
    ({"SPK202"}, set(), ("device-silent",)),
    ({"SPK203", "SPK204"}, set(), ("split-identity",)),
    ({"SPK203"}, set(), ("wrong-identity-size",)),
    ({"SPK205"}, set(), ("wrong-reply-size",)),
    ({"SPK208"}, set(), ("hello-unanswered",)),
    ({"SPK208", "SPK210"}, set(), ("reply-played-back",)),
    ({"SPK501"}, set(), ("framing-lost",)),
    (set(), {"SPK501"}, ("wrong-cipher",)),
    (set(), {"SPK502"}, ("bad-counter",)),
    ({"SPK503"}, set(), ("keepalive-lost",)),
    (set(), {"SPK503"}, ("call-unanswered",)),
    ({"SPK504"}, set(), ("timed-out",)),
    ({"SPK505"}, set(), ("reply-lost",)),
    ({"SPK505", "SPK506"}, set(), ("forgotten",)),
    ({"SPK507"}, set(), ("clone",)),
    ({"SPK508"}, set(), ("crash-loop",)),
    (set(), {"SPK509"}, ("event-refused",)),
    (UPDATE, set(), ("ota-gives-up",)),
    ({"SPK601"}, set(), ("ota-stalls", "ota-not-started")),
    (set(), {"SPK601"}, ("ota-refused",)),
    (set(), {"SPK602"}, ("ota-crc-wrong", "ota-flash-fault", "ota-not-taken")),
    ({"SPK603"}, set(), ("ota-too-slow",)),
)
TRUE: Final[dict[str, Truth]] = {name: Truth() for name in (*WORKING, *NOT_OURS)} | {
    name: Truth(frozenset(bare), frozenset(keyed)) for bare, keyed, names in _FAILING for name in names
}

BY_VERDICT: Final[dict[str, Truth]] = {
    "device_key_mismatch": Truth(frozenset(NOT_USED), frozenset({"SPK301"})),
    "bad_server_signature": Truth(frozenset(NOT_USED), frozenset({"SPK303"})),
    "mixed": Truth(frozenset(NOT_USED), frozenset({"SPK301"})),
    "wrong_server_key_on_device": Truth(frozenset(REFUSED), frozenset({"SPK302"})),
    "unknown_device": Truth(frozenset(REFUSED), frozenset({"SPK304"})),
    "no_nonce": Truth(frozenset({"SPK104"})),
    "not_a_spark_cloud": Truth(frozenset({"SPK103"})),
    "port_blocked": Truth(frozenset({"SPK101"})),
    "keepalive_lost": Truth(frozenset({"SPK503"})),
    "ota_failed": Truth(frozenset(UPDATE)),
}
"""The same by the verdict in the truth file of a shipped capture; any other verdict allows no alarm."""

_DEVICE: Final[frozenset[KeySet]] = frozenset({"device", "all"})
_SERVER: Final[frozenset[KeySet]] = frozenset({"server private", "registry", "all"})
PROVES: Final[dict[str, frozenset[KeySet]]] = {
    "SPK301": _DEVICE | _SERVER,  # the server's key shows which key the device offers
    "SPK302": _SERVER | {"server public"},
    "SPK303": _SERVER | {"server public"},
    "SPK304": _SERVER,
    "SPK305": _SERVER,
    "SPK306": _DEVICE,
    "SPK308": _SERVER,
    "SPK501": _DEVICE,
    "SPK502": _DEVICE,
    "SPK503": _DEVICE,
    "SPK509": _DEVICE,
    "SPK601": _DEVICE,
    "SPK602": _DEVICE,
}
"""Which keys can prove what only keys can."""


def may_claim(true: Truth, keys: KeySet) -> frozenset[str]:
    """Return the codes that are right of a story when these keys are at hand."""
    return true.bare | {code for code in true.keyed if keys in PROVES[code]}


def true_code(name: str) -> str | None:
    """Return the code that names the cause of a story best; None where all is well or nothing can be known."""
    truth = TRUE[name]
    return None if truth.healthy else SCENARIOS[name].code
