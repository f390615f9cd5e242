"""Harvests in the store, with the finish markers that say what came of them.

::

    raw_data/<asset>/day=…/[troop=…/]holder                       who works on the partition, with an epoch
    raw_data/<asset>/day=…/[troop=…/]h-<ulid>/plan                the frozen plan
    raw_data/<asset>/day=…/[troop=…/]h-<ulid>/chunk-<writer>-<n>  landed responses, a Parquet file each
    raw_data/<asset>/day=…/[troop=…/]h-<ulid>/finish              what came of it
    raw_data/<asset>/day=…/[troop=…/]h-<ulid>/removed             that its chunks were removed for their age

What has landed is the only record of what is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from vendor_assets.errors import DEAD_LETTER, UPSTREAM, ObjectNotFoundError, Reason
from vendor_assets.states import FINISHED, State, state_of
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.reading import json_object, understanding

FAILURE: Final = "failure"
"""Name of the first dead letter's reason among the details of a finish marker."""


@dataclass(frozen=True)
class HarvestFolder:
    """One harvest in the store: its folder and which of its parts exist."""

    folder: str
    has_plan: bool
    chunks: tuple[str, ...]
    finish_etag: str | None
    removed: bool = False

    @property
    def harvest_id(self) -> str:
        """The ULID in the folder's name."""
        return self.folder.rstrip("/").rpartition("/")[2].removeprefix("h-")


def newest_finished(harvests: Sequence[HarvestFolder]) -> HarvestFolder | None:
    """The harvest that counts: of some that are sorted by age the newest that has come to its end."""
    return next((harvest for harvest in reversed(harvests) if harvest.finish_etag), None)


def list_harvests(store: ObjectStore, asset: str, day: date, troop_key: str | None) -> list[HarvestFolder]:
    """All harvests of a partition, oldest first."""
    return _harvests_below(store, layout.harvest_prefix(asset, day, troop_key))


def list_harvests_of_day(store: ObjectStore, asset: str, day: date) -> dict[str, list[HarvestFolder]]:
    """All harvests of a day's troops by partition key, oldest first: one listing for all of them."""
    prefix = layout.harvest_prefix(asset, day)
    found: dict[str, list[HarvestFolder]] = {}
    for harvest in _harvests_below(store, prefix):
        troop = harvest.folder.removeprefix(prefix).partition("/")[0]
        found.setdefault(troop.removeprefix("troop="), []).append(harvest)
    return found


def _harvests_below(store: ObjectStore, prefix: str) -> list[HarvestFolder]:
    folders: dict[str, dict[str, str]] = {}
    for info in store.list(prefix):
        folder, _, part = info.key.rpartition("/")
        if layout.is_harvest(folder.rpartition("/")[2]):
            folders.setdefault(folder + "/", {})[part] = info.etag
    return [
        HarvestFolder(
            folder=folder,
            has_plan="plan" in parts,
            chunks=tuple(folder + part for part in sorted(parts) if part.startswith("chunk-")),
            finish_etag=parts.get("finish"),
            removed="removed" in parts,
        )
        for folder, parts in sorted(folders.items())
    ]


@dataclass(frozen=True)
class Finish:
    """What came of a harvest: its finish marker.

    Attributes:
        state: ``complete``, ``empty`` (complete, with no rows) or ``partial``.
        landed: Leaves that were answered with data or with "there is none".
        gone: Leaves whose entity the vendor does not know any more.
        calls: Calls made for this harvest so far, over all runs that worked on it.
        root_run: Root id of the run that finished it.
        answers: Answers that have landed, each page of a list counted, those of bases too; 0 where an older version
            finished it.
        later_pages: Those of them that are not a list's first page.
    """

    state: str
    planned: int
    landed: int
    gone: int
    dead: int
    requests: int
    calls: int
    rows: int
    root_run: str
    epoch: int
    finished_at: datetime
    table_etag: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    answers: int = 0
    later_pages: int = 0

    @property
    def ended_as(self) -> State:
        """How the partition stands by this harvest; ``failed`` where nothing of a plan has landed."""
        if self.state == "partial" and self.planned and not self.landed:
            return "failed"
        return state_of(self.rows, lacking=self.state == "partial")

    @property
    def reason(self) -> Reason | None:
        """Why it did not become complete; None where it did."""
        if self.dead:
            kept = self.details.get(FAILURE)
            return Reason.from_json(kept, kind=DEAD_LETTER, what="leaves are dead letters")
        if self.state == "partial":
            return Reason(UPSTREAM, what="the upstream table is partial")
        return None

    @property
    def quarantined(self) -> int:
        """Records in quarantine."""
        return int(self.details.get("quarantined", 0))

    @property
    def message(self) -> str:
        """What a person should know of it; empty when there is nothing to say."""
        aside = quarantine_text(self.quarantined, self.rows)
        if self.dead:
            first = self.details.get("first_dead_letter")
            why = f", first {first}" if first else ""
            said = (
                f"{self.dead} of {self.planned} leaves are dead letters{why}; "
                "see them with: vendor-assets dead-letters list; materialize the partition again to redrive them"
            )
            return f"{said}; {aside}" if aside else said
        if self.state == "partial" and not aside:
            return "the upstream table is partial: redrive its dead letters first"
        return aside or str(self.details.get("note", ""))

    def to_json(self) -> bytes:
        """The marker's bytes."""
        changed = {"finished_at": self.finished_at.isoformat(), "details": dict(self.details)}
        return json.dumps(self.__dict__ | changed, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Finish:
        """Read a marker; members that a newer version added are ignored. Raises ValueError if it is none."""
        numbers = ("planned", "landed", "gone", "dead", "requests", "calls", "rows", "epoch")
        document = json_object(data, state=str, root_run=str, finished_at=str, **dict.fromkeys(numbers, int))
        known = {name: value for name, value in document.items() if name in cls.__dataclass_fields__}
        finish = cls(**known | {"finished_at": datetime.fromisoformat(document["finished_at"])})
        optional = {"details": dict, "table_etag": str, "answers": int, "later_pages": int}
        if (
            finish.finished_at.tzinfo is None
            or finish.state not in FINISHED
            or not all(isinstance(getattr(finish, name), kind) for name, kind in optional.items())
            or not isinstance(finish.details.get("quarantined", 0), int)
        ):
            raise ValueError("not a finish marker")
        return finish


def load_finish(store: ObjectStore, folder: str) -> Finish | None:
    """The finish marker of a harvest; None while it is unfinished. Raises RecordError if it is damaged."""
    key = layout.finish_key(folder)
    try:
        data = store.get(key)
    except ObjectNotFoundError:
        return None
    advice = "delete it to have the harvest finished from what has landed"
    with understanding(store, key, "finish marker", advice):
        return Finish.from_json(data)


def quarantine_text(count: int, rows: int) -> str:
    """What a person should know of records that do not fit their table; empty where there are none."""
    if not count:
        return ""
    what = "1 record does not fit the table and is"
    if count > 1:
        what = f"{count} records do not fit the table and are"
    also = "" if rows else ", and there are no others"
    return f"{what} in quarantine{also}; rebuild once the schema knows them"
