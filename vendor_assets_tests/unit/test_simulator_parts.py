"""The simulator's pure parts: world, dialect, limits, load, faults, record, flags."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.simulator.command import main
from vendor_assets.simulator.data_groups import VALUE_NAMES
from vendor_assets.simulator.dialect import Dialect, timeslice_grid
from vendor_assets.simulator.faults import KINDS, Faults, parse_fault, parse_fault_flag, spoil
from vendor_assets.simulator.limits import RateLimit, parse_limit
from vendor_assets.simulator.load import Load
from vendor_assets.simulator.record import Record, canonical
from vendor_assets.simulator.world import HOSTILE_NAMES, World, day_window

DAY = date(2026, 11, 20)
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC).timestamp()
DAYS = st.dates(date(2024, 1, 1), date(2027, 12, 31))


def test_two_worlds_with_one_seed_tell_the_same() -> None:
    """The same arguments give the same rows, another seed gives others."""
    first, again, other = World.preset("small"), World.preset("small"), World.preset("small", seed=2)
    rows = list(first.expected_rows(DAY, 3600))
    assert rows == list(again.expected_rows(DAY, 3600))
    assert rows != list(other.expected_rows(DAY, 3600))


def test_one_troop_is_large_and_many_are_small() -> None:
    """Places for warriors follow a Zipf law and add up to what was asked for."""
    world = World(troops=20, warriors=200, churn=False)
    sizes = [len(world.warriors(troop.id, NOW)) for troop in world.troops(NOW)]
    assert sum(sizes) == 200
    assert sizes[0] > 50
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= 1


@given(DAYS)
def test_a_life_is_the_same_from_the_list_and_by_id(day: date) -> None:
    """Each warrior of a day is found by its id, belongs to a troop of that day, and lives on it."""
    world = World.preset("demo")
    start, end = day_window(day)
    troops = {troop.id for troop in world.troops_on(day)}
    for warrior in world.roster(day):
        assert world.warrior(warrior.id) == warrior
        assert warrior.troop_id in troops
        assert warrior.born < end
        assert warrior.died > start
        assert warrior.born % 60 == warrior.died % 60 == 0


@given(DAYS, st.integers(0, 1439))
def test_a_list_shows_exactly_those_that_live(day: date, minute: int) -> None:
    """What is alive at a moment is the part of the day's roster whose life holds the moment."""
    world = World.preset("demo")
    moment = day_window(day)[0] + minute * 60
    seen = {warrior.id for troop in world.troops(moment) for warrior in world.warriors(troop.id, moment)}
    assert seen == {warrior.id for warrior in world.roster(day) if warrior.born <= moment < warrior.died}


def test_troops_and_warriors_come_and_go() -> None:
    """Over a week, the demo's rosters differ from day to day and within a day."""
    world = World.preset("demo")
    days = [DAY + timedelta(days=offset) for offset in range(7)]
    assert len({tuple(troop.id for troop in world.troops_on(day)) for day in days}) > 1
    assert len({tuple(warrior.id for warrior in world.roster(day)) for day in days}) == 7
    start, end = day_window(DAY)
    assert any(start < warrior.born or warrior.died < end for warrior in world.roster(DAY))


def test_without_churn_everything_lives_for_ever() -> None:
    """A world without churn has the same roster each day and no gap in any series."""
    world = World.preset("small", churn=False)
    assert world.roster(DAY) == world.roster(date(2024, 2, 29))
    warriors, values = world.roster(DAY), 0
    for group in world.data_groups(warriors[0].id):
        values += len(group.value_names)
    rows = list(world.expected_rows(DAY, 1800, troop_ids=[warriors[0].troop_id]))
    assert len(rows) == 48 * values * len(world.warriors(warriors[0].troop_id, NOW))


def test_only_what_was_seen_is_expected() -> None:
    """A roster from lists asked at given moments holds nobody who lived only between them."""
    world = World.preset("demo")
    seen = world.roster(DAY, seen_at=[NOW])
    assert {warrior.id for warrior in seen} != {warrior.id for warrior in world.roster(DAY)}
    expected = {row.warrior_id for row in world.expected_rows(DAY, 3600, seen_at=[NOW])}
    assert expected <= {warrior.id for warrior in seen}


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (DAY, 24)])
def test_a_day_is_as_long_as_its_clock_says(day: date, hours: int) -> None:
    """A day in a time zone with summer time has 23, 24 or 25 hours of timeslices."""
    world = World.preset("small", churn=False)
    rows = list(world.expected_rows(day, 3600, timezone="Europe/Berlin"))
    assert len({row.start for row in rows}) == hours


def test_a_slice_belongs_to_the_day_in_which_it_starts() -> None:
    """In Kathmandu (+05:45) slices of an hour start on whole UTC hours, within the local day."""
    world = World.preset("small", churn=False)
    start, end = day_window(DAY, "Asia/Kathmandu")
    starts = {row.start.timestamp() for row in world.expected_rows(DAY, 3600, timezone="Asia/Kathmandu")}
    assert len(starts) == 24
    assert all(start <= moment < end and moment % 3600 == 0 for moment in starts)


def test_the_truth_holds_together() -> None:
    """Calls per minute are the call count over the covered minutes, and the minimum is below the maximum."""
    world = World.preset("demo")
    warrior = max(world.roster(DAY), key=lambda one: one.died - one.born)
    for piece in world.timeslices(warrior.id, "HttpDispatcher", *day_window(DAY), 1800):
        values = piece.values
        assert values["min_response_time"] < values["average_response_time"] < values["max_response_time"]
        assert values["call_count"] == int(values["call_count"])
        assert values["calls_per_minute"] >= math.floor(values["call_count"] / 30)


def test_every_day_has_an_incident_that_shows() -> None:
    """An incident multiplies the values of its troop in its hours."""
    world = World.preset("demo")
    for offset in range(14):
        assert world.incidents(DAY + timedelta(days=offset))
    calm = World.preset("demo")
    incident = next(
        one
        for offset in range(14)
        for one in world.incidents(DAY + timedelta(days=offset))
        if one.kind == "slow_datastore"
    )
    warrior = world.warriors(incident.troop_id, incident.start)[0]
    group = next(one.name for one in world.data_groups(warrior.id) if one.name.startswith("Datastore/"))
    during = calm.timeslices(warrior.id, group, incident.start, incident.start + timedelta(minutes=10), 60)
    before = calm.timeslices(warrior.id, group, incident.start - timedelta(minutes=10), incident.start, 60)
    assert during[0].values["average_response_time"] > 3 * before[0].values["average_response_time"]


@pytest.mark.parametrize("later", [0, 100, 200, 300])
def test_the_demo_was_alive_as_long_as_a_newcomer_may_click(later: int) -> None:
    """Most of what is listed today had values a month ago: the vendor lists no warrior that is gone."""
    world, today = World.preset("demo", stable_days=365), DAY + timedelta(days=later)
    listed = [warrior for troop in world.troops_on(today) for warrior in world.warriors_on(troop.id, today)]
    stable = [
        warrior for warrior in listed if warrior.died - warrior.born > timedelta(days=3).total_seconds()
    ]
    before = datetime.combine(today - timedelta(days=30), time(), UTC).timestamp()
    alive = [warrior for warrior in stable if warrior.born <= before]
    assert len({warrior.troop_id for warrior in alive}) >= 3
    assert len(alive) >= 0.75 * len(stable) > 0


def test_late_data_changes_the_counts_of_its_day_only() -> None:
    """A restated day has more calls than before, its neighbour has not."""
    world, later = World.preset("small", churn=False), World.preset("small", churn=False)
    later.restate(DAY, 1.5)
    warrior = world.roster(DAY)[0].id
    for day, changed in ((DAY, True), (DAY + timedelta(days=1), False)):
        window = day_window(day)
        assert (
            world.timeslices(warrior, "HttpDispatcher", *window, 3600)
            != later.timeslices(warrior, "HttpDispatcher", *window, 3600)
        ) is changed


def test_hostile_worlds_hold_every_name_that_hurts() -> None:
    """Hostile troops keep their names, two share one, one id is not a number, some are empty."""
    world = World.preset("small", hostile=True)
    troops = world.troops(NOW)
    names = [troop.name for troop in troops]
    assert set(HOSTILE_NAMES) <= set(names)
    assert names.count("twins") == 2
    assert any(not troop.id.isdecimal() for troop in troops)
    by_name = {troop.name: troop for troop in troops}
    assert world.warriors(by_name["a troop with no warriors"].id, NOW) == []
    bare = world.warriors(by_name["a warrior with no data groups"].id, NOW)[0]
    assert world.data_groups(bare.id) == ()
    silent = world.warriors(by_name["a data group with no values"].id, NOW)[0]
    assert world.data_groups(silent.id)[-1].value_names == ()


@pytest.mark.parametrize("text", ["", "7", "-1", "9" * 40, "x", "²", "200000000000000"])
def test_unknown_ids_are_nobody(text: str) -> None:
    """An id that was never given is no troop and no warrior, whatever it looks like."""
    world = World.preset("small")
    assert world.troop(text, NOW) is None
    assert world.warrior(text) is None
    assert world.warriors(text, NOW) == []
    assert world.data_groups(text) == ()


# Dialect


def _dialect(**settings: object) -> Dialect:
    world = World.preset("small", churn=False)
    return Dialect(world, "http://vendor", **settings)  # type: ignore[arg-type]


def _first(dialect: Dialect) -> str:
    troop = dialect.world.troops(NOW)[0]
    return f"/v2/applications/{troop.id}/hosts/{dialect.world.warriors(troop.id, NOW)[0].id}"


def test_data_answers_equal_the_truth() -> None:
    """Every value in an answer is the one that the world computes, to the last digit."""
    dialect = _dialect()
    world = dialect.world
    warrior = world.roster(DAY)[0]
    groups = world.data_groups(warrior.id)
    names = "&".join(f"names[]={quote(group.name)}" for group in groups)
    target = f"{_first(dialect)}/metrics/data.json?{names}&from=2026-11-20T00:00:00+00:00"
    answer = dialect.reply(target + "&to=2026-11-21T00:00:00Z&period=1800", NOW)
    found = {
        (metric["name"], name, piece["from"], piece["to"], value)
        for metric in json.loads(answer.body)["metric_data"]["metrics"]
        for piece in metric["timeslices"]
        for name, value in piece["values"].items()
    }
    assert found == {
        (row.data_group, row.value_name, row.start.isoformat(), row.end.isoformat(), row.value)
        for row in world.expected_rows(DAY, 1800)
        if row.warrior_id == warrior.id
    }
    assert len(answer.leaves) == len(groups)


def test_unknown_names_are_named_and_known_values_can_be_chosen() -> None:
    """Unknown metric names answer 200 and are listed as not found; values[] leaves out the others."""
    dialect = _dialect()
    query = "names[]=nope&names[]=HttpDispatcher&values[]=call_count&from=2026-11-20T00:00:00Z"
    answer = dialect.reply(f"{_first(dialect)}/metrics/data.json?{query}&to=2026-11-20T03:00:00Z", NOW)
    tree = json.loads(answer.body)["metric_data"]
    assert answer.status == 200
    assert (tree["metrics_not_found"], tree["metrics_found"]) == (["nope"], ["HttpDispatcher"])
    assert {name for piece in tree["metrics"][0]["timeslices"] for name in piece["values"]} == {"call_count"}
    assert len(tree["metrics"][0]["timeslices"]) == 180


@pytest.mark.parametrize(
    ("tail", "status"),
    [
        ("/metrics/data.json?names[]=A&from=2026-11-20T00:00:00Z&to=2026-11-20T00:00:59Z", 422),
        ("/metrics/data.json?from=2026-11-20T00:00:00Z", 422),
        ("/metrics/data.json?names[]=A&from=yesterday", 422),
        ("/metrics/data.json?names[]=A&period=x", 422),
        ("0/metrics.json", 404),
        ("/metrics.xml", 404),
    ],
)
def test_wrong_requests_are_refused_in_new_relics_words(tail: str, status: int) -> None:
    """A range under a minute, missing names and unreadable numbers are 422, unknown things 404."""
    dialect = _dialect()
    answer = dialect.reply(_first(dialect) + tail, NOW)
    assert answer.status == status
    assert json.loads(answer.body)["error"]["title"]


@pytest.mark.parametrize(
    ("hours", "age_days", "period", "step"),
    [
        (3, 1, 0, 60),
        (6, 1, 0, 120),
        (14, 1, 0, 300),
        (24, 1, 0, 600),
        (24, 1, 1800, 1800),
        (24, 1, 700, 1200),
        (96, 5, 0, 1800),
        (7 * 24, 8, 0, 3600),
        (5, 20, 0, 1800),
        (5, 20, 60, 1800),
        (5, 20, 3600, 3600),
        (24, 20, 1800, 8640),
        (21 * 24, 30, 0, 10_800),
        (100 * 24, 120, 0, 259_200),
    ],
)
def test_granularity_follows_range_and_age(hours: int, age_days: int, period: int, step: int) -> None:
    """Long ranges and old data come in coarse slices, and a period is rounded up to what is allowed."""
    start = NOW - age_days * 86_400
    assert timeslice_grid(start, start + hours * 3600, period, NOW)[1] == step


@given(st.integers(60, 86_400 * 100), st.integers(0, 86_400 * 200), st.integers(0, 90_000))
def test_slices_cover_the_range(length: int, age: int, period: int) -> None:
    """The first slice holds the start of the range, and no slice is shorter than the period asked for."""
    start = NOW - age - length
    first, step = timeslice_grid(start, start + length, period, NOW)
    assert first <= start < first + step
    assert step >= period


def test_pages_hold_each_entity_once() -> None:
    """Following next from page to page gives each warrior once, and last is named only where wished."""
    whole = [warrior.id for warrior in _dialect().world.warriors("200000000", NOW)]
    for last in (True, False):
        dialect = _dialect(page_size=2, link_last=last)
        target, found = "/v2/applications/200000000/hosts.json", []
        while target:
            answer = dialect.reply(target, NOW)
            found += [str(host["id"]) for host in json.loads(answer.body)["application_hosts"]]
            links = dict(answer.headers).get("Link", "")
            assert ('rel="last"' in links) is (last and 'rel="next"' in links)
            target = (
                links.partition('>; rel="next"')[0].rpartition("<http://vendor")[2] if "next" in links else ""
            )
        assert found == whole


def test_data_of_the_gone_is_kept_until_it_is_not() -> None:
    """A vanished warrior is asked by id; after a while it is a 404, and old data is not found."""
    world = World.preset("demo")
    warrior = next(one for one in world.roster(DAY) if one.died < NOW - 3600)
    base = f"/v2/applications/{warrior.troop_id}/hosts/{warrior.id}/metrics"
    data = f"{base}/data.json?names[]=HttpDispatcher&from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z"
    assert Dialect(world).reply(data, NOW).status == 200
    assert Dialect(world, gone_after_seconds=60).reply(data, NOW).status == 404
    old = json.loads(Dialect(world, retention_days=1).reply(data, NOW).body)["metric_data"]
    assert old["metrics_not_found"] == ["HttpDispatcher"]
    listed = json.loads(Dialect(world).reply(f"/v2/applications/{warrior.troop_id}/hosts.json", NOW).body)
    assert warrior.id not in {str(host["id"]) for host in listed["application_hosts"]}


def test_nothing_is_told_about_the_future() -> None:
    """Slices that have not begun are left out, and the running one counts only what has happened."""
    dialect = _dialect()
    now = datetime(2026, 11, 20, 10, 15, tzinfo=UTC).timestamp()
    query = "names[]=HttpDispatcher&from=2026-11-20T10:00:00Z&to=2026-11-20T12:00:00Z&period=1800"
    target = f"{_first(dialect)}/metrics/data.json?{query}"
    early = json.loads(dialect.reply(target, now).body)["metric_data"]["metrics"][0]["timeslices"]
    late = json.loads(dialect.reply(target, NOW).body)["metric_data"]["metrics"][0]["timeslices"]
    assert (len(early), len(late)) == (1, 4)
    assert early[0]["values"]["call_count"] < 0.6 * late[0]["values"]["call_count"]


# Limits


@given(
    st.sampled_from(["bucket", "fixed", "sliding"]),
    st.integers(1, 30),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
)
def test_no_window_admits_more_than_its_limit(kind: str, count: int, gaps: list[float]) -> None:
    """Sliding windows hold at most the limit, fixed ones twice, buckets the limit and the burst."""
    limit = RateLimit([parse_limit(f"{count}/s")], kind)  # type: ignore[arg-type]
    now, admitted = 0.0, []
    for gap in gaps:
        now += gap
        if limit.admit("data", now)[0]:
            admitted.append(now)
    worst = max((sum(1 for other in admitted if start <= other < start + 1) for start in admitted), default=0)
    assert worst <= (count if kind == "sliding" else 2 * count)


@given(st.sampled_from(["bucket", "fixed", "sliding"]), st.integers(1, 1000))
def test_even_spacing_at_the_limit_is_admitted(kind: str, count: int) -> None:
    """A caller who keeps just below the limit is never refused, with a burst of one as well."""
    limit = RateLimit([parse_limit(f"{count}/s")], kind, 1)  # type: ignore[arg-type]
    assert all(limit.admit("data", number * 1.001 / count)[0] for number in range(1, 2 * count))


def test_several_limits_hold_at_once() -> None:
    """A call needs room in all limits of its endpoint, and a refused one takes from none."""
    limit = RateLimit([parse_limit("3/h"), parse_limit("1/h@data")])
    assert [limit.admit(name, 1.0)[0] for name in ("data", "data", "hosts", "hosts", "hosts")] == [
        True,
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("text", ["", "20", "0/s", "-1/s", "20/fortnight", "x/s", "20/s@nowhere", "1.5/s"])
def test_limits_that_cannot_be_read_are_refused(text: str) -> None:
    """A limit is a whole number per s, min, h or day."""
    with pytest.raises(ValueError, match="limit"):
        parse_limit(text)


# Load


def test_latency_grows_with_load() -> None:
    """At nine tenths of the capacity the mean wait is several times that at a tenth."""
    means = []
    for share in (0.1, 0.9):
        load = Load(0.0, 100.0)
        gap = 1 / (100 * share)
        means.append(sum(load.delay(number * gap) for number in range(5000)) / 5000)
    assert means[1] > 3 * means[0]


def test_throughput_ends_at_the_capacity() -> None:
    """Of calls offered at twice the capacity, the last is ready after twice the time."""
    load = Load(0.0, 100.0)
    delays = [load.delay(number / 200) for number in range(2000)]
    assert 8 < delays[-1] < 12


def test_too_much_at_once_brings_it_down() -> None:
    """More than the factor times the capacity within a second is a collapse, that much is none."""
    load = Load(0.0, 10.0, 3.0, 60.0)
    assert not any(load.offer(1.0 + number / 1000) for number in range(30))
    assert load.offer(1.5)


# Faults


def test_rules_count_skip_and_match() -> None:
    """A rule hits as often as it says, after those it lets through, where its pattern is found."""
    faults = Faults([parse_fault_flag(r"502:count=2;skip=1;match=hosts\.json")])
    targets = ["/a/hosts.json", "/v2/applications.json", "/b/hosts.json", "/c/hosts.json", "/d/hosts.json"]
    assert [fault.status if fault else None for fault in map(faults.pick, targets)] == [
        None,
        None,
        502,
        502,
        None,
    ]
    assert faults.hits == {"502": 2}


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "gremlins"},
        {},
        {"kind": "500", "often": 1},
        {"kind": "reset", "rate": 2},
        {"kind": "reset", "count": "many"},
        {"kind": "reset", "match": "("},
        {"kind": "99"},
        {"kind": "outage", "mode": "sulk"},
    ],
)
def test_faults_that_cannot_be_read_are_refused(values: dict[str, object]) -> None:
    """A fault with an unknown kind, field or value is refused with its name."""
    with pytest.raises(ValueError, match="fault"):
        parse_fault(values)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_leaves_some_body(kind: str) -> None:
    """Each kind of fault can be read and applied to each kind of answer."""
    parse_fault({"kind": kind})
    dialect = _dialect()
    for target in (
        "/v2/applications.json",
        "/v2/applications/200000000/hosts.json",
        _first(dialect) + "/metrics.json",
        _first(dialect) + "/metrics/data.json?names[]=HttpDispatcher",
    ):
        body = dialect.reply(target, NOW).body
        spoiled = spoil(kind, body)
        changes = kind.startswith("drift") or kind in ("malformed", "html", "empty", "duplicates")
        assert (spoiled != body) is changes or kind in ("weird_values", "weird_times", "shuffled")


# Record


def test_the_log_counts_what_was_served_again() -> None:
    """The same request in another order, and the same leaf in another batch, are repetitions."""
    record = Record(0.0)
    for moment, target, leaves in (
        (1.0, "/x/metrics/data.json?names[]=a&names[]=b", ("1 a", "1 b")),
        (1.1, "/x/metrics/data.json?names%5B%5D=b&names[]=a", ("1 b", "1 a")),
        (1.2, "/x/metrics/data.json?names[]=b", ("1 b",)),
    ):
        record.arrive(moment)
        record.leave(moment, moment, "data", target, "200", leaves=leaves, served=True)
    summary = record.summary(2.0)
    assert summary["repeated"] == {
        "total": 1,
        "by_endpoint": {"data": 1},
        "top": [{"what": "/x/metrics/data.json?names[]=a&names[]=b", "count": 2}],
    }
    assert summary["repeated_leaves"] == {
        "total": 3,
        "top": [{"what": "1 b", "count": 3}, {"what": "1 a", "count": 2}],
    }
    assert summary["worst_second"] == 3
    assert canonical("/a") == "/a"


@pytest.mark.parametrize(
    "flags",
    [
        ["--port", "x"],
        ["--port", "70000"],
        ["--limit", "20"],
        ["--fault", "gremlins"],
        ["--now", "soon"],
        ["--world", "huge"],
        ["--troops", "9", "--warriors", "3"],
        ["--capacity", "0"],
        ["--unknown"],
    ],
)
def test_wrong_flags_get_one_line(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong flag ends with exit 2 and one line that names it."""
    with pytest.raises(SystemExit) as end:
        main(flags)
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_value_names_fit_the_values() -> None:
    """Each family gives exactly as many values as it has names."""
    world = World(troops=1, warriors=1, data_groups=20, churn=False)
    warrior = world.roster(DAY)[0]
    families = set()
    for group in world.data_groups(warrior.id):
        families.add(group.family)
        slices = world.timeslices(warrior.id, group.name, *day_window(DAY), 3600)
        assert {tuple(piece.values) for piece in slices} == {VALUE_NAMES[group.family]}
    assert families == set(VALUE_NAMES) - {"silent"}
