"""``vendor record``: a few answers of the account as cases for ``vendor check``, with invented names."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vendor_assets.cli.project import COMPLETE, FAILED, PARTIAL, choose_day, embedded_vendor, open_project
from vendor_assets.days import day_window
from vendor_assets.errors import (
    ConfigurationError,
    VendorError,
    VendorNotFoundError,
    VendorUnauthorizedError,
)
from vendor_assets.presentable import counted, presentable

if TYPE_CHECKING:
    from vendor_assets.account import Account
    from vendor_assets.client import Fetched, VendorClient
    from vendor_assets.vendors.base import Asset, Parsed, Request, Response, Vendor
    from vendor_assets.vendors.cases import Reading
    from vendor_assets.vendors.disguise import Disguise

_PAGES: Final = 3
"""So many pages of a list are asked for."""
_TRIED: Final = 3
"""So many troops, and warriors, are asked for something below them."""
_WAITS: Final = 20
"""So many times is an answer asked for that is not there yet."""
_LONGEST_WAIT_SECONDS: Final = 60.0
_GROUPS: Final = 5
"""Of so many data groups are data asked for."""
_ENTRIES: Final = 3
"""So many entries of a list are kept, where that is read in the same way."""

Row = Mapping[str, Any]
Case = dict[str, Any]


def add(actions: Any) -> None:
    """Add the action to ``vendor``."""
    record = actions.add_parser(
        "record",
        help="record a few answers of the account as cases, with invented names",
        epilog="Sends a dozen calls at most, within the budget. Names of metrics are kept: read the files before you "
        "give them to somebody. Exit codes: 0 each kind of answer is recorded; 3 some are; 1 none, or anything "
        "else; 2 usage or settings are wrong.",
    )
    record.add_argument("folder", type=Path, metavar="FOLDER", help="where the cases are written")
    record.add_argument("--day", help="the day, like 2026-11-20 (default: the last that is over)")
    record.add_argument("--troop", help="id or name of a troop (default: the first that has warriors)")
    record.set_defaults(run=_record, first=None, last=None)


def _record(options: argparse.Namespace) -> int:
    from vendor_assets.orchestration.definitions import build_resources
    from vendor_assets.orchestration.names import Names

    folder: Path = options.folder.absolute()
    if any(folder.glob("*.json")) or (folder.exists() and not folder.is_dir()):
        message = f"{str(options.folder)!r} has cases, or is not a folder; give a new folder, or delete these"
        raise ConfigurationError(message)
    account = open_project(options.account).account
    day = choose_day(options, account)
    try:
        # Before any call is paid for.
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{str(options.folder)!r} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise ConfigurationError(f"{str(options.folder)!r} cannot be written; give another folder")
    with embedded_vendor(account) as reachable:
        vendor_api = build_resources(reachable)[Names.for_account(account).resource("vendor_api")]
        with vendor_api.client() as client:
            recording = _Recording(client, account, day)
            recording.ask_all(options.troop)
    disguise = _disguise(recording, account, day)
    cases: dict[str, Case] = {}
    for name, case in recording.cases.items():
        found = _kept(account.vendor, case, disguise)
        if isinstance(found, str):
            recording.problems.append(f"{name}: {found}")
        else:
            cases[name] = found
    # What is cut off leaves no case: a few of them would look like all, and keep the next recording away.
    for name, found in cases.items():
        (folder / f"{name}.json.part").write_text(_text(found))
    for name, found in cases.items():
        (folder / f"{name}.json.part").replace(folder / f"{name}.json")
        print(f"{name}.json: {counted(len(found['rows']), 'row')} of {counted(len(found['pages']), 'page')}")
    kept = {case["asset"] for case in cases.values()}
    for problem in recording.problems:
        print(f"not recorded: {presentable(problem)}", file=sys.stderr)
    print(
        f"{counted(recording.calls, 'call')}; check it: vendor-assets vendor check {account.vendor.kind} "
        f"--cases {options.folder}"
    )
    return COMPLETE if len(kept) == len(_NEEDED) else PARTIAL if kept else FAILED


_NEEDED: Final = ("troops", "warriors", "data_groups", "performance_data")


class _Recording:
    """What was asked and answered.

    Attributes:
        cases: With real names, by the name of the file to be.
        problems: Why something is none, a line each.
        rows: All that was read in them.
        texts: All bodies.
    """

    def __init__(self, client: VendorClient, account: Account, day: date) -> None:
        self._client = client
        self._vendor = account.vendor
        self._resolution = account.resolution_seconds
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._common = {"day": day.isoformat(), "time_zone": account.zone.key, "asked_at": now}
        self._answers: dict[str, tuple[list[Response], bool]] = {}
        self.cases: dict[str, Case] = {}
        self.problems: list[str] = []
        self.rows: list[Row] = []
        self.texts: list[str] = []
        self.calls = 0

    def ask_all(self, wanted: str | None) -> None:
        """Ask for the troops, the warriors of one, the data groups of one of these, and some data of that."""
        self._fetch(self._vendor.probe())
        troops = self._ask("troops")
        if wanted is not None:
            troops = [row for row in troops if wanted in (row["troop_id"], row["name"])]
        if not troops:
            self.problems.append(
                "warriors: there is no troop" + (f" {wanted!r}" if wanted is not None else "")
            )
        for troop in troops[:_TRIED]:
            warriors = self._ask("warriors", troop_id=troop["troop_id"])
            for warrior in warriors[:_TRIED]:
                place = {"troop_id": troop["troop_id"], "warrior_id": warrior["warrior_id"]}
                found = {
                    row["data_group"]: list(row["value_names"])
                    for row in self._ask("data_groups", **place)
                    if row["warrior_id"] == warrior["warrior_id"] and row["value_names"]
                }
                groups = dict(list(found.items())[:_GROUPS])
                more = {"data_groups": groups, "resolution_seconds": self._resolution}
                if groups and self._ask("performance_data", **place, **more):
                    return

    def _ask(self, asset: Asset, **arguments: Any) -> list[Row]:
        """What is read in the answer to a question, which becomes a case."""
        from vendor_assets.vendors.cases import read_pages

        number = sum(case["asset"] == asset for case in self.cases.values())
        name = asset if not number else f"{asset}_{number + 1}"
        case: Case = {"asset": asset, **self._common, **arguments}
        try:
            responses, more = self._pages(asset, case)
            documents = [json.loads(response.body) for response in responses]
        except (VendorUnauthorizedError, VendorNotFoundError) as error:
            if asset == "troops" or getattr(error, "key_refused", False):
                raise
            self.problems.append(f"{name}: {error}")
            return []
        except VendorError as error:
            self.problems.append(f"{name}: {error}")
            return []
        except (ValueError, RecursionError):
            self.problems.append(f"{name}: the answer is not JSON, and names can be recognized only in JSON")
            return []
        case["pages"] = [
            {"status": response.status, "headers": dict(response.headers), "body": document}
            for response, document in zip(responses, documents, strict=True)
        ]
        if more:
            case["more"] = True
        reading = read_pages(self._vendor, case)
        if problem := _problem(reading):
            self.problems.append(f"{name}: {problem}")
            return []
        self.cases[name] = case
        rows: list[Row] = [*reading.rows]
        self.rows += rows
        self.texts += [json.dumps(document, ensure_ascii=False) for document in documents]
        return rows

    def _pages(self, asset: Asset, case: Case) -> tuple[list[Response], bool]:
        """The answers, and whether there are more; the same question is asked once, whatever it is asked for."""
        from vendor_assets.vendors.cases import planned_request

        planned = planned_request(self._vendor, case)
        if planned.request.key in self._answers:
            return self._answers[planned.request.key]
        responses: list[Response] = []
        asked: Request | None = planned.request

        def read(answer: Response) -> Parsed:
            return self._vendor.parse(asset, planned, replace(answer, asked=asked if responses else None))

        waits = 0
        while asked is not None and len(responses) < _PAGES:
            fetched = self._fetch(asked, read)
            if fetched.value.wait_seconds is not None and waits < _WAITS:
                waits += 1
                time.sleep(min(max(0.1, fetched.value.wait_seconds), _LONGEST_WAIT_SECONDS))
                continue
            responses.append(fetched.response)
            asked = fetched.value.next
        self._answers[planned.request.key] = responses, asked is not None
        return self._answers[planned.request.key]

    def _fetch(self, request: Request, check: Callable[[Response], Parsed] | None = None) -> Fetched:
        from vendor_assets.client import Usage

        usage = Usage()
        try:
            return self._client.fetch(request, check=check, usage=usage)
        finally:
            self.calls += usage.calls


def _problem(reading: Reading) -> str:
    """Why what was read is no case; empty where it is one."""
    return reading.refused or next(iter(reading.wrong), "")


def _disguise(recording: _Recording, account: Account, day: date) -> Disguise:
    """What replaces the names of all that was recorded."""
    from vendor_assets.vendors.disguise import Disguise

    rows = recording.rows
    names = {row[column] for row in rows for column in ("troop_id", "warrior_id", "name") if row.get(column)}
    own = {secret.read() for secret in account.secrets} | {account.login.user, account.vendor_account}
    own |= {part for text in own for part in re.split(r"[=,\s]+", text)}
    metrics = {name for row in rows for name in row.get("value_names", ())} | {
        row["data_group"] for row in rows if "data_group" in row
    }
    return Disguise(
        vocabulary=_vocabulary(account.vendor),
        metrics=metrics,
        names=names | own,
        real=recording.texts,
        window=day_window(day, account.zone),
        numbers=(account.resolution_seconds,),
    )


def _vocabulary(vendor: Vendor) -> frozenset[str]:
    """The words in the texts of a dialect's source; not in those with blanks, which are for people, save GraphQL."""
    from vendor_assets.vendors.disguise import WORD

    sources = set()
    for name in _modules(vendor):
        with suppress(OSError, TypeError):
            sources.add(inspect.getsource(sys.modules[name]))
    return frozenset(
        word
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (" " not in node.value or "{" in node.value)
        for word in WORD.findall(node.value)
        if not word.isdecimal()
    )


def _modules(vendor: Vendor) -> set[str]:
    """The modules of a dialect's classes, and those of the same package that these import from."""
    own = {each.__module__ for each in type(vendor).__mro__} & sys.modules.keys()
    beside = {
        part
        for name in own
        for value in vars(sys.modules[name]).values()
        if isinstance(part := getattr(value, "__module__", None), str)
        and (package := name.rpartition(".")[0])
        and part.rpartition(".")[0] == package
    }
    return own | (beside & sys.modules.keys())


def _kept(vendor: Vendor, case: Case, disguise: Disguise) -> Case | str:
    """The case as it is written, short where that is read in the same way; or why it cannot be."""
    from vendor_assets.vendors.cases import check_case, plain, read_pages

    whole = read_pages(vendor, case)
    problem = ""
    for entries in (_ENTRIES, sys.maxsize):
        short = case | {"pages": _shortened(case["pages"], entries)}
        real = read_pages(vendor, short)
        alike = not _problem(real) and real.aside == whole.aside and bool(real.rows) == bool(whole.rows)
        if not alike or not _named(real) <= _named(whole):
            continue
        hidden: Case = json.loads(json.dumps(_hidden(short, disguise)))
        told = read_pages(vendor, hidden)
        hidden["rows"] = [{name: plain(name, value) for name, value in row.items()} for row in told.rows]
        problem = _problem(told)
        if (len(told.rows), told.aside) != (len(real.rows), real.aside):
            problem = (
                problem
                or f"{len(told.rows)} rows are read with invented names, {len(real.rows)} with the real ones"
            )
        problem = problem or next(check_case(vendor, json.loads(json.dumps(hidden))), "")
        if not problem:
            return hidden
    return f"with invented names {problem}"


def _named(reading: Reading) -> set[str]:
    """The rows that were read, without the columns that are lists themselves."""
    lists = ("attributes", "value_names")
    return {repr([value for name, value in row.items() if name not in lists]) for row in reading.rows}


def _shortened(value: Any, entries: int) -> Any:
    """A value of JSON whose lists have so many entries at most."""
    if isinstance(value, dict):
        return {name: _shortened(held, entries) for name, held in value.items()}
    return [_shortened(held, entries) for held in value[:entries]] if isinstance(value, list) else value


def _hidden(case: Case, disguise: Disguise) -> Case:
    hidden = dict(case)
    for name in ("troop_id", "warrior_id"):
        if name in case:
            hidden[name] = disguise.text(case[name])
    if "data_groups" in case:
        hidden["data_groups"] = {
            disguise.text(group): [disguise.text(value) for value in values]
            for group, values in case["data_groups"].items()
        }
    hidden["pages"] = [
        {
            **page,
            "headers": {name: disguise.text(text) for name, text in page["headers"].items()},
            "body": disguise.document(page["body"]),
        }
        for page in case["pages"]
    ]
    return hidden


def _text(case: Case) -> str:
    """A case as a file: a line for each of its fields and each row, its pages in full."""
    lines = []
    for name, value in case.items():
        text = json.dumps(value, indent=1) if name == "pages" else json.dumps(value)
        if name == "rows" and value:
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
