"""The verdicts on a small population, and whether the count of right and wrong ones can fail."""

from __future__ import annotations

from functools import cache

import pytest
from confusion.command import PROMISED, SURE, SURE_RIGHT, Tally, page, tally, work
from confusion.played import MISSED, PREMISE, RIGHT, WRONG, Played, count, play_shipped
from judging import judged, shipped, truth, verdict
from populations import key_files
from true_findings import KEY_SETS, TRUE, Truth, may_claim

from analyzer.findings import CONFIDENCE_ORDER, Confidence
from analyzer.simulate import SCENARIOS, simulate

SEEDS = 2
ENDS_IN_ANOTHER_WAY = "http-late"
"""A story that is its own near miss where the capture does not hold its end."""
ENOUGH = 10


@cache
def small() -> Tally:
    return tally(work(SEEDS))


def test_nothing_bad_is_said_of_a_healthy_device() -> None:
    assert small().false_alarms == 0, small().wrong


def test_sure_claims_name_the_right_cause() -> None:
    right, claims = small().share(SURE)
    assert claims > 10 * ENOUGH
    assert right / claims >= SURE_RIGHT, small().wrong


@pytest.mark.parametrize("word", PROMISED)
def test_a_word_is_worth_what_it_promises(word: Confidence) -> None:
    right, claims = small().share([word])
    works = small().words[True, word]
    assert claims >= ENOUGH
    assert right / claims >= PROMISED[word], small().wrong
    assert works[True] >= works.total() * PROMISED[word]


def test_most_causes_are_found() -> None:
    """A table of silence would be free of wrong claims, and worth nothing."""
    outcomes = small().outcomes
    faults = [row for row in outcomes if row.startswith("SPK") and "shipped" not in row]
    found = sum(outcomes[row][RIGHT] for row in faults)
    assert found / sum(outcomes[row].total() for row in faults) > 0.7  # some captures end before the fault
    for row in outcomes:
        if "(shipped)" in row:
            assert outcomes[row].total() == outcomes[row][RIGHT] + outcomes[row][PREMISE], row


# -- a claim that is wrong is counted as wrong ---------------------------------------------------------------------


def test_an_alarm_on_a_healthy_story_is_a_false_alarm() -> None:
    story = simulate("port-blocked")
    result = Tally()
    result.add(count(Played("x", "", "none"), judged(story), Truth(), story.truth, "healthy"))
    assert result.false_alarms == 1
    assert result.share(SURE) == (0, 1)
    assert result.outcomes["healthy"] == {WRONG: 1}
    assert result.wrong


def test_another_cause_is_wrong_however_true_it_sounds() -> None:
    story = simulate("wrong-server-key")
    told = count(Played("x", "", "none"), judged(story), TRUE["key-mismatch"], story.truth, "row")
    assert [(row.verdict, row.outcome) for row in told.rows] == [("SPK204", WRONG)]
    assert not any(claim.right for claim in told.claims)


def test_that_it_works_is_wrong_of_a_login_that_never_ended() -> None:
    story = simulate("healthy")
    trace = judged(story)
    right = count(Played("x", "", "none"), trace, Truth(), story.truth, "row")
    story.truth["sessions"][0]["counts"]["s2c"] = 0
    wrong = count(Played("x", "", "none"), trace, Truth(), story.truth, "row")
    assert [claim.right for claim in (*right.claims, *wrong.claims)] == [True, False]


def test_that_it_works_is_no_answer_where_a_fault_can_be_seen() -> None:
    story = simulate("healthy")
    told = count(Played("x", "", "none"), judged(story), TRUE["key-mismatch"], story.truth, "row")
    assert [row.outcome for row in told.rows] == [MISSED]


def test_of_two_devices_each_is_judged_by_its_own_truth() -> None:
    told = play_shipped("two-devices-background", "all")
    assert sorted((row.cause, row.verdict, row.outcome) for row in told.rows) == [
        ("SPK301 mixed (shipped)", "SPK301", RIGHT),
        ("healthy", "SPK001", RIGHT),
    ]


def test_what_rests_on_a_strangers_key_is_counted_apart() -> None:
    told = play_shipped("unknown-device", "other server's")
    result = Tally()
    result.add(told)
    assert [row.outcome for row in told.rows] == [PREMISE]
    assert result.on_premise == 1
    assert result.wrong == []


# -- what may be claimed -------------------------------------------------------------------------------------------


def test_every_story_has_its_truth() -> None:
    assert TRUE.keys() == SCENARIOS.keys()


@pytest.mark.parametrize("name", TRUE)
def test_what_a_story_says_of_itself_is_true_of_it(name: str) -> None:
    scenario = SCENARIOS[name]
    every = TRUE[name].bare | TRUE[name].keyed
    if name != ENDS_IN_ANOTHER_WAY:
        assert scenario.near_miss not in every
    if every and scenario.code != "SPK001":
        assert scenario.code in every


def test_keys_allow_no_more_than_they_can_prove() -> None:
    refused = TRUE["wrong-server-key"]
    allowed = {keys: "SPK302" in may_claim(refused, keys) for keys in KEY_SETS}
    assert [keys for keys, can in allowed.items() if can] == ["server public", "server private", "all", "registry"]
    assert all("SPK204" in may_claim(refused, keys) for keys in KEY_SETS)


def test_the_keys_of_a_set_are_those_of_the_story() -> None:
    story = simulate("key-mismatch")
    given = {keys: set(key_files(story, keys)) for keys in KEY_SETS}
    device_id = story.truth["sessions"][0]["device_id"]
    assert given["none"] == set()
    assert given["device"] == {"core-a.pem"}
    assert given["all"] == {"core-a.pem", "server.pem"}
    assert given["registry"] == {f"{device_id}.pub.pem", "server.pem"}
    assert key_files(story, "registry")[f"{device_id}.pub.pem"] == story.keys["core-a-stale.pub.pem"]
    assert not set(key_files(story, "other device's").values()) & set(story.keys.values())


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_same_seeds_give_the_same_page() -> None:
    some = work(1)[::16]
    one, other = (list(page(tally(some, jobs), 1)) for jobs in (1, 2))
    assert one == other


def test_the_page_has_every_word_and_every_row() -> None:
    lines = list(page(small(), SEEDS))
    for word in CONFIDENCE_ORDER:
        assert any(f"({word})" in line for line in lines)
    for row in small().table:
        assert any(line.startswith(f"| {row} |") for line in lines)


def test_a_shipped_capture_is_right_without_keys() -> None:
    trace = verdict(shipped("healthy-full"))
    told = count(Played("x", "", "none"), trace, Truth(), truth("healthy-full"), "row")
    assert [claim.right for claim in told.claims] == [True]
