"""The cap on calls in flight, shared out over processes. Pure.

Each process is granted a part of the cap for a few seconds at a time and keeps to it by itself. A process that is gone
stops renewing, and its part falls to the others.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Final

from vendor_assets.work_class import BACKFILL, WorkClass

TTL_SECONDS: Final = 5.0
"""A part of the cap that was not renewed for so long is free."""

PART: Final = "places"
"""Which document of an account holds them."""

_TURN_SECONDS: Final = 2.0
_GUARD_SECONDS: Final = 0.5
_RENEW_SECONDS: Final = 0.2


@dataclass(slots=True)
class Member:
    """One process.

    Attributes:
        renewed_at: On the database's clock.
        wanted: Calls in flight that it could use.
        granted: Calls in flight that it may have.
        in_flight: Calls it has sent and not finished, when it renewed.
        waiting: Callers that waited for a slot then.
        work_class: Of those who wait.
        cap: On calls in flight over all processes, as this one is configured.
    """

    renewed_at: float
    wanted: int
    granted: int
    in_flight: int
    waiting: int
    work_class: WorkClass
    cap: int


@dataclass(slots=True)
class InFlightShares:
    """All processes of an account, by holder."""

    boot: str
    at: float
    members: dict[str, Member] = field(default_factory=dict)

    @classmethod
    def load(cls, body: str, now: float, boot: str) -> InFlightShares:
        """Read a document; after a reboot nobody is there, and where the clock went back all are fresh."""
        if not body:
            return cls(boot, now)
        found = json.loads(body)
        if found["boot"] != boot:
            return cls(boot, now)
        members = {holder: Member(**values) for holder, values in found["members"].items()}
        if now < found["at"] - 1.0:
            for member in members.values():
                member.renewed_at = now
        return cls(boot, now, members)

    def dump(self) -> str:
        """The document's body."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def renew(self, holder: str, member: Member, in_use: int, now: float) -> Member:
        """Tell what a process wants, and grant it what it may have now.

        What it may have is the max-min fair share of the smallest cap, as far as the others have already
        let go of theirs; it keeps what it uses at the moment.

        Args:
            member: What it wants; ``granted`` is filled in.
            in_use: What it cannot give back now.
        """
        self.members = {
            name: other
            for name, other in self.members.items()
            if now - other.renewed_at <= TTL_SECONDS and name != holder
        }
        cap = min([member.cap, *(other.cap for other in self.members.values())])
        taken = sum(other.granted for other in self.members.values())
        fair = _shares({**self.members, holder: member}, cap, int(now / _TURN_SECONDS))[holder]
        member.granted = max(min(fair, max(0, cap - taken)), min(in_use, member.wanted))
        member.renewed_at = now
        self.members[holder] = member
        return member

    def live(self) -> dict[str, Member]:
        """Those that renewed of late."""
        return {
            holder: member
            for holder, member in self.members.items()
            if self.at - member.renewed_at <= TTL_SECONDS
        }

    def leave(self, holder: str) -> None:
        """A process sends no more."""
        self.members.pop(holder, None)


@dataclass(slots=True)
class InFlight:
    """One process's calls: how many have a slot, how many were sent, and how many of both it may have at once.

    Times are this machine's monotonic clock.

    Attributes:
        reserved: Calls that have a slot and were not sent yet.
        sent: Calls that were sent and are not over.
        most: The most of both since the last renewal.
        granted: How many of both it may have ...
        granted_until: ... up to then.
        renew_at: Where it could use more, it asks for them no sooner.
    """

    reserved: int = 0
    sent: int = 0
    most: int = 0
    granted: int = 0
    granted_until: float = 0.0
    renew_at: float = 0.0
    processes: int = 1

    @property
    def total(self) -> int:
        """Calls that have a slot, sent or not."""
        return self.reserved + self.sent

    def reserve(self) -> None:
        """A call was given a slot."""
        self.reserved += 1
        self.most = max(self.most, self.total)

    def send(self) -> None:
        """A call that had a slot is sent."""
        self.reserved -= 1
        self.sent += 1

    def give_up(self) -> None:
        """A call that had a slot is not sent."""
        self.reserved -= 1

    def finish(self) -> None:
        """A call that was sent is over."""
        self.sent -= 1

    def lapsed(self, now: float) -> bool:
        """Whether what was granted has to be renewed before anything is sent."""
        return now >= self.granted_until

    def room(self, now: float) -> int:
        """How many more calls may be given a slot."""
        return 0 if self.lapsed(now) else max(0, self.granted - self.total)

    @property
    def may_send(self) -> bool:
        """Whether one more of those that have a slot may be sent; fewer may than have one where a share shrank."""
        return self.sent < self.granted

    def want(self, waiting: int, cap: int) -> int:
        """How many it could use until the next renewal, with so many callers that wait."""
        wanted = min(cap, max(self.most, self.total + waiting))
        self.most = self.total
        return wanted

    def renew(self, member: Member, processes: int, asked_at: float) -> None:
        """Take what was granted."""
        self.granted = member.granted
        self.granted_until = asked_at + TTL_SECONDS - _GUARD_SECONDS
        self.renew_at = asked_at + (_RENEW_SECONDS if member.granted < member.wanted else 0.0)
        self.processes = processes

    def limit(self, kept: int) -> None:
        """Have no more than this until it is renewed."""
        self.granted = min(self.granted, kept)


def _shares(members: dict[str, Member], cap: int, turn: int) -> dict[str, int]:
    """Scheduled work has what it wants first; each process of backfills keeps one call where that is possible."""
    first = {name: member.wanted for name, member in members.items() if member.work_class != BACKFILL}
    rest = {name: member.wanted for name, member in members.items() if member.work_class == BACKFILL}
    kept = min(sum(1 for number in rest.values() if number), max(0, cap - len(first)))
    shares = _fair(first, cap - kept, turn)
    return shares | _fair(rest, cap - sum(shares.values()), turn)


def _fair(wanted: dict[str, int], cap: int, turn: int) -> dict[str, int]:
    """Max-min fair shares; where there are more processes than calls in flight, they take turns."""
    names = sorted(name for name, number in wanted.items() if number > 0)
    shares = dict.fromkeys(wanted, 0)
    if len(names) > cap:
        for n in range(cap):
            shares[names[(turn * cap + n) % len(names)]] = 1
        return shares
    left = cap
    for position, name in enumerate(sorted(names, key=lambda name: (wanted[name], name))):
        shares[name] = min(wanted[name], -(-left // (len(names) - position)))
        left -= shares[name]
    return shares
