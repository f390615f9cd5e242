"""The conformance suite: our own vendors pass it, and each of its checks finds what it is for."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from vendor_assets.cli import main
from vendor_assets.days import Window
from vendor_assets.vendors.base import Asset, DataGroup, Parsed, PlannedRequest, Request, Response
from vendor_assets.vendors.cloudwatch import Cloudwatch
from vendor_assets.vendors.conformance import CHECKS, VendorConformance, check
from vendor_assets.vendors.datadog import Datadog
from vendor_assets.vendors.nerdgraph import NerdGraph
from vendor_assets.vendors.new_relic import NewRelic
from vendor_assets.vendors.prometheus import Prometheus


class TestNewRelic(VendorConformance):
    """REST v2."""

    vendor = NewRelic()


class TestNerdGraph(VendorConformance):
    """NerdGraph."""

    vendor = NerdGraph("1234567")


class TestCloudwatch(VendorConformance):
    """Amazon CloudWatch."""

    vendor = Cloudwatch(account="123456789012")


class TestDatadog(VendorConformance):
    """Datadog."""

    vendor = Datadog()


class TestPrometheus(VendorConformance):
    """Prometheus."""

    vendor = Prometheus()


def _changed(**methods: Any) -> NewRelic:
    return type("Broken", (NewRelic,), methods)()


def _data(change: Callable[[list[PlannedRequest]], list[PlannedRequest]]) -> NewRelic:
    def performance_data(
        self: NewRelic, troop: str, warrior: str, groups: Sequence[DataGroup], day: Window, resolution: int
    ) -> list[PlannedRequest]:
        return change(NewRelic.performance_data(self, troop, warrior, groups, day, resolution))

    return _changed(performance_data=performance_data)


def _first_leaf(planned: list[PlannedRequest]) -> list[PlannedRequest]:
    return [replace(each, leaves=each.leaves[:1]) for each in planned]


def _parse(self: NewRelic, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
    return Parsed()


def _reads_a_file(self: NewRelic, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
    Path(__file__).open().close()
    return NewRelic.parse(self, asset, planned, response)


def _with_header(self: NewRelic) -> Request:
    return Request("/v2/applications.json", (), "probe", headers=(("X-Api-Key", "k"),))


def _reads_the_environment(self: NewRelic, troop: str, day: Window) -> PlannedRequest:
    return _with(NewRelic.warriors(self, troop, day), "path", os.environ.get("PATH", ""))


def _runs_a_program(self: NewRelic, troop: str, day: Window) -> PlannedRequest:
    os.system("true")  # noqa: S605
    return NewRelic.warriors(self, troop, day)


def _probe(**changes: Any) -> NewRelic:
    return _changed(probe=lambda self: replace(NewRelic.probe(self), **changes))


def _remembers_the_key(self: NewRelic, api_key: str) -> dict[str, str]:
    self.probe = lambda: Request("/v2", (("k", api_key),), "probe")  # type: ignore[method-assign]
    return {"X-Api-Key": api_key}


def _always_the_same_day(
    self: NewRelic, troop: str, warrior: str, groups: Sequence[DataGroup], day: Window, resolution: int
) -> list[PlannedRequest]:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    fixed = Window(first, first + timedelta(days=1))
    return NewRelic.performance_data(self, troop, warrior, groups, fixed, resolution)


def _overlapping(self: NewRelic, planned: PlannedRequest) -> list[PlannedRequest]:
    parts = NewRelic.split(self, planned)
    return [replace(part, leaves=planned.leaves) for part in parts]


_count = itertools.count()


def _each(change: Callable[[PlannedRequest], PlannedRequest]) -> NewRelic:
    return _data(lambda planned: list(map(change, planned)))


def _with(planned: PlannedRequest, *pair: str) -> PlannedRequest:
    params = (*planned.request.params, (pair[0], pair[1]))
    return replace(planned, request=replace(planned.request, params=params))


def _splits_a_leaf(*values: str) -> NewRelic:
    """A single leaf is split into itself, with another parameter."""

    def split(self: NewRelic, planned: PlannedRequest) -> list[PlannedRequest]:
        if len(planned.leaves) > 1:
            return NewRelic.split(self, planned)
        return [_with(planned, "n", value) for value in values]

    return _changed(split=split)


class Unordered(NewRelic):
    """Asks in the order of a set."""

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """As New Relic's."""
        by_name = {group.name: group for group in groups}
        return super().performance_data(
            troop_id, warrior_id, [by_name[name] for name in set(by_name)], day, resolution_seconds
        )


class Remembers(NewRelic):
    """Asks for what was asked for before."""

    last = "0"

    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:
        """As New Relic's."""
        return _with(super().data_groups(troop_id, warrior_id, day), "last", self.last)

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """As New Relic's."""
        self.last = troop_id
        return super().performance_data(troop_id, warrior_id, groups, day, resolution_seconds)


def _stamped(self: NewRelic, troop: str, day: Window) -> PlannedRequest:
    return _with(NewRelic.warriors(self, troop, day), "now", str(int(time.time())))


def _dated(self: NewRelic, troop: str, day: Window) -> PlannedRequest:
    return _with(NewRelic.warriors(self, troop, day), "now", f"{datetime.now(UTC):%Y-%m}")


def _first_warrior(
    self: NewRelic, troop: str, groups: Mapping[str, Sequence[DataGroup]], day: Window, resolution: int
) -> list[PlannedRequest]:
    return NewRelic.performance_data_of(self, troop, dict(list(groups.items())[:1]), day, resolution)


def _again_at_the_end(
    self: NewRelic, troop: str, groups: Mapping[str, Sequence[DataGroup]], day: Window, resolution: int
) -> list[PlannedRequest]:
    planned = NewRelic.performance_data_of(self, troop, groups, day, resolution)
    return [*planned, _with(planned[0], "again", "1")]


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("declarations", _changed(kind="New Relic")),
        ("declarations", _changed(page_headers=("Link",))),
        ("declarations", _changed(most_in_flight_of="key")),
        ("requests", _changed(probe=lambda self: Request("no slash", (), "probe"))),
        ("declarations", _changed(accepted=(200, 429))),
        ("requests", _probe(path="/v2?page=1")),
        ("requests", _probe(path="/v2/a\nb")),
        ("requests", _probe(method="get")),
        ("requests", _probe(headers=(("Host", "other"),))),
        ("requests", _probe(headers=(("X-Name", "line\nend"),))),
        ("requests", _changed(counts=lambda self, request: None)),
        ("requests", _changed(counts=lambda self, request: {"queries": next(_count)})),
        ("requests", _changed(counts=lambda self, request: {"queries": -1})),
        ("requests", _changed(counts=lambda self, request: {"dollars": float("nan")})),
        ("counted", _changed(counted=lambda self, request, response: {"dollars": float("inf")})),
        ("counted", _changed(counted=lambda self, request, response: json.loads(response.body))),
        ("keys", _changed(warriors=lambda self, troop, day: NewRelic.warriors(self, "1", day))),
        ("keys", _changed(performance_data=_always_the_same_day)),
        (
            "leaves",
            _each(
                lambda each: replace(
                    each, leaves=tuple(replace(leaf, warrior_id="1") for leaf in each.leaves)
                )
            ),
        ),
        ("leaves", _data(_first_leaf)),
        ("days", _data(_first_leaf)),
        ("splits", _changed(split=lambda self, planned: [planned, planned])),
        ("splits", _changed(split=lambda self, planned: NewRelic.split(self, planned)[:1])),
        ("splits", _changed(split=_overlapping)),
        ("resolution", _changed(check_resolution=lambda self, seconds: None)),
        ("answers", _changed(parse=_parse)),
        ("answers", _changed(judge=_parse)),
        ("answers", _changed(parse=lambda self, *_: json.loads("x"))),
        ("throttles", _changed(throttled=lambda self, status, headers, body: status != 200)),
        ("throttles", _changed(throttled=lambda self, *_: False)),
        ("throttles", _changed(says_gone=lambda self, request, body: True)),
        ("purity", _changed(parse=_reads_a_file)),
        ("purity", _changed(warriors=_reads_the_environment)),
        ("purity", _changed(warriors=_runs_a_program)),
        ("credentials", _changed(probe=_with_header)),
        ("credentials", _probe(params=(("access_token", "k"),))),
        ("credentials", _changed(auth_headers=_remembers_the_key)),
        ("credentials", _changed(auth=lambda self, keys: keys.api_key)),
        ("splits", _splits_a_leaf("1", "2")),
        ("splits", _splits_a_leaf("1", "1")),
        ("several", _changed(data_groups_of=lambda self, troop, warriors, day: [])),
        ("several", _changed(performance_data_of=_first_warrior)),
        ("several", _changed(performance_data_of=_again_at_the_end)),
        ("parts", _changed(part=lambda self, planned, leaves: planned)),
        ("parts", _changed(part=lambda self, planned, leaves: replace(planned, leaves=planned.leaves[:1]))),
        ("frozen", _each(lambda each: replace(each, leaves=cast("Any", [*each.leaves])))),
        (
            "frozen",
            _each(lambda each: replace(each, request=replace(each.request, endpoint=cast("Any", None)))),
        ),
        ("processes", Unordered()),
        ("clock", _changed(at=lambda self, now: self)),
        ("clock", _changed(warriors=_stamped)),
        ("clock", _changed(warriors=_dated)),
        ("state", Remembers()),
    ],
)
def test_what_is_broken_is_found(name: str, broken: NewRelic) -> None:
    """By the check that is for it, in a line that says what is expected."""
    found = check(broken, name)
    assert found
    assert all(each.check == name and "\n" not in str(each) for each in found)


def test_every_check_is_tried_on_something_broken() -> None:
    """A check that finds nothing anywhere would be none."""
    (mark,) = (each for each in test_what_is_broken_is_found.pytestmark if each.name == "parametrize")
    assert {name for name, _ in mark.args[1]} == set(CHECKS)


ACME = """
from vendor_assets.vendors.new_relic import NewRelic

class Acme(NewRelic):
    title = "Acme"

class Bad(Acme):
    def throttled(self, status, headers, body):
        return False
"""


def test_a_class_of_ones_own_is_checked_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By module and class; what is wrong, or cannot be checked, is a line."""
    (tmp_path / "acme_vendor.py").write_text(ACME)
    monkeypatch.chdir(tmp_path)
    said: Mapping[str, tuple[int, str]] = {
        "acme_vendor:Acme": (0, f"Acme: {len(CHECKS)} of {len(CHECKS)} checks passed"),
        "acme_vendor:Bad": (1, "throttles: status 429 is not taken for a throttle"),
        "acme_vendor:Nobody": (2, "cannot be imported"),
        "no_such_module:Acme": (2, "cannot be imported"),
        "pathlib:Path": (2, "is not a class derived from Vendor"),
        "acme": (2, "'acme' is unknown"),
        "nerdgraph": (0, f"{len(CHECKS)} of {len(CHECKS)}"),
    }
    for name, (code, line) in said.items():
        assert main(["vendor", "check", name]) == code
        printed = capsys.readouterr()
        assert line in printed.out + printed.err
        assert "Traceback" not in printed.out + printed.err
    assert main(["vendor", "check", "acme_vendor:Bad", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["check"] == "throttles"
