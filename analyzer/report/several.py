"""Several devices in one sentence: what they have in common comes before what each of them has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from analyzer.catalogue import SPARK_PORT
from analyzer.findings import FINDINGS, Group
from analyzer.histories import COMMON, Outcome, ServerHistory, Together
from analyzer.report.past import Times
from analyzer.report.story import UNSAID, Mark, Story
from analyzer.wording import endpoint, listing, number, plural

FAILING: Final = "FAILING"
"""What devices have in common that fail in different ways."""
THE_SAME: Final = "The same for {names}."
OTHER_WAY: Final = "1 other device fails in another way."
OTHER_WAYS: Final = "{devices} fail in other ways."
SAME_SERVER: Final = "{names} {works} with the same server, so network and server are fine."
WORKS: Final = ("logs in and stays connected", "log in and stay connected")
"""Of one device, and of several."""
NAMED: Final = 3
"""More devices than these are counted, not named."""

FAIL_SINCE: Final = "{devices} that called {server} since {time} (packet {packet}) {fail}: {what}."
FAIL_ALIKE: Final = "{devices} that called {server} {fail} alike: {what}."
UNTIL_THEN: Final = "Until then {who} worked."
CHANGED: Final = "So it is the server that changed, not the devices."
CHANGED_AROUND: Final = "So it is the server, or the way to it, that changed, not the devices."
AT_FAULT: Final = "So the cause is at the server rather than in the devices."
AT_FAULT_AROUND: Final = "So the cause is the server, or the way to it, rather than the devices."
OUTLIVED: Final = "{names} logged in before that and {works} on."
IN_THEIR_WAY: Final = "fails in its own way"
CANNOT: Final = "cannot "
AS_ALL_AT_ONCE: Final = "{how} that the cause is common to them: {count} devices fail since one moment."
AS_ALL_ALIKE: Final = "{how} that the cause is common to them: {count} devices fail alike, and none works."

OF_ONE_DEVICE: Final = ("SPK204", "SPK206", "SPK207")
"""Findings whose reason speaks of one device's keys: not what several have lost at once."""
AROUND: Final = ("SPK101", "SPK102", "SPK103", "SPK104", "SPK505", "SPK506")
"""Looks behind which may be the way to the server as well."""
SERVER_STEPS: Final = {
    "SPK204": (
        "Look at what was changed at the server{since}: its key file, its folder of device keys, its program, its"
        " Node.js. Put that back; the devices need nothing.",
        "Which of these it is, the server's private key tells:",
        "  sparkshark analyze FILE --server-key SERVER.pem",
    ),
    "SPK302": (
        "Put the server's former key file back, the one that belongs to the public key in the devices, and restart"
        " the server.",
        "It is lost: write the new public key into each device, in DFU mode (blinking yellow):",
        "  particle keys server server.pub.pem --host ADDRESS",
    ),
    "SPK304": (
        "Put the server's folder of device keys back, and restart the server. It is lost: each device, in DFU mode:",
        "  particle keys doctor DEVICE_ID",
    ),
    "SPK206": (
        "Look at what was changed at the server{since}: its key file or its folder of device keys. Put that back and"
        " restart the server; the devices need nothing.",
        "Which of the two it is, the server's public key as the devices hold it tells (SPK303 or SPK301):",
        "  sparkshark analyze FILE --server-key server.pub.pem",
    ),
}
"""What to do about a fault that the devices of one server share, by the leading finding or its look; for others the
steps of the finding itself look at server and network."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is said of all devices together."""

    state: str
    mark: Mark
    sentence: str
    sure: str
    steps: tuple[str, ...]


def sum_up(stories: Sequence[Story], servers: Sequence[ServerHistory], times: Times) -> Summary:
    """Return the summary of stories that are sorted, worst first."""
    failing = [s for s in stories if s.mark is Mark.FAILS]
    worst = stories[0]
    if not failing:
        return _none_fails(stories)
    states = {s.state for s in failing}
    what = failing[0].state if len(states) == 1 else FAILING
    state = what if len(failing) == len(stories) else f"{len(failing)} OF {len(stories)} {what}"
    together = worst.together
    if together is not None:
        server = next(s for s in servers if s.together is together)
        sentence, sure = _told_together(stories, failing, together, server, times)
        return Summary(state, Mark.FAILS, sentence, sure, worst.steps)
    sentences = [of(failing[0])]
    same = [s for s in failing[1:] if s.lead and failing[0].lead and s.lead.code == failing[0].lead.code]
    if same:
        sentences.append(THE_SAME.format(names=names(same)))
    sentences += _others(len(failing) - len(same) - 1)
    beside = [s for s in stories if s.mark is Mark.WORKS and _works_beside(s, failing[0])]
    if beside:
        works = "works" if len(beside) == 1 else "work"
        sentences.append(SAME_SERVER.format(names=names(beside), works=works))
    return Summary(state, Mark.FAILS, " ".join(sentences), failing[0].sure, worst.steps)


def _none_fails(stories: Sequence[Story]) -> Summary:
    working = [s for s in stories if s.mark is Mark.WORKS]
    worst = stories[0]
    state = worst.state if len({s.state for s in stories}) == 1 else f"{len(working)} OF {len(stories)} WORKING"
    sentences = [of(s) for s in stories if s.mark is not Mark.WORKS][:2]
    if working:
        sentences.append(f"{names(working)} {WORKS[len(working) > 1]}.")
    return Summary(state, worst.mark, " ".join(sentences), worst.sure, worst.steps)


def _works_beside(story: Story, failing: Story) -> bool:
    """Whether a device works with the same server while the other one fails; what worked before proves nothing."""
    here = {(c.server.address, c.server.port) for c in failing.conversations}
    since = failing.history.since.conversation.start_ns if failing.history.judged else 0
    return any(
        a.outcome is Outcome.WORKED
        and a.conversation.end_ns >= since
        and (a.conversation.server.address, a.conversation.server.port) in here
        for a in story.history.attempts
    )


def _told_together(
    stories: Sequence[Story],
    failing: Sequence[Story],
    together: Together,
    server: ServerHistory,
    times: Times,
) -> tuple[str, str]:
    """Return the sentence on devices that share one cause, and how sure it is."""
    count, around = len(together.members), together.look in AROUND
    devices = "Both devices" if count == COMMON else f"All {number(count)} devices"
    if together.others:
        devices = f"{number(count)} of the {number(count + together.others)} devices"
    own = [s for s in stories if s.together is together]
    lead = own[0].lead
    alike = all(m.failing is not None and m.failing.look == together.look for m in together.members)
    what = lead.predicate if alike and lead is not None and lead.predicate else IN_THEIR_WAY
    words = {
        "devices": devices,
        "server": server.ip if server.port == SPARK_PORT else endpoint(server.ip, server.port),
        "fail": "fail",
        "what": f"none can {what.removeprefix(CANNOT)}" if what.startswith(CANNOT) else f"each {what}",
    }
    if together.worked_before:
        since = together.since
        who = "they" if together.worked_before == count else f"{number(together.worked_before)} of them"
        sentences = [
            FAIL_SINCE.format(time=times.at(since.time_ns), packet=number(since.packet), **words),
            UNTIL_THEN.format(who=who),
            CHANGED_AROUND if around else CHANGED,
        ]
    else:
        sentences = [FAIL_ALIKE.format(**words), AT_FAULT_AROUND if around else AT_FAULT]
    outlived = [s for s in stories if any(m.history is s.history for m in together.outlived)]
    if outlived:
        sentences.append(OUTLIVED.format(names=names(outlived), works="works" if len(outlived) == 1 else "work"))
    sentences += _others(len(failing) - len(own))
    how = "Very likely" if together.certain and together.worked_before else "Likely"
    as_all = AS_ALL_AT_ONCE if together.worked_before else AS_ALL_ALIKE
    sure = as_all.format(how=how, count=number(count))
    if lead is not None and lead.code in OF_ONE_DEVICE and together.worked_before:
        return " ".join(sentences), sure
    return " ".join(sentences), f"{sure} {own[0].sure}".strip()


def _others(count: int) -> list[str]:
    """Say that others fail, too, and not for the reason told."""
    return [OTHER_WAY if count == 1 else OTHER_WAYS.format(devices=plural(count, "other device"))] if count else []


def common_steps(story: Story, together: Together, times: Times) -> tuple[str, ...]:
    """What to do about what a device shares with others: at the server, not at the device."""
    code = story.lead.code if story.lead is not None else together.look
    steps = SERVER_STEPS.get(code)
    if steps is None and FINDINGS[code].group is Group.HANDSHAKE:
        steps = SERVER_STEPS.get(together.look)
    if steps is None:
        return story.steps
    since = f" by {times.at(together.since.time_ns)}" if together.worked_before else ""
    return tuple(step.format(since=since) for step in steps)


def of(story: Story) -> str:
    """One sentence about one device among several."""
    lead = story.lead
    if lead is not None and lead.code not in UNSAID and lead.predicate:
        return f"{story.address} {lead.predicate}."
    return f"{story.address}: {story.sentence}"


def names(stories: Sequence[Story]) -> str:
    """Name a few devices, or count many."""
    if len(stories) > NAMED:
        return f"{number(len(stories))} devices"
    return listing([s.address for s in stories])
