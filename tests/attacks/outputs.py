"""Every way in which something comes out, of a capture that has a bit of every attack in it."""

from __future__ import annotations

from pathlib import Path

from analyzer.simulate import messages
from attacks.model import Run, attack
from attacks.opened import Session
from attacks.scene import ATTACKER, DATA, SYN, address, from_device, from_server, scene
from attacks.tcp import NOISE, logged_in, opened


def mixed(folder: Path, n: int) -> Path:
    """Half-open connections, failed logins, holes, and a session of events with hostile times; ``n`` packets in all."""
    with scene(folder / "a.pcap", n) as made:
        session = Session(made, folder)
        logged_in(made)
        start = made.start
        for number in range(n // 8):
            own = address(number)
            made.add(from_device(own, 4000, number * 7_777, 0, SYN))
            if number % 16 == 0:
                opened(made, own, 4001)
                made.add(from_server(own, 4001, 5000, 1000, DATA, NOISE[:40]))
                made.add(from_device(own, 4001, 1000, 5040, DATA, NOISE[:256]))
            made.add(from_device(ATTACKER, 4000, 1258 + 3 * number, 5424, DATA, b"x"))
            for turn in range(5):
                event = messages.event(session.number_of(device=True), f"n{number * 5 + turn}", "=1+1<b>")
                session.says(event, device=True)
            jump = from_device(own, 4002, 1, 0, SYN)
            made.add(jump, (start + number * 86_400_000_000) % (1 << 51))
    return folder / "a.pcap"


SAYS = "a bit of all: connections that never come up, failed logins, days that never were, holes, ever new events"


def entered(name: str, *, each: int, size: int = 24_000) -> None:
    """Enter the attack on one output."""
    command, _, form = name.partition(" ")

    def build(folder: Path, n: int) -> Run:
        capture = mixed(folder, n)
        keys = ["--keys", str(folder / "keys")]
        if command == "redact":
            return Run(["redact", str(capture), str(folder / "posted.pcapng"), "--force"], bystander=False)
        if command == "watch":
            words = ["watch", "-", *keys, "--ring", str(folder / "ring"), "--messages"]
            return Run([*words, *(["--format", "jsonl"] if form == "jsonl" else [])], feed=capture, bystander=False)
        if command == "follow":
            return Run(["follow", str(capture), "2"], bystander=False)
        if command == "explain":
            return Run(["explain", "--wireshark", "Unknown 16", str(capture)], bystander=False)
        words = [command, str(capture), "--jobs", "1", *keys]
        if form == "plain":
            words += [
                "-w",
                str(folder / "plain.pcapng"),
                "--keylog-out",
                str(folder / "keys.log"),
                "--force",
                "--quiet",
            ]
        elif form == "parquet":
            words += ["--format", form, "-o", str(folder / "tables"), "--force"]
        elif form != "text":
            words += ["--format", form]
        return Run(words, bystander=command == "analyze" and form == "jsonl")

    bound = BOUNDS.get(name, "cold.WARM")
    attack(name.replace(" ", "-"), SAYS, size=size, unit="packets", bound=bound, each=each)(build)


BOUNDS = {
    "analyze text": "report.text.LISTED_DEVICES",
    "analyze markdown": "report.markdown.ROWS",
    "analyze html": "report.html.page.DEVICES",
    "decrypt html": "report.html.page.ALL_MESSAGES",
    "decrypt parquet": "dataset.tables.GROUP_BYTES",
    "analyze parquet": "dataset.write.MOST_DAYS",
    "redact": "redaction.survey.MOST_MET",
    "watch text": "live.watcher.KEPT",
    "watch jsonl": "live.watcher.KEPT",
    "follow": "streams.PENDING_PIECES",
    "explain": "commands.explain.MOST_SEGMENTS",
}

for _name in ("text", "json", "jsonl", "markdown", "html", "parquet"):
    entered(f"analyze {_name}", each=700)
for _name in ("text", "jsonl", "csv", "html", "parquet", "plain"):
    entered(f"decrypt {_name}", each=700)
entered("redact", each=700)
entered("watch text", each=700)
entered("watch jsonl", each=700)
entered("follow", each=700)
entered("explain", each=700)
