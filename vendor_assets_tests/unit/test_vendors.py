"""What all vendors share: the registry, reading JSON, names, paths."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, EntryPoints
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets import vendors
from vendor_assets.errors import ConfigurationError, RecordError, VendorProtocolError
from vendor_assets.vendors.base import (
    Request,
    Response,
    Vendor,
    as_attributes,
    is_name,
    path_segment,
    read_object,
    reject,
)
from vendor_assets.vendors.frozen import decode_request, encode_request
from vendor_assets.vendors.new_relic import NewRelic


def _response(body: bytes, kind: str | None = "application/json") -> Response:
    headers = {} if kind is None else {"content-type": kind}
    return Response(200, headers, body, datetime(2026, 11, 22, tzinfo=UTC))


@pytest.mark.parametrize("kind", ["cloudwatch", "datadog", "nerdgraph", "new_relic", "prometheus"])
def test_a_built_in_vendor_is_loaded_by_its_kind(kind: str) -> None:
    """A vendor's kind is the name that loads it."""
    assert vendors.load(kind).kind == kind


def test_an_unknown_kind_names_those_that_are_accepted() -> None:
    """A mistyped kind ends in one line that holds it and what is accepted."""
    with pytest.raises(
        ConfigurationError,
        match="'newrelic' is unknown; accepted are cloudwatch, datadog, nerdgraph, new_relic, ",
    ):
        vendors.load("newrelic")


def _install(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    group = vendors.ENTRY_POINT_GROUP
    installed = EntryPoints(EntryPoint(name, value, group) for name, value in values.items())
    monkeypatch.setattr(vendors, "entry_points", installed.select)


def test_an_entry_point_brings_a_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package's vendor is loaded by its entry point's name, and listed."""
    _install(monkeypatch, mine="vendor_assets.vendors.new_relic:NewRelic")
    assert vendors.load("mine") is NewRelic
    assert vendors.kinds() == ("cloudwatch", "datadog", "mine", "nerdgraph", "new_relic", "prometheus")


def test_an_entry_point_cannot_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing a package never changes what a built-in kind means."""
    _install(monkeypatch, new_relic="os:nothing")
    assert vendors.load("new_relic") is NewRelic


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no.such.module:Mine", "cannot be loaded"),
        ("os:no_such_name", "cannot be loaded"),
        ("os:sep", "not a class"),
    ],
)
def test_a_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    """A package that cannot be used is a configuration error that names it."""
    _install(monkeypatch, mine=value)
    with pytest.raises(ConfigurationError, match=said):
        vendors.load("mine")


def test_a_vendor_cannot_forget_a_method() -> None:
    """The seam is abstract: a vendor that lacks a method cannot be made."""
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (Vendor,), {"kind": "half"})()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"null", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"a":1}{"b":2}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"a":' + b"1" * 5000 + b"}", "application/json"),
        (b'{"a":1}', "text/html; charset=utf-8"),
        (b'{"a":1}', "text/plain"),
        (b"<!doctype html>", None),
    ],
)
def test_what_is_no_json_object_cannot_be_understood(body: bytes, kind: str | None) -> None:
    """Empty, cut, nested without end, of another type: a protocol error, never another exception."""
    with pytest.raises(VendorProtocolError):
        read_object(_response(body, kind))


@pytest.mark.parametrize(
    "kind", [None, "", "application/json", "Application/JSON; charset=utf-8", "application/hal+json"]
)
def test_json_may_come_as_any_json_type(kind: str | None) -> None:
    """A missing content type and any kind of JSON are accepted."""
    assert read_object(_response(b'{"a":1}', kind)) == {"a": 1}


def test_integers_are_exact_and_the_last_of_equal_keys_counts() -> None:
    """Ids beyond 2^63 survive, and equal keys are defined."""
    assert read_object(_response(b'{"id":18446744073709551617,"a":1,"a":2}')) == {"id": 2**64 + 1, "a": 2}


@pytest.mark.parametrize(
    ("value", "good"),
    [("a", True), ("😀\n", True), ("", False), ("\ud800", False), (1, False), (None, False)],
)
def test_a_name_is_text_that_can_be_stored(value: object, good: bool) -> None:
    """Half of a surrogate pair, which JSON can carry and UTF-8 cannot, is no name."""
    assert is_name(value) is good


def test_attributes_are_json_whatever_came() -> None:
    """NaN and infinity become null, half characters stay escaped."""
    text = as_attributes({"b": [float("nan"), {"c": float("-inf")}], "a": "\ud800"})
    assert text == '{"a":"\\ud800","b":[null,{"c":null}]}'
    assert json.loads(text)


def test_a_rejected_record_is_cut() -> None:
    """A record of any size takes at most 2,000 characters."""
    assert len(reject("why", {"a": "x" * 10_000}).record) == 2000


@given(st.text(min_size=1))
def test_a_path_segment_stays_one(text: str) -> None:
    """No id adds or climbs a level, whatever it holds."""
    if not is_name(text):
        return
    segment = path_segment(text)
    assert segment.isascii()
    assert not set(segment) & set("/?#\\ \r\n")
    assert segment not in (".", "..")


@given(st.lists(st.tuples(st.text(), st.text())), st.randoms())
def test_a_request_key_does_not_depend_on_order(params: list[tuple[str, str]], random: object) -> None:
    """The same question has the same key."""
    params = [pair for pair in params if all(is_name(text) or not text for text in pair)]
    shuffled = list(params)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Request("/a", tuple(params)).key == Request("/a", tuple(shuffled)).key


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple)
REQUESTS = st.builds(Request, TEXTS, PAIRS, TEXTS, st.sampled_from(["GET", "POST"]), TEXTS, PAIRS)


@given(REQUESTS, REQUESTS)
def test_a_request_key_tells_questions_apart(one: Request, other: Request) -> None:
    """Method, path, parameters, body and headers are all in it; a GET without more has path and parameters alone."""

    def question(request: Request) -> tuple[object, ...]:
        query = urlencode(sorted(request.params))
        return (
            request.method,
            f"{request.path}?{query}" if query else request.path,
            request.body,
            request.headers,
        )

    if sorted(one.headers) == sorted(other.headers):
        one, other = (replace(each, headers=tuple(sorted(each.headers))) for each in (one, other))
    plain = not (one.has_more or other.has_more)
    if plain or "#" not in one.path + other.path:
        assert (one.key == other.key) == (question(one) == question(other))


@given(REQUESTS)
def test_a_request_comes_back_from_the_plan(request: Request) -> None:
    """Everything that is sent is kept, and read again as it was."""
    assert decode_request(encode_request(request)) == request


def test_a_plan_of_an_older_release_is_read() -> None:
    """Requests were path, parameters and endpoint then; such are still written so."""
    text = '["/a",[["b","c"]],"e"]'
    assert decode_request(text) == Request("/a", (("b", "c"),), "e")
    assert encode_request(decode_request(text)) == text


@pytest.mark.parametrize(
    "text", ['["/a",[],"e","POST"]', '["/a",[],"e",1,"",[]]', '["/a",[],"e","POST","",[["a"]]]']
)
def test_a_damaged_request_is_no_question(text: str) -> None:
    """What cannot be sent as it was is not guessed."""
    with pytest.raises(RecordError):
        decode_request(text)


def test_documents_and_forms_are_posted() -> None:
    """The same document is the same question, however it was built."""
    assert Request.json("/q", {"b": 1, "a": 2}) == Request.json("/q", {"a": 2, "b": 1})
    form = Request.form("/q", [("query", "a b&c"), ("start", "0")])
    assert (form.method, form.body) == ("POST", "query=a+b%26c&start=0")
    assert dict(form.headers) == {"Content-Type": "application/x-www-form-urlencoded"}
