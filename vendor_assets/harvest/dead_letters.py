"""Dead letters: leaves that will not succeed by themselves, kept with their reason until redriven or discarded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, get_args

from vendor_assets.errors import DEAD_LETTER, ObjectConflictError, ObjectNotFoundError, Reason, RecordError
from vendor_assets.logs import get_logger
from vendor_assets.storage import layout
from vendor_assets.storage.concurrent import map_concurrently
from vendor_assets.storage.objects import ObjectInfo, ObjectStore
from vendor_assets.storage.reading import json_object, understanding
from vendor_assets.vendors.base import Asset

logger = get_logger(__name__)


@dataclass(frozen=True)
class DeadLetter:
    """One planned request that did not succeed, with the leaves that miss its answer.

    Attributes:
        leaves: Their keys.
        request: The request key: path and parameters, never a host or a credential.
        retryable: Whether it may succeed by itself later (transient), or waits for a person.
        attempts: How often it was sent in all, the first included.
        excerpt: Beginning of the last answer's body, without secrets.
        redrives: How often it was redriven in vain.
        kind: What kind of failure it is, as :attr:`vendor_assets.errors.Reason.kind`; empty on those of old.
        what: The reason without the request and the attempts; empty on those of old.
    """

    leaves: tuple[str, ...]
    request: str
    reason: str
    retryable: bool
    status: int | None
    attempts: int
    first_at: datetime
    last_at: datetime
    excerpt: str = ""
    redrives: int = 0
    kind: str = ""
    what: str = ""

    @property
    def why(self) -> Reason:
        """The reason in parts."""
        return Reason(self.kind or DEAD_LETTER, self.status, self.what or self.reason)

    def again(self, later: DeadLetter) -> DeadLetter:
        """This dead letter after it has failed once more."""
        attempts, redrives = self.attempts + later.attempts, self.redrives + 1
        return replace(later, first_at=self.first_at, attempts=attempts, redrives=redrives)


@dataclass(frozen=True)
class DeadPartition:
    """The dead letters of one partition, with the partition's names."""

    asset: str
    day: date
    troop_key: str | None
    letters: tuple[DeadLetter, ...]
    discarded: tuple[dict[str, Any], ...] = ()

    @property
    def discarded_leaves(self) -> frozenset[str]:
        """Leaves that somebody gave up: they are neither asked again nor missing."""
        return frozenset(leaf for record in self.discarded for leaf in record["letter"]["leaves"])


class DeadLetters:
    """The dead letters in a store: one object per partition, which stays once it is empty.

    A deletion could not be conditional everywhere, and would take along what somebody writes at that moment.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def load(self, asset: str, day: date, troop_key: str | None) -> DeadPartition:
        """The dead letters of one partition; none is an empty tuple.

        Raises:
            RecordError: The object is damaged.
        """
        return self._read(layout.dead_letters_key(asset, day, troop_key))[0] or DeadPartition(
            asset, day, troop_key, ()
        )

    def change(
        self,
        partition: DeadPartition,
        after: Callable[[DeadPartition], DeadPartition],
        *,
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        """Change the dead letters of one partition; what somebody else writes meanwhile, like a discard, is not lost.

        Args:
            after: Rewrites what is there; called again where somebody else was faster.
            confirm: Called just before writing; raises where the partition has become somebody else's.
        """
        key = layout.dead_letters_key(partition.asset, partition.day, partition.troop_key)
        while True:
            current, etag = self._read(key)
            before = current or replace(partition, letters=(), discarded=())
            changed = after(before)
            confirm()
            if changed == before:
                return
            try:
                with self._store.writer(key, if_absent=etag is None, if_match=etag) as sink:
                    for piece in _encoded(changed):
                        sink.write(piece)
            except ObjectConflictError:
                continue
            return

    def all(self) -> list[DeadPartition]:
        """Every partition that has dead letters, or discarded ones."""
        return [partition for _, partition in self.changed({})]

    def changed(self, versions: Mapping[str, str]) -> list[tuple[ObjectInfo, DeadPartition]]:
        """Partitions that have dead letters, or discarded ones, each with its object.

        Args:
            versions: Object key to the etag of what is known already and is not read again.
        """
        days = self.changed_days(versions)
        return [each for day in sorted(days) for each in self.read(days[day])]

    def changed_days(self, versions: Mapping[str, str]) -> dict[str, list[ObjectInfo]]:
        """The objects of partitions that have dead letters, or discarded ones, by day; none of them is read.

        Args:
            versions: Object key to the etag of what is known already and left out.
        """
        days: dict[str, list[ObjectInfo]] = {}
        for info in self._store.list(layout.dead_letters_prefix()):
            if versions.get(info.key) != info.etag:
                names = layout.parse_dead_letters_key(info.key)
                days.setdefault(names[1].isoformat() if names else "", []).append(info)
        return days

    def read(self, infos: Sequence[ObjectInfo]) -> list[tuple[ObjectInfo, DeadPartition]]:
        """The partitions in some objects; those that are gone by now are left out."""
        found = map_concurrently(self._shown, [info.key for info in infos])
        return [(info, each) for info, each in zip(infos, found, strict=True) if each is not None]

    def of_day(self, day: date) -> list[DeadPartition]:
        """A day's partitions that have dead letters, or discarded ones."""
        prefixes = [layout.dead_letters_prefix(asset, day) for asset in get_args(Asset)]
        keys = [info.key for prefix in prefixes for info in self._store.list(prefix)]
        return [found for found in map_concurrently(self._shown, keys) if found is not None]

    def discard(
        self, partition: DeadPartition, requests: set[str], *, who: str, why: str, at: datetime
    ) -> int:
        """Give some dead letters up by name, and say how many; who did it and why stays on record."""
        count = 0

        def after(current: DeadPartition) -> DeadPartition:
            nonlocal count
            named = [letter for letter in current.letters if letter.request in requests]
            leaves = {leaf for letter in named for leaf in letter.leaves}
            # Of a leaf that was asked for in parts, the others are of no use without this one.
            gone = [letter for letter in current.letters if leaves.issuperset(letter.leaves)]
            kept = tuple(letter for letter in current.letters if letter not in gone)
            records = tuple(
                {"letter": _letter_to_json(letter), "who": who, "why": why, "at": at.isoformat()}
                for letter in gone
            )
            count = len(gone)
            return replace(current, letters=kept, discarded=current.discarded + records)

        self.change(partition, after)
        return count

    def _shown(self, key: str) -> DeadPartition | None:
        """A partition's dead letters; of an object that cannot be read, one that says so and stops nobody else's."""
        try:
            return self._read(key)[0]
        except RecordError as error:
            names = layout.parse_dead_letters_key(key)
            if names is None:
                logger.warning("%s", error)
                return None
            asset, day, troop_key = names
            head = self._store.head(key)
            at = head.modified if head else datetime.now(UTC)
            letter = DeadLetter(
                (), key, str(error), retryable=False, status=None, attempts=0, first_at=at, last_at=at
            )
            return DeadPartition(asset, day, troop_key, (letter,))

    def _read(self, key: str) -> tuple[DeadPartition | None, str | None]:
        try:
            data, etag = self._store.get_with_etag(key)
        except ObjectNotFoundError:
            return None, None
        with understanding(self._store, key, "dead letters", "restore or delete the object"):
            document = json_object(data, asset=str, day=str, letters=list, discarded=list)
            partition = DeadPartition(
                asset=document["asset"],
                day=date.fromisoformat(document["day"]),
                troop_key=document["troop_key"],
                letters=tuple(_letter_from_json(item) for item in document["letters"]),
                discarded=tuple(document["discarded"]),
            )
            if layout.dead_letters_key(partition.asset, partition.day, partition.troop_key) != key:
                raise ValueError("they are those of another partition")
            for record in partition.discarded:
                _letter_from_json(record["letter"])
            return partition, etag


def _encoded(partition: DeadPartition) -> Iterator[bytes]:
    """A partition's object, a letter at a time: there may be very many."""
    names = {"asset": partition.asset, "day": partition.day.isoformat(), "troop_key": partition.troop_key}
    yield json.dumps(names).removesuffix("}").encode()
    yield from _array("letters", map(_letter_to_json, partition.letters))
    yield from _array("discarded", partition.discarded)
    yield b"\n}\n"


def _array(name: str, items: Iterable[object]) -> Iterator[bytes]:
    """A member of a JSON object whose value is an array, an item on a line."""
    yield f',\n "{name}": ['.encode()
    for number, item in enumerate(items):
        yield (("," if number else "") + "\n  " + json.dumps(item)).encode()
    yield b"]"


def _letter_to_json(letter: DeadLetter) -> dict[str, Any]:
    return asdict(letter) | {"first_at": letter.first_at.isoformat(), "last_at": letter.last_at.isoformat()}


def _letter_from_json(document: dict[str, Any]) -> DeadLetter:
    if not all(isinstance(leaf, str) for leaf in document["leaves"]):
        raise ValueError("a leaf is not a string")
    times = {name: datetime.fromisoformat(document[name]) for name in ("first_at", "last_at")}
    letter = DeadLetter(**document | times | {"leaves": tuple(document["leaves"])})
    texts = (letter.request, letter.reason, letter.excerpt, letter.kind, letter.what)
    counts = (letter.attempts, letter.redrives)
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(count, int) for count in counts
    ):
        raise ValueError("a member of a letter is of another type")
    if not all(time.tzinfo for time in times.values()) or not isinstance(letter.status, int | None):
        raise ValueError("a time or a status of a letter is none")
    return letter
