"""The cap on calls in flight, shared out over processes. Pure.

Each process is granted a part of the cap for a few seconds at a time and keeps to it by itself. A process that is gone
stops renewing, and its part falls to the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from vendor_assets.budget.teams import OTHERS, Parts, Team, Waiting, slots_ahead
from vendor_assets.work_class import BACKFILL, WorkClass

TTL_SECONDS: Final = 5.0
"""A part of the cap that was not renewed for so long is free."""

PART: Final = "places"
"""Which document of an account holds them."""

_TURN_SECONDS: Final = 2.0
_GUARD_SECONDS: Final = 0.5
_RENEW_SECONDS: Final = 0.2
_ROUNDING: Final = 1e-9


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


class Teams(NamedTuple):
    """The teams of one process.

    Attributes:
        account: Whose pace they share; calls in flight may be shared by several accounts.
    """

    account: str
    waiting: tuple[Waiting, ...]


@dataclass(slots=True)
class InFlightShares:
    """All processes of an account, by holder.

    Attributes:
        teams: Of processes that know any.
    """

    boot: str
    at: float
    members: dict[str, Member] = field(default_factory=dict)
    teams: dict[str, Teams] = field(default_factory=dict)

    @classmethod
    def load(cls, body: str, now: float, boot: str) -> InFlightShares:
        """Read a document; after a reboot nobody is there, and where the clock went back all are fresh."""
        if not body:
            return cls(boot, now)
        found = msgspec.json.decode(body)
        if found["boot"] != boot:
            return cls(boot, now)
        members = {holder: Member(**values) for holder, values in found["members"].items()}
        if now < found["at"] - 1.0:
            for member in members.values():
                member.renewed_at = now
        teams = {
            holder: Teams(account, tuple(Waiting(Team(*team), calls, rate) for team, calls, rate in waiting))
            for holder, (account, waiting) in found.get("teams", {}).items()
            if holder in members
        }
        return cls(boot, now, members, teams)

    def dump(self) -> str:
        """The document's body."""
        document = {"boot": self.boot, "at": self.at, "members": self.members}
        if self.teams:
            document["teams"] = self.teams
        return msgspec.json.encode(document).decode()

    def parts(self, account: str | None = None) -> Parts:
        """How what there is is divided by teams; empty where none is known.

        Args:
            account: Only processes of this one, where their teams tell; None for all.
        """
        if not self.teams:
            return Parts({}, {})
        found = {}
        for holder, member in self.live().items():
            # Those that have a slot ahead wait as well.
            others = Waiting(OTHERS, member.wanted - member.in_flight, 0.0)
            of, waiting = self.teams.get(holder, Teams("", (others,)))
            if account is None or of in ("", account):
                found[holder] = waiting
        return Parts.of(found)

    def renew(
        self, holder: str, member: Member, in_use: int, now: float, teams: Teams | None = None
    ) -> Member:
        """Tell what a process wants, and grant it what it may have now.

        What it may have is the max-min fair share of the smallest cap, as far as the others have already
        let go of theirs; it keeps what it uses at the moment.

        Args:
            member: What it wants; ``granted`` is filled in.
            in_use: What it cannot give back now.
            teams: Those that it knows, if any.
        """
        self.at = now
        self.members = {
            name: other
            for name, other in self.members.items()
            if now - other.renewed_at <= TTL_SECONDS and name != holder
        }
        cap = min([member.cap, *(other.cap for other in self.members.values())])
        taken = sum(other.granted for other in self.members.values())
        member.renewed_at = now
        self.members[holder] = member
        if teams is not None:
            self.teams[holder] = teams
        fair = _shares(self.members, cap, int(now / _TURN_SECONDS), self.parts().portions)[holder]
        member.granted = max(min(fair, max(0, cap - taken)), min(in_use, member.wanted))
        return member

    @property
    def left(self) -> int:
        """What nobody was granted: a newcomer would have it at once."""
        cap = min((member.cap for member in self.members.values()), default=0)
        return max(0, cap - sum(member.granted for member in self.members.values()))

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
        self.teams.pop(holder, None)


@dataclass(slots=True)
class InFlight:
    """One process's calls: how many have a slot, how many were sent, and how many of both it may have at once.

    Times are this machine's monotonic clock.

    Attributes:
        reserved: Calls that have a slot and were not sent yet.
        sent: Calls that were sent and are not over.
        most: The most of both since the last renewal.
        short: Whether a caller had to wait since then as there were no more.
        granted: How many of both it may have ...
        granted_until: ... up to then.
        renew_at: Where it could use more, it asks for them no sooner.
        all_used: Whether a newcomer would have to wait until this process or another lets go of some.
    """

    reserved: int = 0
    sent: int = 0
    most: int = 0
    short: bool = True
    granted: int = 0
    granted_until: float = 0.0
    renew_at: float = 0.0
    processes: int = 1
    all_used: bool = False

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

    @property
    def wanted(self) -> bool:
        """Whether somebody may want what this process has, or it wants more itself."""
        return self.all_used or self.short

    def due(self, now: float, calm_seconds: float) -> bool:
        """Whether to renew now, which is so often where nobody can want what this process has."""
        if self.wanted:
            return True
        return now >= self.granted_until - TTL_SECONDS + _GUARD_SECONDS + calm_seconds - _RENEW_SECONDS

    def want(self, waiting: int, cap: int, *, by_weight: bool = False) -> int:
        """How many it could use until the next renewal, with so many callers that wait.

        Args:
            by_weight: Whether they are shared out by the weights of who waits.
        """
        # Where the pace is what they wait for, one more than so far shows whether it is still.
        more = self.total + waiting if self.short or by_weight else min(self.most + 1, self.total + waiting)
        wanted = min(cap, max(self.most, more))
        self.most, self.short = self.total, False
        return wanted

    def renew(self, member: Member, processes: int, asked_at: float, *, all_used: bool) -> None:
        """Take what was granted."""
        self.granted = member.granted
        self.all_used = all_used
        self.granted_until = asked_at + TTL_SECONDS - _GUARD_SECONDS
        self.renew_at = asked_at + (_RENEW_SECONDS if member.granted < member.wanted else 0.0)
        self.processes = processes

    def limit(self, kept: int) -> None:
        """Have no more than this until it is renewed."""
        self.granted = min(self.granted, kept)


def _shares(members: dict[str, Member], cap: int, turn: int, portions: Mapping[str, float]) -> dict[str, int]:
    """Scheduled work has what it wants first; each process of backfills keeps one call where that is possible."""
    first = {name: member.wanted for name, member in members.items() if member.work_class != BACKFILL}
    rest = {name: member.wanted for name, member in members.items() if member.work_class == BACKFILL}
    kept = min(sum(1 for number in rest.values() if number), max(0, cap - len(first)))
    shares = _fair(first, cap - kept, turn, portions)
    return shares | _fair(rest, cap - sum(shares.values()), turn, portions)


def _fair(wanted: dict[str, int], cap: int, turn: int, portions: Mapping[str, float]) -> dict[str, int]:
    """Max-min fair shares; where there are more processes than calls in flight, they take turns.

    Args:
        portions: What they may use in proportion; one that is missing counts as the smallest.
    """
    names = sorted(name for name, number in wanted.items() if number > 0)
    smallest = min(portions.values(), default=1.0)
    portion = {name: portions.get(name, smallest) for name in names}
    shares = dict.fromkeys(wanted, 0)
    if len(names) > cap:
        turns = [name for name, number in slots_ahead(portion, 1).items() for _ in range(number)]
        for n in range(cap):
            name = turns[(turn * cap + n) % len(turns)]
            shares[name] = min(wanted[name], shares[name] + 1)
        return shares
    left, parts = cap, sum(portion.values())
    for position, name in enumerate(sorted(names, key=lambda name: (wanted[name] / portion[name], name))):
        others = len(names) - position
        fair = 1 + math.ceil((left - others) * portion[name] / parts - _ROUNDING)
        shares[name] = min(wanted[name], fair)
        left -= shares[name]
        parts -= portion[name]
    return shares
