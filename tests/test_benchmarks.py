"""The workloads say what is in them, and memory does not grow with the number of packets."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.measure import cost_of
from benchmarks.workload import write

from analyzer import analyze

GROWTH = 8
SLACK = 1.15
"""A peak that grew with the packets would be several times as high; one that does not varies by a few percent."""


@pytest.mark.parametrize(
    ("packets", "sessions", "spark"), [(6_000, 5, 0.1), (3_000, 2, 1.0), (3_000, 75, 1.0), (2_000, 40, 0.9)]
)
def test_what_is_read_is_what_was_written(tmp_path: Path, packets: int, sessions: int, spark: float) -> None:
    truth = write(tmp_path / "work.pcap", packets=packets, sessions=sessions, spark=spark)
    trace = analyze(tmp_path / "work.pcap")
    sides = [conversation.sides.values() for conversation in trace.conversations]
    device_frames, server_frames = (sum(side.frames for side in each) for each in zip(*sides, strict=True))
    assert (trace.packets, trace.spark_packets) == (truth.packets, truth.spark_packets)
    assert (device_frames, server_frames) == (truth.device_frames, truth.server_frames)
    assert [c.reached for c in trace.conversations] == ["established"] * truth.sessions
    assert {finding.code for finding in trace.findings if finding.severity in ("critical", "major")} == set()
    assert truth.packets == pytest.approx(packets, rel=0.2)


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write(tmp_path / name, packets=1_000, sessions=3, spark=0.5)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(("packets", "spark"), [(5_000, 1.0), (5_000, 0.05)], ids=["long sessions", "needle"])
def test_memory_does_not_grow_with_the_packets(tmp_path: Path, packets: int, spark: float) -> None:
    peaks = []
    for growth in (1, GROWTH):
        write(tmp_path / "work.pcap", packets=packets * growth, sessions=2, spark=spark)
        peaks.append(cost_of(["analyze", str(tmp_path / "work.pcap")], tmp_path).peak)
    assert peaks[1] < peaks[0] * SLACK
