"""Every command with every output that writes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from analyzer.simulate import Simulation, exchanges, finish, make_world
from analyzer.simulate.conversation import Conversation
from failures.desk import ROOT, Command

KEYS: Final = ("--keys", "in/keys")
SMALL, UPDATE, LARGE = "in/healthy.pcap", "in/update.pcap", "in/fleet.pcap"

COMMANDS: Final = (
    Command("analyze", ("analyze", SMALL)),
    Command("analyze, a folder", ("analyze", "in/folder", *KEYS)),
    Command("analyze -", ("analyze", "-"), stdin=SMALL),
    Command("analyze --format json", ("analyze", SMALL, *KEYS, "--format", "json")),
    Command("analyze --format jsonl", ("analyze", SMALL, "--format", "jsonl")),
    Command("analyze --format markdown", ("analyze", SMALL, "--format", "markdown")),
    Command("analyze --format html", ("analyze", SMALL, *KEYS, "--format", "html")),
    Command("analyze -o", ("analyze", SMALL, *KEYS, "-o", "out/report.txt")),
    Command("analyze --format json -o", ("analyze", SMALL, *KEYS, "--format", "json", "-o", "out/report.json")),
    Command("analyze --format jsonl -o", ("analyze", SMALL, *KEYS, "--format", "jsonl", "-o", "out/report.jsonl")),
    Command("analyze --format html -o", ("analyze", SMALL, *KEYS, "--format", "html", "-o", "out/report.html")),
    Command("analyze --format parquet", ("analyze", SMALL, *KEYS, "--format", "parquet", "-o", "out/tables")),
    Command(
        "analyze --jobs 2",
        ("analyze", LARGE, "--keys", "in/fleet-keys", "--jobs", "2", "--format", "json", "-o", "out/fleet.json"),
    ),
    Command("decrypt", ("decrypt", SMALL, *KEYS)),
    Command("decrypt --format json", ("decrypt", SMALL, *KEYS, "--format", "json", "-o", "out/messages.json")),
    Command("decrypt --format jsonl", ("decrypt", SMALL, *KEYS, "--format", "jsonl", "-o", "out/messages.jsonl")),
    Command("decrypt --format csv", ("decrypt", SMALL, *KEYS, "--format", "csv", "-o", "out/messages.csv")),
    Command("decrypt --format html", ("decrypt", SMALL, *KEYS, "--format", "html", "-o", "out/messages.html")),
    Command("decrypt --format parquet", ("decrypt", SMALL, *KEYS, "--format", "parquet", "-o", "out/tables")),
    Command("decrypt -w", ("decrypt", SMALL, *KEYS, "--quiet", "-w", "out/plain.pcapng")),
    Command("decrypt --keylog-out", ("decrypt", SMALL, *KEYS, "--quiet", "--keylog-out", "out/session.keys")),
    Command("decrypt --firmware", ("decrypt", UPDATE, *KEYS, "--quiet", "--firmware", "out")),
    Command("follow", ("follow", SMALL, "1")),
    Command("follow -o", ("follow", SMALL, "1", "-o", "out/bytes.txt")),
    Command("follow --raw -o", ("follow", SMALL, "1", "--raw", "-o", "out/bytes")),
    Command("follow --redact", ("follow", "-", "1", "--redact"), stdin=SMALL),
    Command("keys", ("keys", "in/keys")),
    Command("redact", ("redact", SMALL, "out/posted.pcapng")),
    Command("redact - -", ("redact", "-", "-"), stdin=SMALL),
    Command("explain", ("explain", "SPK206")),
    Command("explain, all", ("explain",)),
    Command("simulate", ("simulate", "healthy", "-o", "out/practice.pcap")),
    Command("simulate --list", ("simulate", "--list")),
    Command("watch -", ("watch", "-", *KEYS, "--messages"), stdin=SMALL),
    Command("watch --format jsonl", ("watch", "-", "--format", "jsonl"), stdin=SMALL),
    Command(
        "watch --ring",
        ("watch", "-", "--ring", "out/ring"),
        stdin=SMALL,
        same=False,
        force=False,
        adds="ring/sparkshark_",
    ),
    Command("install-plugin", ("install-plugin", "--directory", "out"), force=False),
    Command("install-plugin --profile", ("install-plugin", "--profile"), home="out/home", force=False),
    Command("completion bash", ("completion", "bash")),
    Command("completion man", ("completion", "man")),
    Command("--help", ("--help",)),
    Command("--version", ("--version",)),
)
"""Together every command, and every output of each."""

BY_NAME: Final = {command.name: command for command in COMMANDS}


def fleet(devices: int = 10, events: int = 400) -> Simulation:
    """Return a capture so large that two processes work on it: devices that all log in and have much to say."""
    world = make_world(seed=5)
    for place in range(devices):
        c = Conversation(world, world.add_device(), at=place)
        c.handshake()
        exchanges.after_hello(c)
        for number in range(events):
            exchanges.publish(c, f"loop/{number}", "x" * 400, after=0.01)
        c.close("device")
    return finish(world)


def inputs(folder: Path) -> Path:
    """Make what the commands read."""
    folder.mkdir(parents=True)
    captures = ROOT / "captures"
    (folder / "healthy.pcap").symlink_to(captures / "healthy-full.pcap")
    (folder / "update.pcap").symlink_to(captures / "ota-complete.pcap")
    (folder / "keys").symlink_to(captures / "keys")
    few = folder / "folder"
    few.mkdir()
    for name in ("healthy-full", "key-mismatch-retries", "capture-gap"):
        (few / f"{name}.pcap").symlink_to(captures / f"{name}.pcap")
    large = fleet()
    (folder / "fleet.pcap").write_bytes(large.capture())
    (folder / "fleet-keys").mkdir()
    for name, content in large.keys.items():
        (folder / "fleet-keys" / name).write_bytes(content)
    return folder
