"""SPK302, SPK304, SPK305, SPK308, and the proof of SPK203: the server refused "who I am" (SPK203, SPK204). Why?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from analyzer.catalogue import IDENTITY_SIZE
from analyzer.findings import Confidence, Evidence, Finding, NotChecked, RuledOut
from analyzer.rules import words
from analyzer.rules.facts import AT_ONCE, Facts
from analyzer.rules.handshake import identity_total
from analyzer.rules.keys.places import MOST_TESTED, Places, file_of, is_registry, name, named_in_registry, names
from analyzer.streams import Sender
from analyzer.wording import number, plural

if TYPE_CHECKING:
    from analyzer.keys import Key, KeyRing
    from analyzer.opened import Secrets
    from analyzer.session import Identity

REFUSED: Final = ("SPK203", "SPK204")

Said = Iterator[Finding | NotChecked]


def identity_refused(facts: Facts, keys: KeyRing, secrets: Secrets, places: Places, own: list[Finding]) -> Said:
    """Say why, where the rules without keys have found that the server refused the identity."""
    identity = facts.identity
    if identity is None or not identity.complete or not any(f.code in REFUSED for f in own):
        return
    if identity_total(facts) > IDENTITY_SIZE:
        return  # SPK203: no key of this size has locked it, so what one makes of its first 256 bytes means nothing
    where = f'"Who I am" (packet {number(identity.packet)})'
    if identity.data is None:
        yield facts.not_checked("SPK302", f"{where} is not whole in the capture, so no key can be tried on it.")
        return
    case = _Refusal(facts, keys, secrets, places)
    for finding in own:
        if finding.because == words.BECAUSE_REFUSED_IDENTITY:
            finding.because = words.BECAUSE_REFUSED_WITH_KEY
    if not keys.server_private:
        yield from case.by_range()
    elif secrets.identity is None:
        yield from case.not_opened()
    elif secrets.identity.nonce_matches is False:
        yield facts.not_checked(
            "SPK304",
            f"{where} opens with {name(secrets.identity.opened_by)}, but answers another greeting than this one: a"
            " replay, or two connections taken for one. No key can tell more.",
        )
    else:
        yield from case.opened(secrets.identity, own)


class _Refusal:
    """One "who I am" that a server refused, with the keys at hand."""

    def __init__(self, facts: Facts, keys: KeyRing, secrets: Secrets, places: Places) -> None:
        assert facts.identity is not None  # noqa: S101 - the caller has looked
        self.facts, self.keys, self.places = facts, keys, places
        self.part = facts.identity
        self.c = facts.conversation
        self.secrets = secrets
        self.signs = places.signs(self.c)

    # -- it does not open ----------------------------------------------------------------------------------------

    def not_opened(self) -> Said:
        """None of the private server keys opens it."""
        private = self.keys.server_private
        given = names(private, "server key")
        mine = [key for key in private if key.n in self.signs]
        if self.signs and not mine:
            packet = next(iter(self.signs.values()))
            yield self.facts.not_checked(
                "SPK302",
                f"Which of the causes it is: {given} {'is' if len(private) == 1 else 'are'} not this server's key,"
                f" which signed packet {number(packet)}; only this server's private key opens packet"
                f" {number(self.part.packet)}. Add --server-key FILE.",
            )
            return
        if mine:
            because = words.BECAUSE_SIGNED.format(key=name(mine[0]), packet=number(self.signs[mine[0].n]))
        elif len(private) == 1:
            because = words.BECAUSE_IF_SERVER_KEY.format(file=file_of(private[0]))
        else:
            because = words.BECAUSE_IF_AMONG_SERVER_KEYS
        yield self.facts.finding(
            "SPK302",
            Confidence.CERTAIN,
            Evidence(
                f"Packet {number(self.part.packet)}: the {IDENTITY_SIZE} bytes do not open with {given}.",
                (self.part.packet,),
            ),
            because=because,
            ruled_out=(RuledOut("SPK304", words.RULED_ID_UNREAD),),
        )

    def by_range(self) -> Said:
        """Public server keys exclude themselves when a block is not below their modulus (PROTOCOL 3.3)."""
        keys = self.keys.server_keys
        if keys and len(keys) <= MOST_TESTED:
            tests = [(self.places.identity_test(self.c, key), key) for key in keys]
            if all(test.excluded or test.unlikely for test, _ in tests):
                test, key = tests[0]
                sure = all(test.excluded for test, _ in tests)
                one = len(keys) == 1
                premise = (
                    words.BECAUSE_IF_SERVER_KEY.format(file=file_of(key)) if one else words.BECAUSE_IF_AMONG_SERVER_KEYS
                )
                which = names(keys, "server key")
                yield self.facts.finding(
                    "SPK302",
                    Confidence.CERTAIN if sure else Confidence.STRONG,
                    Evidence(
                        f"{plural(test.count, 'attempt')} of this device: "
                        + (
                            f'one "who I am" is too large a number for {which}, so it was not locked with it.'
                            if sure
                            else f"numbers so small have a chance of {max(t.p_value for t, _ in tests):.1g}"
                            f" with {which}."
                        ),
                        (self.part.packet,),
                    ),
                    because=premise if sure else words.BECAUSE_IDENTITY_UNLIKELY.format(keys=which, premise=premise),
                )
                return
            yield self.facts.not_checked(
                "SPK302",
                "Whether the device has the right server key: a public key can only exclude itself, and"
                f" {names(keys, 'server key')} did not ({plural(tests[0][0].count, 'attempt')}; numbers no larger than"
                f" these have a chance of {max(t.p_value for t, _ in tests):.2g}). The server's private key opens"
                f" packet {number(self.part.packet)}: --server-key FILE.",
            )
            return
        yield self.facts.not_checked(
            "SPK302",
            f"Which of the causes it is: only the server's private key opens packet {number(self.part.packet)}. Add"
            " --server-key FILE.",
        )

    # -- it opens ------------------------------------------------------------------------------------------------

    def opened(self, found: Identity, own: list[Finding]) -> Said:
        """The server's key opens it, so a server with this key could read it as well."""
        key = found.opened_by
        seen = Evidence(
            f"Packet {number(self.part.packet)} opens with {name(key)}: device {found.device_id or 'without ID'},"
            f" the right greeting, {found.plaintext_length} bytes.",
            (self.part.packet,),
        )
        if self.signs and key.n not in self.signs:
            yield self._locked_for_another(seen, key)
            return
        not_302 = (RuledOut("SPK302", words.RULED_SERVER_KEY_FITS.format(key=name(key))),)
        pieces = len(self.part.cuts)
        end = self.facts.closing(Sender.SERVER)
        if pieces > 1 and any(f.code == "SPK203" for f in own):
            yield self.facts.finding(
                "SPK203",
                Confidence.STRONG,
                seen,
                because=words.BECAUSE_OPENED_PIECES,
                ruled_out=not_302,
                how=words.HOW_IN_PIECES.format(pieces=pieces),
            )
            return
        if found.key_trouble is not None:
            yield self.facts.finding(
                "SPK305",
                Confidence.CERTAIN,
                seen,
                Evidence(f"The public key that the device offers is {found.key_trouble}."),
                because=words.BECAUSE_SHOWN,
                ruled_out=not_302,
            )
            return
        others = tuple(k for k in self.keys.server_private if k.n != key.n)
        if others and not self.signs:
            yield from self._whose_server(seen, key, others)
            return
        at_once = end is not None and end.time_ns - self.part.time_ns < AT_ONCE
        yield from self._known_or_not(found, seen, not_302, at_once=at_once)

    def _locked_for_another(self, seen: Evidence, key: Key) -> Finding:
        n, packet = next(iter(self.signs.items()))
        server = self.keys.key_with_modulus(n)
        return self.facts.finding(
            "SPK302",
            Confidence.CERTAIN,
            seen,
            Evidence(
                f"This server's key is {name(server) if server is not None else 'another one'}: it signed packet"
                f" {number(packet)}.",
                (packet,),
            ),
            because=words.BECAUSE_LOCKED_FOR_OTHER.format(key=name(key)),
        )

    def _whose_server(self, seen: Evidence, key: Key, others: tuple[Key, ...]) -> Said:
        """Several servers' keys were given, and nothing tells which of them is the key of the server called."""
        yield self.facts.finding(
            "SPK302",
            Confidence.HINT,
            seen,
            because=words.BECAUSE_OTHERS_KEY.format(server=self.c.server.ip, others=names(others, "other server key")),
        )
        yield self.facts.finding(
            "SPK304",
            Confidence.HINT,
            seen,
            because=words.BECAUSE_UNKNOWN_DEVICE.format(server=self.c.server.ip, key=name(key)),
        )
        yield self.facts.not_checked(
            "SPK302",
            f"Which of {number(len(others) + 1)} server keys given is that of {self.c.server.ip}. Give that one alone:"
            " --server-key FILE.",
        )

    def _known_or_not(self, found: Identity, seen: Evidence, not_302: tuple[RuledOut, ...], *, at_once: bool) -> Said:
        """The server can read it. Does it know the device?"""
        on_file = named_in_registry(self.keys, found.device_id)
        offered = found.device_key
        closed = Evidence(
            "The server closed all the same." if at_once else "No reply followed.",
            tuple(x.packet for x in self.c.closings[:1]),
        )
        if offered is not None and on_file and all(key.n != offered.n for key in on_file):
            yield self.facts.finding(
                "SPK304",
                Confidence.CERTAIN,
                seen,
                closed,
                Evidence(f"The device offers key {offered.fingerprint}; on file is {name(on_file[0])}."),
                because=words.BECAUSE_IF_ON_FILE.format(file=file_of(on_file[0])),
                ruled_out=not_302,
            )
            return
        refused, working = self.places.refused_by(self.c)
        if refused > 1 and not working:
            # A lost folder of keys would look the same; that no device at all gets through is what matters.
            yield self.facts.finding(
                "SPK308",
                Confidence.STRONG if on_file else Confidence.LIKELY,
                seen,
                closed,
                Evidence(
                    f"All {number(refused)} devices that call this server are refused like this, and none gets through."
                    + ("" if on_file else " A server that lost its folder of device keys would look the same (SPK304).")
                ),
                because=words.BECAUSE_ALL_ALIKE,
                ruled_out=not_302,
            )
            return
        if on_file:
            yield self.facts.finding(
                "SPK308",
                Confidence.LIKELY,
                seen,
                closed,
                Evidence(f"{name(on_file[0])} is on file for this device among the keys given."),
                summary=words.SAYS_KNOWN_AND_REFUSED,
                because=words.BECAUSE_KNOWN_AND_REFUSED.format(file=file_of(on_file[0])),
                ruled_out=not_302,
            )
            return
        missing = is_registry(self.keys)
        yield self.facts.finding(
            "SPK304",
            Confidence.STRONG if missing else Confidence.LIKELY,
            seen,
            closed,
            Evidence(f"No file among the keys given is named after device {found.device_id}.")
            if missing
            else Evidence(
                "Also possible: a server program too new for this encryption (SPK308; then every device fails)"
                + (", or the community server, which takes no original Cores." if offered is None else ".")
            ),
            because=words.BECAUSE_NOT_ON_FILE,
            ruled_out=not_302,
        )
