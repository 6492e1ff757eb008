"""SPK401, SPK701–706, SPK801: what the capture itself allows, and what is not our protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from analyzer.catalogue import SPARK_PORT
from analyzer.findings import FINDINGS, Confidence, Evidence, Finding, NotChecked, Severity
from analyzer.kinds import request_kind
from analyzer.network.units import address_text
from analyzer.rules import words
from analyzer.rules.facts import Facts
from analyzer.streams import HoleReason
from analyzer.trace import Trace
from analyzer.wording import listing, number, plural, quote, size

GAPS_TOLD = 4
FIND_THE_FILES: Final = (
    "Look for the missing files where the capture was made, and analyse all of them together. A ring buffer with room"
    " for more keeps them longer:",
    f"  dumpcap -b filesize:100000 -b files:100 -f 'port {SPARK_PORT}' -w NAME.pcapng",
)
SAYS_BEHIND_A_GAP: Final = (
    "The device was already connected when the capture went on behind its gap. The login is not in the files, so it"
    " cannot be judged."
)


def begun_midway(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK701: no SYN, and the first bytes are not the login."""
    c = facts.conversation
    if not c.midway or not facts.is_spark:
        return
    if not (facts.device.midway or facts.server.midway) and facts.nonce is not None:
        return  # only the SYN is missing: the login is all there
    whole = facts.session is not None
    first = Evidence(f"No request to connect; packet {number(c.first_packet)} is already under way.", (c.first_packet,))
    messages = facts.device.frames + facts.server.frames
    if not messages:
        counts = "No whole message of either end."
    elif facts.device.lost or facts.server.lost:
        counts = "Not all lengths are legal."
    else:
        counts = (
            f"{plural(messages, 'message')} ({number(facts.device.frames)} sent,"
            f" {number(facts.server.frames)} received), all of legal length."
        )
    summary = None
    if whole:
        summary = words.SAYS_INSIDE_LOGIN
    elif not messages:
        summary = words.SAYS_NOTHING_WHOLE
    elif facts.trace.gaps.within(c, 0, c.first_packet) is not None:
        summary = SAYS_BEHIND_A_GAP
    yield facts.finding("SPK701", Confidence.CERTAIN, first, Evidence(counts), summary=summary)
    if not whole and not facts.trace.keys:
        yield facts.not_checked(
            "SPK701",
            "Content. No RSA key can open it: the session key travels only in the login. With --session-key all would"
            " open but the first message of each side.",
        )


def one_way(facts: Facts) -> Iterator[Finding]:
    """SPK702: one end's packets are missing altogether."""
    missing = facts.unseen
    if missing is None:
        return
    side = facts.conversation.sides[missing]
    text = f"Not one packet from the {missing} is in the capture"
    if side.acked or side.sent:
        text += f", yet {size(max(side.acked, side.sent))} of its data were acknowledged"
    yield facts.finding(
        "SPK702",
        Confidence.CERTAIN,
        Evidence(text + ".", (facts.conversation.first_packet,)),
        sender=missing.peer,
    )


def bytes_missing(facts: Facts) -> Iterator[Finding]:
    """SPK703: holes and cut packets in this conversation. Damage to the file is told once for the capture."""
    c = facts.conversation
    holes = [h for h in c.holes if h.sender is not facts.unseen]
    if not holes:
        return
    evidence = []
    cut = [h for h in holes if h.reason is HoleReason.CUT]
    if cut:
        evidence.append(
            Evidence(
                f"{plural(facts.device.quality.cut + facts.server.quality.cut, 'packet')} captured short (snaplen):"
                f" {size(sum(h.length for h in cut))} are missing.",
                tuple(h.packet for h in cut[:GAPS_TOLD]),
            )
        )
    lost = [h for h in holes if h.reason is not HoleReason.CUT]
    unlisted = c.hole_count - len(c.holes)
    for hole in lost[:GAPS_TOLD]:
        after = f"after packet {number(hole.before)}" if hole.before is not None else "at the start"
        if hole.reason is HoleReason.DAMAGED:
            fate = f"packet {number(hole.packet)} holds them, but with a wrong checksum"
        elif hole.reason is HoleReason.NOT_CAPTURED:
            gap = facts.trace.gaps.within(c, hole.before or 0, hole.packet)
            why = "the capture has a gap there" if gap is not None else "the capturing computer lost them"
            fate = f"acknowledged in packet {number(hole.packet)}, so they arrived; {why}"
        else:
            fate = f"never acknowledged; the next bytes are in packet {number(hole.packet)}"
        evidence.append(Evidence(f"{size(hole.length)} from the {hole.sender} {after}: {fate}.", (hole.packet,)))
    if unlisted or len(lost) > GAPS_TOLD:
        further = max(0, len(lost) - GAPS_TOLD) + unlisted
        evidence.append(Evidence(f"{plural(further, 'further hole')}."))
    yield facts.finding("SPK703", Confidence.CERTAIN, *evidence, holes=len(holes) + unlisted, cut=len(cut))


def artefacts(facts: Facts) -> Iterator[Finding]:
    """SPK704: copies, damaged copies, unfinished checksums, overlaps that differ."""
    what, evidence = [], []
    copies = facts.device.quality.copies + facts.server.quality.copies
    aside = facts.device.quality.set_aside + facts.server.quality.set_aside
    differing = facts.device.quality.mismatches + facts.server.quality.mismatches
    if copies:
        what.append(words.TWICE.format(packets=plural(copies, "packet")))
        evidence.append(Evidence(f"{plural(copies, 'copy', 'copies')} of packets already seen; not counted."))
    if aside:
        what.append(f"{plural(aside, 'damaged packet')}")
        evidence.append(Evidence(f"{plural(aside, 'packet')} with a wrong checksum; set aside."))
    if differing:
        what.append(f"{plural(differing, 'repeat')} with other content")
        evidence.append(
            Evidence(f"{plural(differing, 'repeat')} with other bytes than the first copy; the first counts.")
        )
    if what:
        yield facts.finding("SPK704", Confidence.CERTAIN, *evidence, what=listing(what))


def misread(facts: Facts) -> Iterator[Finding]:
    """SPK401: Wireshark shows these bytes as CoAP."""
    rows = facts.conversation.rows
    words = rows.words()
    if facts.conversation.kind in ("coap-tcp", "empty") or words is None:
        return
    made_of = "random bytes and length fields" if facts.is_spark else "the letters of another protocol"
    finding = facts.finding(
        "SPK401",
        Confidence.CERTAIN,
        Evidence(f"{plural(rows.total, 'packet')} of this protocol would be shown as CoAP.", rows.packets),
    )
    finding.wireshark_shows = f"{words[0].upper()}{words[1:]}: {made_of} shown as CoAP. Ignore."
    yield finding


def other_protocol(facts: Facts) -> Iterator[Finding]:
    """SPK801: the connecting side speaks first, or the bytes parse as something else."""
    c = facts.conversation
    kind = c.kind
    first = facts.device.first_data or facts.server.first_data
    if first is None:
        return
    where = (first.packet,)
    if kind == "coap-tcp":
        yield facts.finding(
            "SPK801",
            Confidence.CERTAIN,
            Evidence("Both sides begin with a CSM (7.01), and every message parses to its exact end.", where),
            what=words.GENUINE_COAP,
        )
    elif facts.device.opening and kind in words.PROTOCOLS and _client_began(facts):
        yield facts.finding(
            "SPK801",
            Confidence.STRONG,
            Evidence(
                f"The connecting side speaks first, with {quote(facts.device.opening[:16])}; on a Spark connection the"
                " server does.",
                where,
            ),
            what=words.CLIENT_FIRST.format(name=words.PROTOCOLS[kind], port=c.server.port),
        )


def _client_began(facts: Facts) -> bool:
    device, server = facts.device.first_data, facts.server.first_data
    if request_kind(facts.device.opening) is not None:
        return True  # whatever the order: two capture points may show the answer first
    return device is not None and (server is None or device.time_ns < server.time_ns)


# -- about the whole capture --------------------------------------------------------------------------------


def no_spark(trace: Trace) -> Iterator[Finding]:
    """SPK706 and SPK705: there is nothing of ours; say what there is."""
    if trace.conversations:
        return
    around = trace.background
    evidence = list(_what_else(trace))
    wifi = around.kinds["encrypted-wifi"]
    if wifi and wifi + around.kinds["wifi-management"] >= trace.packets // 2:
        yield _plain(
            "SPK705",
            Confidence.CERTAIN,
            f"The capture holds encrypted Wi-Fi ({plural(wifi, 'frame')}): no address and no port can be read in it.",
            (Evidence(f"{plural(wifi, 'frame')} of Wi-Fi data are locked with the Wi-Fi's own key."),),
            fix=(
                "Capture on the router or on the server's computer, behind the Wi-Fi's encryption.",
                "Or decrypt it first: Wireshark needs the Wi-Fi password, and the device's joining in the capture.",
            ),
        )
    yield _plain(
        "SPK706",
        Confidence.CERTAIN,
        FINDINGS["SPK706"].says.format(packets=plural(trace.packets, "packet")),
        tuple(evidence),
    )


def _what_else(trace: Trace) -> Iterator[Evidence]:
    around = trace.background
    for alike in sorted(around.lookalikes.values(), key=lambda a: -a.count)[:4]:
        yield Evidence(
            f"{plural(alike.count, 'connection')} on port {alike.port} look{'s' if alike.count == 1 else ''} like Spark"
            f" (first: packet {number(alike.first_packet)}). Try: --port {alike.port}",
            (alike.first_packet,),
        )
    for mute in sorted(around.mute.values(), key=lambda m: -m.count)[:4]:
        yield Evidence(
            f"{plural(mute.count, 'connection')} on port {mute.port} (first: packet {number(mute.first_packet)}):"
            " nobody says a word until the connecting side leaves after 20 s, as a Spark device does that waits for a"
            f" greeting. Try: --port {mute.port}",
            (mute.first_packet,),
        )
    for lookup in list(around.lookups.values())[:4]:
        fate = "and was answered" if lookup.answered else "and got no answer"
        if lookup.failed and not lookup.answered:
            fate = "and was told that there is no such name"
        yield Evidence(
            f"{lookup.asker} looked up {lookup.name} {plural(max(lookup.asked, 1), 'time')} (first: packet"
            f" {number(lookup.first_packet)}) {fate}, but no connection on port"
            f" {listing([str(p) for p in sorted(trace.ports)], 'or')} follows.",
            (lookup.first_packet,),
        )
    for told in list(around.announcements.values())[:4]:
        yield Evidence(
            f"Device {told.device_id} announces itself from {address_text(told.address)} (packet"
            f" {number(told.packet)}).",
            (told.packet,),
        )
    if around.dtls_datagrams:
        yield Evidence(
            f"{plural(around.dtls_datagrams, 'packet')} on UDP 5684: a newer Particle device (DTLS), not this"
            " protocol.",
            (around.first_dtls_datagram or 0,),
        )
    if around.coap_datagrams:
        yield Evidence(
            f"{plural(around.coap_datagrams, 'packet')} on UDP 5683: genuine CoAP, not this protocol.",
            (around.first_coap_datagram or 0,),
        )
    rest = [
        f"{plural(n, 'connection')} on port {port}"
        for port, n in around.tcp_connections.most_common(4)
        if port not in around.lookalikes
    ]
    rest += [f"{number(around.kinds[kind])} {kind}" for kind in ("DNS", "ARP") if around.kinds[kind]]
    if rest:
        yield Evidence(f"In the capture: {listing(rest)}.")


def capture_damage(trace: Trace) -> Iterator[Finding]:
    """SPK703 for the files themselves: which are missing between others, and what could not be read, and where.

    A file is missing, strongly, when the numbers in the names of a series skip it; a gap is certain when most of the
    connections that are open there lack bytes that arrived, at the border of two files.
    """
    gaps = trace.gaps.all
    damage = [(file, item) for file in trace.captures for item in file.damage]
    said, evidence = [], []
    if gaps:
        files = f": {plural(trace.gaps.files, 'file')} of it" if trace.gaps.files else ", between two of its files"
        lack = "" if not trace.gaps.files else " are missing" if trace.gaps.files > 1 else " is missing"
        said.append(f"The capture has {'a gap' if len(gaps) == 1 else plural(len(gaps), 'gap')}{files}{lack}.")
        evidence += [Evidence(str(gap), (gap.before, gap.packet)) for gap in gaps[:GAPS_TOLD]]
        if len(gaps) > GAPS_TOLD:
            evidence.append(Evidence(f"{plural(len(gaps) - GAPS_TOLD, 'further gap')}."))
    if damage:
        said.append(f"The capture file is damaged in {plural(len(damage), 'place')}; the rest was analysed.")
        evidence += [
            Evidence(f"{file.path}: {item.what}, at byte {number(item.offset)}.", (item.packet,) if item.packet else ())
            for file, item in damage[:GAPS_TOLD]
        ]
    if said:
        by_name_alone = bool(gaps) and not damage and not any(gap.torn for gap in gaps)
        yield _plain(
            "SPK703",
            Confidence.STRONG if by_name_alone else Confidence.CERTAIN,
            " ".join(said),
            tuple(evidence),
            fix=FIND_THE_FILES if trace.gaps.files else None,
        )


def offload(trace: Trace) -> Iterator[Finding]:
    """SPK704 for senders whose checksums were never right: they say nothing, and were not used."""
    evidence = tuple(
        Evidence(
            f"{plural(odd, 'packet')} from {address_text(address)} carry no finished checksum ({number(good)} do)."
        )
        for address, odd, good in trace.offloaded[:GAPS_TOLD]
    )
    if evidence:
        what = "packets whose checksums the network card had not filled in yet"
        yield _plain("SPK704", Confidence.CERTAIN, FINDINGS["SPK704"].says.format(what=what), evidence)


def coap_over_udp(trace: Trace) -> Iterator[Finding]:
    """SPK801 for UDP: newer devices and genuine CoAP."""
    around = trace.background
    if around.dtls_datagrams:
        yield _plain(
            "SPK801",
            Confidence.STRONG,
            "A newer Particle device speaks DTLS on UDP 5684 here; that is not this protocol.",
            (
                Evidence(
                    f"{plural(around.dtls_datagrams, 'packet')} on UDP 5684.",
                    (around.first_dtls_datagram or 0,),
                ),
            ),
        )
    if around.coap_datagrams:
        yield _plain(
            "SPK801",
            Confidence.LIKELY,
            "Genuine CoAP runs on UDP 5683 here; that is not this protocol.",
            (
                Evidence(
                    f"{plural(around.coap_datagrams, 'packet')} on UDP 5683.",
                    (around.first_coap_datagram or 0,),
                ),
            ),
        )


def _plain(
    code: str,
    confidence: Confidence,
    summary: str,
    evidence: tuple[Evidence, ...],
    fix: tuple[str, ...] | None = None,
) -> Finding:
    spec = FINDINGS[code]
    return Finding(
        code=code,
        confidence=confidence,
        summary=summary,
        severity=Severity.INFO,
        evidence=evidence,
        settle=(spec.settle,) if spec.settle else (),
        fix=spec.fix if fix is None else fix,
        packets=tuple(sorted({n for item in evidence for n in item.packets})),
    )


def service_name(kind: str, opening: bytes) -> str:
    """Name what greeted in the place of a Spark server, as the subject of a sentence."""
    if kind == "http":
        lower = opening.lower()
        if words.REDIRECTION in opening[:13] or any(mark in lower for mark in words.LOGIN_MARKS):
            return words.LOGIN_PAGE
    return words.SERVICES.get(kind, words.OTHER_SERVICE)
