"""The cap on calls in flight, shared out over processes. Pure.

Each process holds some of the places for a few seconds at a time and enforces them by itself. A process that
is gone stops renewing, and its places fall to the others.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Final

TTL_SECONDS: Final = 5.0
"""Places that were not renewed for so long are free."""

_TURN_SECONDS: Final = 2.0


@dataclass(slots=True)
class Member:
    """One process.

    Attributes:
        renewed_at: On the database's clock.
        wanted: Places it could use.
        granted: Places it may use.
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
    work_class: str
    cap: int


@dataclass(slots=True)
class Places:
    """All processes of an account, by holder."""

    boot: str
    at: float
    members: dict[str, Member] = field(default_factory=dict)

    @classmethod
    def load(cls, body: str, now: float, boot: str) -> Places:
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
        """Say what a process wants, and give it what it may have now.

        What it may have is the max-min fair share of the smallest cap, as far as the others have already
        let go of theirs; it keeps what it uses at the moment.

        Args:
            holder: The process.
            member: What it wants; ``granted`` is filled in.
            in_use: Places it cannot give back now.
            now: The database's clock.
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

    def leave(self, holder: str) -> None:
        """A process needs no places any more."""
        self.members.pop(holder, None)


def _shares(members: dict[str, Member], cap: int, turn: int) -> dict[str, int]:
    """Scheduled work has what it wants first; each process of backfills keeps one place where that is possible."""
    first = {name: member.wanted for name, member in members.items() if member.work_class != "backfill"}
    rest = {name: member.wanted for name, member in members.items() if member.work_class == "backfill"}
    kept = min(sum(1 for number in rest.values() if number), max(0, cap - len(first)))
    shares = _fair(first, cap - kept, turn)
    return shares | _fair(rest, cap - sum(shares.values()), turn)


def _fair(wanted: dict[str, int], cap: int, turn: int) -> dict[str, int]:
    """Max-min fair shares; where there are more processes than places, they take turns."""
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
