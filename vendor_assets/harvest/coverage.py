"""Coverage: what of a plan has been answered, by what has landed alone.

A planned request that failed for good may have been split. The split has landed as well, and from then on its parts
stand for it, which may themselves have been split. A leaf has landed when every request that asks for it, or for a
part of it, has been answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vendor_assets.harvest.landing import GONE, LandedIndex, read_splits, request_id
from vendor_assets.harvest.tabulate import newest_answers
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.vendors.base import Leaf, PlannedRequest, Request
from vendor_assets.vendors.frozen import decode_request


@dataclass
class LeafState:
    """What has become of one leaf.

    It has ``landed`` when every request that asks for it has been answered, and is ``gone`` when the vendor answered
    one of them by not knowing the entity any more.
    """

    leaf: Leaf
    landed: bool
    gone: bool


class Coverage:
    """What some landed responses answer.

    Args:
        index: All of them, of all the harvests that count.
        answered: Ids of the requests that count as answered, with all their pages.
    """

    def __init__(self, store: ObjectStore, index: Sequence[LandedIndex], answered: set[bytes]) -> None:
        self.answered = answered
        self.splits = read_splits(store, index)
        gone = {entry.request for entry in index if entry.status in GONE}
        # Most harvests have none, and the newest of all answers take memory to find.
        newest = newest_answers(entry for entry in index if entry.request in gone)
        self._gone = {entry.request for entry in newest if entry.status in GONE}

    @property
    def any_gone(self) -> bool:
        """Whether the vendor does not know an entity any more."""
        return bool(self._gone)

    def is_answered(self, planned: PlannedRequest) -> bool:
        """Whether a request has been answered as it is."""
        return bool(self.answered) and request_id(planned.request.key) in self.answered

    def is_split(self, request_key: str) -> bool:
        """Whether others stand for a request."""
        return request_id(request_key) in self.splits

    def standing_for(self, planned: PlannedRequest) -> Iterator[PlannedRequest]:
        """The requests that stand for a planned one: itself, or the last parts into which it was split."""
        # Most harvests have none, and ids take time.
        parts = self.splits.get(request_id(planned.request.key)) if self.splits else None
        if parts is None or self.is_answered(planned):
            yield planned
            return
        for part in parts:
            yield from self.standing_for(part)

    def leaves(self, requests: Iterable[PlannedRequest]) -> Iterator[LeafState]:
        """Each leaf of some planned requests once; requests that share a leaf follow each other."""
        shared: dict[str, LeafState] = {}
        for planned in requests:
            here = {leaf.key: LeafState(leaf, landed=True, gone=False) for leaf in planned.leaves}
            for part in self.standing_for(planned):
                answered, gone = (
                    self.is_answered(part),
                    bool(self._gone) and request_id(part.request.key) in self._gone,
                )
                for leaf in part.leaves:
                    state = here[leaf.key]
                    state.landed &= answered
                    state.gone |= gone
            for key, before in shared.items():
                if key not in here:
                    yield before
                else:
                    here[key].landed &= before.landed
                    here[key].gone |= before.gone
            shared = here
        yield from shared.values()


def answered_requests(answers: Iterable[LandedIndex]) -> set[bytes]:
    """Ids of the requests of which all pages are among some answers, oldest first."""
    first: dict[bytes, LandedIndex] = {}
    later: dict[tuple[bytes, int], LandedIndex] = {}
    for entry in answers:
        if entry.page == 1:
            first[entry.request] = entry
        else:
            later[entry.request, entry.page] = entry
    answered: set[bytes] = set()
    for request, page in first.items():
        last: LandedIndex | None = page
        while last is not None and last.next is not None:
            last = later.get((request, last.page + 1))
        if last is not None:
            answered.add(request)
    return answered


def resume_points(answers: Iterable[LandedIndex], answered: set[bytes]) -> dict[bytes, tuple[int, Request]]:
    """Where to go on with lists of which only the first pages are among some answers."""
    at: dict[bytes, tuple[int, Request]] = {}
    for entry in sorted(answers, key=lambda item: (item.request, item.page)):
        if entry.next is None or entry.request in answered:
            continue
        expected = at[entry.request][0] if entry.request in at else 1
        if entry.page == expected:
            at[entry.request] = (entry.page + 1, decode_request(entry.next))
    return at
