"""The workloads say what is in them, and memory does not grow with the number of packets."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import pytest
from benchmarks.measure import cost_of
from benchmarks.rules import WORKLOADS, cost
from benchmarks.workload import write

from analyzer import analyze, pipeline
from analyzer.simulate import simulate
from analyzer.trace import Trace

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


def lines_run(path: Path) -> int:
    """How many lines the rules run over a capture, loops in one line included: no clock is needed to see them grow."""
    count = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return line

    def judge(trace: Trace) -> None:
        sys.settrace(line)
        try:
            real(trace)
        finally:
            sys.settrace(before)

    real, before = vars(pipeline)["judge"], sys.gettrace()
    with patch.object(pipeline, "judge", judge):
        analyze(path)
    return count


@pytest.mark.parametrize("name", [name for name in WORKLOADS if "attempts" in name])
def test_the_rules_work_as_long_for_the_last_attempt_as_for_the_first(name: str, tmp_path: Path) -> None:
    work = []
    for growth in (1, GROWTH):
        WORKLOADS[name](tmp_path / "work.pcap", 0.02 * growth)
        work.append(lines_run(tmp_path / "work.pcap"))
    assert work[1] < work[0] * GROWTH * SLACK


def test_what_judging_costs_is_told_apart_from_reading(tmp_path: Path) -> None:
    (tmp_path / "work.pcap").write_bytes(simulate("wrong-server-key", attempts=20).capture())
    took = cost(tmp_path / "work.pcap")
    assert took.conversations == 20
    assert took.reading > 0 < took.judging
