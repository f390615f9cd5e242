"""The simulator's NerdGraph, asked by documents written by hand; each test names the page that it holds it to.

Pages are below docs.newrelic.com/docs; others are threads on GitHub.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from vendor_assets.simulator.world import day_window
from vendor_assets_tests.support.simulator import RunningSimulator, simulator

NOW = "2026-11-22T12:00:00+00:00"
DAY = date(2026, 11, 20)
ACCOUNT = 1234567
VALUE = "newrelic.timeslice.value"
SEARCH = f"domain = 'APM' AND type = 'APPLICATION' AND accountId = {ACCOUNT}"
HOUR = "SINCE 1795258800000 UNTIL 1795262400000"
"""From 2026-11-21T11:00Z, for an hour."""


class _Answer(NamedTuple):
    status: int
    tree: Any

    def nrql(self, alias: str = "nrql") -> Any:
        return self.tree["data"]["actor"]["account"][alias]


def _send(
    vendor: RunningSimulator, body: bytes, headers: dict[str, str], method: str = "POST"
) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", vendor.port, timeout=60)
    connection.request(method, "/graphql", body, {"Content-Type": "application/json", **headers})
    return connection


def _read(connection: http.client.HTTPConnection) -> _Answer:
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return _Answer(response.status, json.loads(body))


def _ask(vendor: RunningSimulator, document: str, key: str = "k", **variables: object) -> _Answer:
    body = json.dumps({"query": document, "variables": variables}).encode()
    return _read(_send(vendor, body, {"Api-Key": key}))


def _queries(**nrql: str) -> str:
    """A document with one query an alias."""
    fields = " ".join(
        f"{alias}: nrql(query: {json.dumps(text)}) {{ results }}" for alias, text in nrql.items()
    )
    return f"{{ actor {{ account(id: {ACCOUNT}) {{ {fields} }} }} }}"


def _results(vendor: RunningSimulator, nrql: str) -> list[dict[str, Any]]:
    answer = _ask(vendor, _queries(nrql=nrql))
    assert "errors" not in answer.tree, answer.tree
    found: list[dict[str, Any]] = answer.nrql()["results"]
    return found


def _millis(day: date) -> str:
    start, end = day_window(day)
    return f"SINCE {start * 1000} UNTIL {end * 1000}"


@pytest.fixture(scope="module")
def vendor() -> Iterator[RunningSimulator]:
    with simulator(world="demo", now=NOW) as running:
        yield running


def test_applications_are_entities(vendor: RunningSimulator) -> None:
    """A search by domain, type and account finds the troops of REST; the id is behind a fragment and in the GUID.

    Source: apis/nerdgraph/examples/nerdgraph-entities-api-tutorial.
    """
    document = """query($q: String!) { actor { found: entitySearch(query: $q) { count results { nextCursor entities {
        name guid accountId ... on ApmApplicationEntityOutline { applicationId } } } } } }"""
    found = _ask(vendor, document, q=SEARCH).tree["data"]["actor"]["found"]
    troops = vendor.world.troops(datetime.fromisoformat(NOW))
    assert found["count"] == len(troops)
    assert found["results"]["nextCursor"] is None
    for entity, troop in zip(found["results"]["entities"], troops, strict=True):
        assert (str(entity["applicationId"]), entity["name"]) == (troop.id, troop.name)
        guid = base64.b64decode(entity["guid"] + "==").decode()
        assert guid == f"{ACCOUNT}|APM|APPLICATION|{troop.id}"
    other = _ask(vendor, document, q="domain = 'INFRA'").tree["data"]["actor"]["found"]
    assert other == {"count": 0, "results": {"nextCursor": None, "entities": []}}


def test_entities_come_in_pages_of_200() -> None:
    """``nextCursor`` leads through all entities and is null on the last page; another search refuses it.

    Source: apis/nerdgraph/examples/nerdgraph-entities-api-tutorial, "nextCursor".
    """
    document = """query($q: String!, $c: String) { actor { entitySearch(query: $q) {
        results(cursor: $c) { nextCursor entities { guid } } } } }"""
    with simulator(troops=450, warriors=450, data_groups=1, churn=False) as running:
        sizes, guids, cursor = [], set[str](), None
        while cursor is not None or not sizes:
            page = _ask(running, document, q=SEARCH, c=cursor).tree["data"]["actor"]["entitySearch"][
                "results"
            ]
            cursor = page["nextCursor"]
            sizes.append(len(page["entities"]))
            guids |= {entity["guid"] for entity in page["entities"]}
            if cursor:
                wrong = _ask(running, document, q="domain = 'APM'", c=cursor)
                assert wrong.tree["data"]["actor"]["entitySearch"]["results"] is None
                assert wrong.tree["errors"][0]["path"] == ["actor", "entitySearch", "results"]
        assert sizes == [200, 200, 50]
        assert len(guids) == 450


def test_the_values_are_those_of_rest_in_seconds(vendor: RunningSimulator) -> None:
    """Every value of a day is in the rows, read by the vendor's table; nobody else is, and nothing twice.

    Source: apis/rest-api-v2/migrate-to-nrql.
    """
    troop = vendor.world.troops_on(DAY)[0].id
    rows = _results(
        vendor,
        f"FROM Metric SELECT average({VALUE}) * 1000 AS ms, min({VALUE}), max({VALUE}), average({VALUE}),"
        f" count({VALUE}) AS 'calls', sum({VALUE}) AS `sum`, apdex({VALUE}) WHERE appId = {troop}"
        f" FACET realAgentId, metricTimesliceName LIMIT MAX {_millis(DAY)} TIMESERIES 30 minutes",
    )
    found = {(*row["facet"], row["beginTimeSeconds"]): row for row in rows if row["calls"]}
    assert len(rows) == len({(*row["facet"], row["beginTimeSeconds"]) for row in rows})
    checked, keys = set(), set()
    for expected in vendor.world.expected_rows(DAY, 1800, troop_ids=[troop]):
        key = (expected.warrior_id, expected.data_group, int(expected.start.timestamp()))
        row = found.get(key)
        if row is None:
            assert expected.data_group == "Errors/all", key
            assert expected.value == 0
            continue
        keys.add(key)
        seconds = {"min_response_time": f"min.{VALUE}", "max_response_time": f"max.{VALUE}"}
        memory = {"used_mb_by_host": "average", "min_used_mb": "min", "max_used_mb": "max"}
        if expected.value_name in seconds:
            value = row[seconds[expected.value_name]] * 1000
        elif expected.value_name == "average_response_time":
            value = row["ms"]
        elif expected.value_name in ("call_count", "error_count"):
            value = row["calls"]
        elif expected.value_name in memory:
            value = row[f"{memory[expected.value_name]}.{VALUE}"]
        elif expected.value_name == "percent":
            value = 100 * row["sum"] / 1800
        elif expected.value_name in ("score", "s", "t", "f", "count"):
            value = row[f"apdex.{VALUE}"][expected.value_name]
        else:
            continue
        checked.add(expected.value_name)
        assert value == pytest.approx(expected.value), expected
    assert keys == set(found)
    assert len(checked) == 14


def test_calls_per_minute_is_a_rate(vendor: RunningSimulator) -> None:
    """``rate(count(…), 1 minute)`` is REST's calls per minute where the warrior reported all the time.

    Source: apis/rest-api-v2/migrate-to-nrql.
    """
    moment = datetime(2026, 11, 21, 11, tzinfo=UTC)
    for troop in vendor.world.troops(moment):
        rows = _results(
            vendor,
            f"SELECT rate(count({VALUE}), 1 minute) AS rate FROM Metric WHERE appId = '{troop.id}'"
            f" AND metricTimesliceName = 'HttpDispatcher' FACET realAgentId {HOUR} LIMIT MAX",
        )
        for row in rows:
            warrior = vendor.world.warrior(row["facet"])
            assert warrior is not None
            assert row["realAgentId"] == row["facet"]
            start = int(moment.timestamp())
            steady = warrior.born <= start and start + 3600 <= warrior.died
            if steady and not vendor.world.silent_seconds(warrior, start, start + 3600):
                (piece,) = vendor.world.timeslices(warrior.id, "HttpDispatcher", start, start + 3600, 3600)
                assert row["rate"] == pytest.approx(piece.values["calls_per_minute"], abs=0.006)


def test_only_who_reported_has_names(vendor: RunningSimulator) -> None:
    """``uniques()`` of agents, hosts and metric names has those with data in the window.

    Source: apis/rest-api-v2/migrate-to-nrql, "List metric names for your app".
    """
    for troop in vendor.world.troops_on(DAY):
        truth = list(vendor.world.expected_rows(DAY, 86_400, troop_ids=[troop.id]))
        (row,) = _results(
            vendor,
            f"SELECT uniques(metricTimesliceName), uniques(realAgentId), uniques(host) FROM Metric"
            f" WHERE appId = '{troop.id}' AND {VALUE} IS NOT NULL {_millis(DAY)} LIMIT MAX",
        )
        assert set(row["uniques.metricTimesliceName"]) == {one.data_group for one in truth}
        warriors = {one.warrior_id for one in truth}
        assert set(row["uniques.realAgentId"]) == warriors
        hosts = {
            warrior.host for warrior in vendor.world.warriors_on(troop.id, DAY) if warrior.id in warriors
        }
        assert set(row["uniques.host"]) == hosts


def test_an_instance_of_java_is_host_and_port(vendor: RunningSimulator) -> None:
    """``instanceName`` is host:port for Java agents; ``appName`` and ``entity.guid`` select as ``appId`` does.

    Source: data-apis/understand-data/metric-data/query-apm-metric-timeslice-data-nrql, "Attributes".
    """
    for troop in vendor.world.troops(datetime.fromisoformat(NOW)):
        guid = base64.b64encode(f"{ACCOUNT}|APM|APPLICATION|{troop.id}".encode()).decode().rstrip("=")
        rows = [
            _results(
                vendor,
                f"FROM Metric SELECT uniques(host), uniques(instanceName) WHERE {source} SINCE 1 day ago",
            )
            for source in (f"appId = {troop.id}", f"entity.guid = '{guid}'", f"appName = '{troop.name}'")
        ]
        assert rows[0] == rows[1] == rows[2]
        ends = ":8080" if troop.language == "java" else ""
        assert [host + ends for host in rows[0][0]["uniques.host"]] == rows[0][0]["uniques.instanceName"]


def test_facets_beyond_the_limit_are_left_out() -> None:
    """``FACET`` shows 10, ``LIMIT`` raises it to 5,000 at most, the rest is gone without a word.

    The largest by the first function come first. Source: nrql/nrql-syntax-clauses-functions, FACET and LIMIT.
    """
    with simulator(troops=1, warriors=300, data_groups=20, churn=False, now=NOW) as running:
        base = f"FROM Metric SELECT max({VALUE}) AS top WHERE appId = 200000000"
        by_both = f"{base} FACET host, metricTimesliceName {HOUR}"
        assert len(_results(running, by_both)) == 10
        assert len(_results(running, f"{by_both} LIMIT 37")) == 37
        most = _results(running, f"{by_both} LIMIT MAX")
        assert len(most) == len(_results(running, f"{by_both} LIMIT 6000")) == 5000
        tops = [row["top"] for row in most]
        assert tops == sorted(tops, reverse=True)


def test_five_attributes_make_a_facet(vendor: RunningSimulator) -> None:
    """``FACET`` takes five attributes and refuses six; of several, ``facet`` is a list.

    Source: nrql/nrql-syntax-clauses-functions, FACET.
    """
    five = "appId, appName, host, realAgentId, metricTimesliceName"
    base = f"FROM Metric SELECT count({VALUE}) WHERE appId = 200000000 {HOUR} FACET {five}"
    rows = _results(vendor, base)
    assert {len(row["facet"]) for row in rows} == {5}
    answer = _ask(vendor, _queries(nrql=base + ", instanceName"))
    assert answer.nrql() is None
    assert answer.status == 200


def test_unique_values_beyond_the_limit_are_left_out() -> None:
    """``uniques()`` has 1,000 values unless its second argument says otherwise; ``LIMIT`` does not count.

    Source: nrql/nrql-syntax-clauses-functions, uniques().
    """
    with simulator(troops=1, warriors=1, data_groups=1500, churn=False, now=NOW) as running:
        for function, most in (
            ("uniques(metricTimesliceName)", 1000),
            ("uniques(metricTimesliceName, 10000)", 1500),
        ):
            (row,) = _results(
                running, f"FROM Metric SELECT {function} WHERE appId = 200000000 LIMIT MAX {HOUR}"
            )
            assert len(row["uniques.metricTimesliceName"]) == most


def test_a_series_has_366_buckets_at_most(vendor: RunningSimulator) -> None:
    """366 minutes by the minute are answered, one more is an error.

    Source: nrql/nrql-syntax-clauses-functions, TIMESERIES.
    """
    base = f"FROM Metric SELECT count({VALUE}) AS calls WHERE appId = 200000000 UNTIL 1795262400000 TIMESERIES 1 minute"
    rows = _results(vendor, f"{base} SINCE {1795262400000 - 366 * 60_000}")
    assert len(rows) == 366
    assert [row["endTimeSeconds"] for row in rows[:-1]] == [row["beginTimeSeconds"] for row in rows[1:]]
    answer = _ask(vendor, _queries(nrql=f"{base} SINCE {1795262400000 - 367 * 60_000}"))
    assert answer.nrql() is None
    assert "366" in answer.tree["errors"][0]["message"]


@pytest.mark.parametrize(
    ("clauses", "begin", "end"),
    [
        ("SINCE '2026-11-20T00:04Z' UNTIL '2026-11-22T00:03Z'", "2026-11-20T00:00", "2026-11-22T00:00"),
        (
            "TIMESERIES 5 minutes SINCE '2026-11-20T00:04:59Z' UNTIL '2026-11-21T00:03:12Z'",
            "2026-11-20T00:08",
            "2026-11-21T00:03",
        ),
    ],
)
def test_ranges_snap(vendor: RunningSimulator, clauses: str, begin: str, end: str) -> None:
    """A long range snaps to 5 minutes; buckets are laid from the end and the start moves forward.

    The page's two examples; timeslices have minutes, so the seconds of the second are cut.
    Source: nrql/using-nrql/query-time-range.
    """
    nrql = f"FROM Metric SELECT count({VALUE}) WHERE appId = 200000000 {clauses}"
    document = f"""query($n: Nrql!) {{ actor {{ account(id: {ACCOUNT}) {{ nrql(query: $n) {{
        results metadata {{ timeWindow {{ begin end }} }} }} }} }} }}"""
    found = _ask(vendor, document, n=nrql).nrql()
    window = {"begin": f"{begin}:00+00:00", "end": f"{end}:00+00:00"}
    millis = {name: datetime.fromisoformat(text).timestamp() * 1000 for name, text in window.items()}
    assert found["metadata"]["timeWindow"] == millis
    if "TIMESERIES" in clauses:
        assert found["results"][0]["beginTimeSeconds"] * 1000 == millis["begin"]


def test_where_nothing_was_there_are_nulls(vendor: RunningSimulator) -> None:
    """Buckets without data have a count of 0 and null averages; facets without data are no rows.

    Source: fifemon/graphql-datasource#68 for the form.
    """
    select = f"FROM Metric SELECT count({VALUE}) AS n, average({VALUE}) AS a"
    base = f"{select} WHERE appId = 200000000 AND host = 'x' {HOUR}"
    assert _results(vendor, base) == [{"n": 0, "a": None}]
    rows = _results(vendor, base + " TIMESERIES 1800 seconds")
    assert [(row["n"], row["a"]) for row in rows] == [(0, None)] * 2
    assert _results(vendor, base + " FACET host") == []


def test_conditions(vendor: RunningSimulator) -> None:
    """``LIKE`` has ``%`` and ignores case, ``=`` does not; ``IN``, ``OR`` and parentheses work.

    Source: nrql/nrql-syntax-clauses-functions, WHERE.
    """
    base = f"SELECT uniques(metricTimesliceName) AS names FROM Metric {HOUR} WHERE appId = 200000000 AND "
    names = _results(vendor, base + f"{VALUE} IS NOT NULL")[0]["names"]
    for condition, wanted in (
        ("metricTimesliceName LIKE 'errors/%'", ["Errors/all"]),
        ("metricTimesliceName = 'errors/all'", []),
        ("metricTimesliceName IN ('Apdex', 'Errors/all')", ["Errors/all", "Apdex"]),
        (
            "(metricTimesliceName = 'Apdex' OR metricTimesliceName LIKE '%physical')",
            ["Memory/Physical", "Apdex"],
        ),
        ("metricTimesliceName NOT IN ('Apdex')", [name for name in names if name != "Apdex"]),
    ):
        assert _results(vendor, base + condition)[0]["names"] == wanted, condition


def test_fields_of_a_timeslice(vendor: RunningSimulator) -> None:
    """The getters read one field each, inside and outside of arithmetic, and filter() narrows one column.

    Source: apis/rest-api-v2/migrate-to-nrql, the table and "Query multiple metrics".
    """
    (row,) = _results(
        vendor,
        f"SELECT count({VALUE}) AS n, sum({VALUE}['count']) AS counts, sum({VALUE}['total']) / sum({VALUE}['count'])"
        f" AS mean, average({VALUE}) AS average, max({VALUE}['max']) AS most, max({VALUE}) AS top,"
        f" filter(count({VALUE}), WHERE metricTimesliceName = 'Apdex') AS none"
        f" FROM Metric WHERE appId = 200000000 AND metricTimesliceName = 'HttpDispatcher' {HOUR}",
    )
    assert row["n"] == row["counts"] > 0
    assert row["mean"] == pytest.approx(row["average"])
    assert row["most"] == row["top"]
    assert row["none"] == 0


def test_one_alias_fails_alone(vendor: RunningSimulator) -> None:
    """An error is a 200: ``data`` is null for its alias, its siblings are whole, ``errors`` has its path and class.

    Source: newrelic/nr-reports#8, newrelic/newrelic-client-go internal/http/graphql.go.
    """
    good = f"FROM Metric SELECT count({VALUE}) WHERE appId = 200000000 {HOUR}"
    answer = _ask(
        vendor, _queries(good=good, wrong="SELECT count( FROM Metric", homeless="FROM Metric SELECT count(*)")
    )
    assert answer.status == 200
    assert answer.nrql("good")["results"][0][f"count.{VALUE}"] > 0
    assert answer.nrql("wrong") is answer.nrql("homeless") is None
    first, second = answer.tree["errors"]
    assert first["path"] == ["actor", "account", "wrong"]
    assert second["path"] == ["actor", "account", "homeless"]
    assert first["message"].startswith("NRQL Syntax Error: Error at line 1 position 15")
    assert first["extensions"]["errorClass"] == "SERVER_ERROR"
    assert "data source" in second["message"]


@pytest.mark.parametrize(
    "document", ["{", "{ actor { nonsense } }", "query($q: Nrql!) { actor { user { id } } }"]
)
def test_a_wrong_document_has_errors_alone(vendor: RunningSimulator, document: str) -> None:
    """What is not GraphQL of this schema gets a 200 with ``errors`` and without ``data``.

    Source: apis/nerdgraph/get-started/introduction-new-relic-nerdgraph.
    """
    answer = _ask(vendor, document)
    assert answer.status == 200
    assert set(answer.tree) == {"errors"}


def test_an_account_that_nobody_sees(vendor: RunningSimulator) -> None:
    """An unknown account is null with an error, beside one that is answered; a body that is no JSON is a 400."""
    answer = _ask(vendor, f"{{ actor {{ a: account(id: 1) {{ id }} b: account(id: {ACCOUNT}) {{ id }} }} }}")
    assert answer.tree["data"]["actor"] == {"a": None, "b": {"id": ACCOUNT}}
    assert answer.tree["errors"][0]["extensions"]["errorClass"] == "ACCESS_DENIED"
    assert _read(_send(vendor, b"x", {"Api-Key": "k"})).status == 400
    assert _read(_send(vendor, b"", {"Api-Key": "k"}, method="GET")).status == 405


def test_refused_keys() -> None:
    """A wrong key is a 401 with BAD_API_KEY, none in ``Api-Key`` a 403.

    Source: newrelic/newrelic-client-go#603, postmanlabs/postman-app-support#11261.
    """
    with simulator(api_key="right") as running:
        body = json.dumps({"query": "{ actor { user { id } } }"}).encode()
        assert _read(_send(running, body, {"Api-Key": "right"})).status == 200
        wrong = _read(_send(running, body, {"Api-Key": "wrong"}))
        assert (wrong.status, wrong.tree["errors"][0]["extensions"]) == (401, {"error_code": "BAD_API_KEY"})
        assert _read(_send(running, body, {"X-Api-Key": "right"})).status == 403


def test_requests_at_once_over_all_keys() -> None:
    """More requests at once than allowed are 429s, whichever of the user's keys they carry; then it goes on.

    Source: apis/nerdgraph/nerdgraph-usage-limits.
    """
    held = json.dumps({"query": "query held { actor { user { id } } }"}).encode()
    with simulator(limit="1/h", fault=["hang:match=held"]) as running:
        lines = [_send(running, held, {"Api-Key": f"key-{number}"}) for number in range(25)]
        while running.log()["graphql"]["documents"] < 25:
            pass
        assert [_ask(running, "{ actor { user { id } } }", key="another").status for _ in range(3)] == [
            429
        ] * 3
        lines.pop().close()
        while running.log()["in_flight"] > 24:
            pass
        assert [_ask(running, "{ actor { user { id } } }").status for _ in range(3)] == [200] * 3
        log = running.log()
        assert log["violations"] == 3
        assert log["graphql"]["peak_in_flight"] == 26
        assert log["graphql"]["documents"] == 31
        for line in lines:
            line.close()


def test_each_alias_counts_as_a_query() -> None:
    """Beyond the account's queries a minute each further alias is refused by itself.

    Source: nrql/using-nrql/rate-limits-nrql-queries.
    """
    with simulator(queries_per_minute=5, now=NOW) as running:
        texts = {f"q{n}": f"FROM Metric SELECT count({VALUE}) WHERE appId = {n} {HOUR}" for n in range(7)}
        answer = _ask(running, _queries(**texts))
        refused = [error["path"][-1] for error in answer.tree["errors"]]
        assert (answer.status, refused) == (200, ["q5", "q6"])
        log = running.log()
        assert log["violations"] == 2
        assert log["graphql"] == {
            "documents": 1,
            "queries": 7,
            "queries_refused": 2,
            "worst_minute_of_queries": 7,
            "peak_in_flight": 1,
        }


def test_one_query_again_and_again() -> None:
    """The same NRQL more often than allowed in a minute is a 429.

    Source: nrql/using-nrql/rate-limits-nrql-queries, "Limit on repetitive queries".
    """
    with simulator(now=NOW) as running:
        document = _queries(nrql=f"FROM Metric SELECT count({VALUE}) WHERE appId = 200000000 {HOUR}")
        assert [_ask(running, document).status for _ in range(122)] == [200] * 120 + [429] * 2
        assert running.log()["violations"] == 2


def test_a_query_that_costs_too_much_times_out() -> None:
    """A query that takes longer than 5 seconds, or than its own ``timeout``, fails with TIMEOUT.

    Source: nrql/using-nrql/rate-limits-nrql-queries, argoproj/argo-rollouts#3741.
    """
    with simulator(points_per_second=100, now=NOW, world="demo") as running:
        nrql = (
            f"FROM Metric SELECT count({VALUE}) WHERE appId = 200000000 {_millis(DAY)} TIMESERIES 30 minutes"
        )
        answer = _ask(running, _queries(nrql=nrql))
        assert answer.nrql() is None
        (error,) = answer.tree["errors"]
        assert error["message"] == "NRDB query duration exceeded the set timeout"
        assert error["extensions"]["errorClass"] == "TIMEOUT"
        document = f"""query($n: Nrql!, $t: Seconds) {{ actor {{ account(id: {ACCOUNT}) {{
            nrql(query: $n, timeout: $t) {{ results }} }} }} }}"""
        assert len(_ask(running, document, n=nrql, t=120).nrql()["results"]) == 48


def test_faults_of_single_queries() -> None:
    """One query of each tenth document times out, and so does each with one metric; their siblings are whole."""
    with simulator(now=NOW) as running:
        running.faults([{"kind": "alias_timeout", "every": 10}, {"kind": "nrql_timeout", "match": "Apdex"}])
        failed = []
        for number in range(20):
            base = f"FROM Metric SELECT count({VALUE}) WHERE appId = 200000000 AND metricTimesliceName = "
            end = f" SINCE {1795262400000 - (number + 1) * 3_600_000} UNTIL 1795262400000"
            texts = {
                "a": f"{base}'HttpDispatcher'{end}",
                "b": f"{base}'Apdex'{end}",
                "c": f"{base}'Errors/all'{end}",
            }
            answer = _ask(running, _queries(**texts))
            assert answer.nrql("b") is None
            assert answer.nrql("c")["results"]
            failed += [number] if answer.nrql("a") is None else []
            assert all(error["extensions"]["errorClass"] == "TIMEOUT" for error in answer.tree["errors"])
        assert failed == [0, 10]
        assert running.log()["faults"] == {"alias_timeout": 2, "nrql_timeout": 20}
        running.clear_faults()
        assert "errors" not in _ask(running, _queries(**texts)).tree
        log = running.log()
        assert log["repeated"]["total"] == 0
        assert log["repeated_leaves"]["total"] > 0


def test_faults_of_whole_documents() -> None:
    """A fault's ``match`` is searched in the document too; statuses and damaged lists come as for REST."""
    nrql = f"FROM Metric SELECT count({VALUE}) AS n WHERE appId = 200000000 FACET host {HOUR}"
    with simulator(now=NOW) as running:
        right = _results(running, nrql)
        running.faults(
            [{"kind": "502", "match": "FACET host", "count": 1}, {"kind": "duplicates", "match": "FACET"}]
        )
        assert _ask(running, _queries(nrql=nrql)).status == 502
        assert _results(running, nrql) == [*right, right[0]]
        running.clear_faults()
        running.faults([{"kind": "endless_paging"}])
        document = "{ actor { entitySearch { results { nextCursor } } } }"
        assert _ask(running, document).tree["data"]["actor"]["entitySearch"]["results"]["nextCursor"]


def test_the_log_counts_queries_and_leaves(tmp_path: Path) -> None:
    """Each document is a line with its queries; one that was answered before is repeated, and so are its leaves."""
    path = tmp_path / "calls.jsonl"
    with simulator(log_file=path, now=NOW) as running:
        nrql = f"FROM Metric SELECT sum({VALUE}) WHERE appId = 200000000 FACET realAgentId, metricTimesliceName {HOUR}"
        first = len(_results(running, nrql + " LIMIT MAX"))
        assert running.log()["leaves"] == first > 0
        _ask(running, _queries(a=nrql + " LIMIT MAX", b=nrql))
        log = running.log()
        assert log["repeated"]["total"] == 0
        assert log["repeated_leaves"]["total"] == first
        _results(running, nrql + " LIMIT MAX")
        assert running.log()["repeated"]["by_endpoint"] == {"graphql": 1}
        assert running.log()["by_endpoint"] == {"graphql": {"200": 3}}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["queries"] for line in lines] == [1, 2, 1]
    assert lines[0]["target"] == lines[2]["target"] != lines[1]["target"]


def test_old_and_unsettled_data() -> None:
    """Data beyond the retention is gone, data that has not settled is not there yet, older ranges come in hours.

    Source: apis/rest-api-v2/basic-functions/extract-metric-timeslice-data, whose data these are.
    """
    with simulator(now=NOW, retention_days=30, settle=3600, churn=False) as running:
        now = datetime.fromisoformat(NOW)
        base = f"FROM Metric SELECT count({VALUE}) AS n WHERE appId = 200000000"
        for since, minutes in ((timedelta(days=40), 60), (timedelta(minutes=30), 30)):
            start = int((now - since).timestamp())
            (row,) = _results(running, f"{base} SINCE {start * 1000} UNTIL {(start + minutes * 60) * 1000}")
            assert row["n"] == 0
        start = int((now - timedelta(days=20)).timestamp())
        rows = _results(
            running, f"{base} SINCE {start * 1000} UNTIL {(start + 7200) * 1000} TIMESERIES 10 minutes"
        )
        assert [row["endTimeSeconds"] - row["beginTimeSeconds"] for row in rows] == [3600, 3600]
        assert all(row["n"] for row in rows)
