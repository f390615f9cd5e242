"""A vendor that answers wrongly in every way: what is tried again, what is kept as a dead letter, what is refused."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from vendor_assets.vendors.new_relic import NewRelic
from vendor_assets_tests.attack.conftest import Note
from vendor_assets_tests.support.simulator import simulator
from vendor_assets_tests.support.trial import Trial
from vendor_assets_tests.support.truth import id_of

DATA, GROUPS, WARRIORS = "/metrics/data.json", "/metrics.json", "/hosts.json"


@dataclass(frozen=True)
class Answer:
    """A way to answer wrongly, and what must come of it where it never ends.

    Attributes:
        name: In the table of results.
        fault: The simulator's rule.
        asset: Whose calls it hits.
        calls: How often the one request that it hits is sent.
        state: What the partition's newest numbers say.
        says: A part of the reason that a person reads.
        transient: Whether it is redriven by itself.
    """

    name: str
    fault: dict[str, Any]
    calls: int
    says: str
    asset: str = "performance_data"
    state: str = "failed"
    transient: bool = False
    match: str = field(default=DATA)


def status(code: int, calls: int, *, transient: bool = False) -> Answer:
    return Answer(f"status {code}", {"kind": str(code)}, calls, f"(status {code})", transient=transient)


LASTING = [
    status(500, 5, transient=True),
    *(status(code, 1) for code in (400, 403, 405, 409, 418, 422)),
    Answer("reset", {"kind": "reset"}, 5, "closed before the answer", transient=True),
    Answer("malformed JSON", {"kind": "malformed"}, 2, "JSON"),
    Answer("HTML with status 200", {"kind": "html"}, 2, "JSON"),
    Answer("wrong content type", {"kind": "wrong_type"}, 2, "not JSON"),
    Answer("empty body with status 200", {"kind": "empty"}, 2, "JSON"),
    Answer(
        "endless paging",
        {"kind": "endless_paging"},
        3,
        "never ends",
        asset="warriors",
        match=WARRIORS,
    ),
    Answer(
        "a page that repeats", {"kind": "repeating_page"}, 2, "never ends", asset="warriors", match=WARRIORS
    ),
    Answer("malformed list", {"kind": "malformed"}, 2, "JSON", asset="data_groups", match=GROUPS),
]
# Many transient ones at once look like a vendor that is down: one call at a time asks, and it takes minutes.
SLOW = [
    *(status(code, 5, transient=True) for code in (408, 425, 502, 503, 504)),
    Answer("truncated body", {"kind": "truncated"}, 5, "broke off", transient=True),
    Answer("200 MB body", {"kind": "huge_body"}, 2, "larger than"),
    Answer("hang", {"kind": "hang"}, 5, "within 30 s", transient=True),
    Answer("endless body, a byte a second", {"kind": "endless_body"}, 5, "within 30 s", transient=True),
]
WORLD = {"troops": 32, "warriors": 32, "data_groups": 3}


def rule(answer: Answer, troop: str, **more: object) -> dict[str, object]:
    return {**answer.fault, "match": f"/applications/{id_of(troop)}(/.*)?{answer.match}", **more}


@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_wrong_answer_that_lasts_concerns_its_own_troop_only(trial: Trial, note: Note, long: bool) -> None:
    """Permanent faults are tried once, unreadable ones twice, transient ones five times; siblings stay green."""
    answers = LASTING + (SLOW if long else [])
    bad = dict(zip(trial.troops, answers, strict=False))
    with simulator(world="small") as elsewhere:
        redirected = Answer(
            "redirect to another host",
            {"kind": "redirect", "location": f"{elsewhere.url}/v2/applications.json"},
            1,
            "another host",
        )
        bad[trial.troops[len(answers)]] = redirected
        trial.vendor.faults([rule(answer, troop) for troop, answer in bad.items()])
        roster, chain = trial.harvest()
        assert roster.success
        assert not chain.success
        assert elsewhere.log()["requests"] == 0
    assert trial.states() == {troop: "failed" if troop in bad else "green" for troop in trial.troops}
    letters = trial.letters()
    assert set(letters) == {(answer.asset, troop) for troop, answer in bad.items()}
    arrivals = [target for _, target, _ in trial.vendor.log(arrivals=True)["arrivals"]]
    for troop, answer in bad.items():
        letter, *more = letters[answer.asset, troop]
        hit = [target for target in arrivals if f"/{id_of(troop)}/" in target and answer.match in target]
        numbers = trial.numbers(answer.asset, troop)
        assert (answer.name, letter.retryable) == (answer.name, answer.transient)
        if more:
            # Three data groups of one request, which was split in search of the one that fails: by groups, and
            # where the vendor may mean that it is too much, by time.
            assert answer.asset == "performance_data", answer.name
            assert answer.calls < len(hit) <= 40, answer.name
        else:
            # A reset that meets an idle connection may be a server's farewell: it is asked once more, uncounted.
            crossed = 1 if answer.name == "reset" and len(hit) > answer.calls else 0
            assert (answer.name, len(hit)) == (answer.name, answer.calls + crossed)
        assert (answer.name, numbers["state"]) == (answer.name, answer.state)
        assert answer.says in letter.reason, answer.name
        assert answer.says in numbers["message"], answer.name
    # Nothing but what is missing is asked for once the vendor is well again.
    trial.vendor.clear_faults()
    before = trial.vendor.log()["repeated"]["total"]
    assert all(run.success for run in trial.harvest())
    rows = trial.assert_whole()
    twice = trial.vendor.log()["repeated"]["total"] - before
    for answer in bad.values():
        tried = "tried once" if answer.calls == 1 else f"tried {answer.calls} times"
        kept = "kept for a redrive by itself" if answer.transient else "kept for a person"
        note(answer.name, f"for ever, on one of 32 troops: {tried}, {kept}", twice=twice, rows=rows)
    # The roster is asked again by whoever asks for the day; everything else is answered already.
    assert twice == 0
    assert not trial.letters()
    assert set(trial.states().values()) == {"green"}
    trial.assert_discreet()


PASSING: list[dict[str, object]] = [
    *({"kind": str(code)} for code in (408, 425, 429, 500, 502, 503, 504)),
    *({"kind": kind} for kind in ("reset", "truncated", "malformed", "html", "empty", "wrong_type")),
    *({"kind": "retry_after", "value": value} for value in ("soon", "-5", "0.3", "")),
]


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_wrong_answer_that_passes_costs_one_call(trial: Trial, note: Note) -> None:
    """Each transient fault, and each unreadable answer, is overcome by one more call; nothing shows but the retry."""
    hit = dict(zip(trial.troops, PASSING, strict=False))
    trial.vendor.faults(
        [
            fault | {"count": 1, "match": f"/applications/{id_of(troop)}/.*{DATA}"}
            for troop, fault in hit.items()
        ]
    )
    assert all(run.success for run in trial.harvest())
    assert trial.vendor.calls("data") == len(trial.troops) + len(hit)
    assert {trial.numbers("performance_data", troop)["retries"] for troop in hit} == {1}
    assert not trial.letters()
    rows = trial.assert_whole()
    twice = trial.vendor.log()["repeated"]["total"]
    kinds = ", ".join(f"{fault['kind']} {fault.get('value', '')!s}".strip() for fault in PASSING)
    note("wrong once", f"one call each: {kinds}", twice=twice, rows=rows)
    assert twice == 0
    trial.assert_discreet()


BEHIND = min(3600.0, time.time() % 86_400)
"""Seconds; a vendor for which the day is not over is refused."""
HARMLESS: list[dict[str, object]] = [
    {"kind": "duplicates", "match": WARRIORS},
    {"kind": "duplicates", "match": GROUPS},
    {"kind": "duplicates", "match": DATA},
    {"kind": "shuffled", "match": DATA},
    {"kind": "shuffled", "match": WARRIORS},
    {"kind": "clock_skew", "match": DATA, "seconds": 3600},
    {"kind": "clock_skew", "match": DATA, "seconds": -BEHIND},
    {"kind": "drift_new", "match": DATA},
    {"kind": "drift_new", "match": WARRIORS},
    {"kind": "slow_body", "match": DATA, "seconds": 1},
]


@pytest.mark.parametrize("vendor", [{"troops": 10, "warriors": 30, "data_groups": 3}], indirect=True)
def test_an_odd_answer_that_says_all_is_taken(trial: Trial, note: Note) -> None:
    """Entities twice or in another order, unknown fields, a wrong clock, patience: no call more, every row true."""
    for troop, fault in zip(trial.troops, HARMLESS, strict=True):
        trial.vendor.faults([fault | {"match": f"/applications/{id_of(troop)}(/.*)?{fault['match']}"}])
    trial.vendor.faults([{"kind": "duplicates", "match": "/v2/applications.json"}])
    assert all(run.success for run in trial.harvest())
    assert set(trial.states().values()) == {"green"}
    rows = trial.assert_whole()
    log = trial.vendor.log()
    kinds = ", ".join(dict.fromkeys(str(fault["kind"]) for fault in HARMLESS))
    note("odd but whole", f"always, a troop each: {kinds}", twice=log["repeated"]["total"], rows=rows)
    assert sum(log["by_endpoint"]["data"].values()) == 30
    assert log["repeated"]["total"] == 0


@pytest.mark.parametrize("vendor", [{"troops": 6, "warriors": 6, "data_groups": 3}], indirect=True)
def test_an_entity_that_is_gone_is_no_failure(trial: Trial, note: Note) -> None:
    """404 and 410 are recorded as gone after one call; nobody is told of a failure, and a click asks again."""
    gone = dict(zip(trial.troops, [(404, WARRIORS), (410, WARRIORS), (404, GROUPS), (404, DATA), (410, DATA)],
                    strict=False))  # fmt: skip
    trial.vendor.faults(
        [
            {"kind": str(code), "match": f"/applications/{id_of(troop)}(/.*)?{path}"}
            for troop, (code, path) in gone.items()
        ]
    )
    assert all(run.success for run in trial.harvest())
    assert set(trial.states().values()) == {"green"}
    assert not trial.letters()
    calls = []
    for troop, (_, path) in gone.items():
        asset = {WARRIORS: "warriors", GROUPS: "data_groups", DATA: "performance_data"}[path]
        numbers = trial.numbers(asset, troop)
        assert (numbers["state"], numbers["leaves_gone"] > 0) == ("empty", True)
        calls.append(numbers["calls"])
    # Before the first one is believed, one more call asks whether the vendor is at this address.
    assert sorted(calls) == [1] * (len(gone) - 1) + [2]
    trial.vendor.clear_faults()
    for troop in gone:
        for asset in ("warriors", "data_groups", "performance_data"):
            assert trial.click(asset, troop).success
    note("404 and 410", "lists and data of five troops, then clicks", rows=trial.assert_whole())


@pytest.mark.parametrize("vendor", [{"troops": 40, "warriors": 40, "data_groups": 1}], indirect=True)
def test_a_refused_key_ends_the_run_and_loses_nothing(trial: Trial, note: Note) -> None:
    """After a 401 only what is in flight is still refused, over all troops; with a good key the rest is asked for."""
    trial.vendor.load(latency=0.05)
    trial.vendor.faults([{"kind": "401", "skip": 2, "match": DATA}])
    roster, chain = trial.harvest()
    assert roster.success
    assert not chain.success
    states = trial.states()
    assert "failed" in states.values()
    assert not trial.letters()
    arrivals = trial.vendor.log(arrivals=True)["arrivals"]
    refused = {target for _, target, outcome in arrivals if outcome == "401"}
    # Eight partitions are open at once, of one request each; those that were not yet are not asked for at all.
    assert 1 <= len(refused) <= 8
    failed = next(troop for troop, state in states.items() if state == "failed")
    assert "VENDOR_API_KEY" in trial.numbers("performance_data", failed)["message"]
    trial.vendor.clear_faults()
    assert all(run.success for run in trial.harvest())
    # Whether the key is refused may be asked more than once.
    probe = NewRelic().probe().target
    answered = Counter(
        target for _, target, outcome in trial.vendor.log(arrivals=True)["arrivals"] if outcome == "200"
    )
    twice = sum(answered.values()) - len(answered) - max(0, answered[probe] - 1)
    note(
        "401 in the middle",
        f"{len(refused)} requests refused, then a good key",
        twice=twice,
        rows=trial.assert_whole(),
    )
    assert twice == 0
    trial.assert_discreet()


@pytest.mark.parametrize(
    "mode",
    ["refuse", pytest.param("503", marks=pytest.mark.long), pytest.param("reset", marks=pytest.mark.long)],
)
def test_an_outage_stops_the_calls_and_is_slept_over(trial: Trial, note: Note, mode: str) -> None:
    """While the vendor is down one probe at a time asks; when it is back the harvest goes on by itself."""
    trial.vendor.faults([{"kind": "outage", "seconds": 4, "mode": mode}])
    runs = trial.harvest()
    if not all(run.success for run in runs):
        assert "failed" in trial.states().values() or not runs[0].success
        runs = trial.harvest()
    assert all(run.success for run in runs)
    log = trial.vendor.log()
    during = sum(
        outcomes.get("503", 0) + outcomes.get("reset", 0) for outcomes in log["by_endpoint"].values()
    )
    rows = trial.assert_whole()
    note(f"outage of 4 s ({mode})", f"{during} calls met it", twice=log["repeated"]["total"], rows=rows)
    assert log["repeated"]["total"] == 0
    assert not trial.letters()
    assert during <= 20
