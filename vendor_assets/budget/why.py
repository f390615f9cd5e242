"""Why calls wait: what binds, what holds it, who goes first and when the work is done. Pure; it changes nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from vendor_assets.budget.in_flight import InFlightShares, Member, Teams
from vendor_assets.budget.leases import LeaseState
from vendor_assets.budget.limits import PARTS, REQUESTS, WINDOW_PARTS, Limit
from vendor_assets.budget.pace import HEADERS, HOLD, LEARNT, OUTAGE, PACE, WINDOW, Bound, Pace
from vendor_assets.budget.reservations import Ask
from vendor_assets.budget.samples import FRESH, Sample, pace_at
from vendor_assets.budget.state import Used, rate_reason
from vendor_assets.budget.teams import OTHERS, Team, Waiting
from vendor_assets.budget.terms import Terms
from vendor_assets.budget.tracks import Rule
from vendor_assets.days import duration_text
from vendor_assets.presentable import counted
from vendor_assets.work_class import BACKFILL, SCHEDULED, WorkClass

IN_FLIGHT: Final = "in flight"
NOTHING: Final = "nothing"
SAMPLES_SINCE: Final = timedelta(days=1)
"""So far back who used a window is told; reading a month of samples would be dear."""

_LONG_SECONDS: Final = 1.0
"""Who waits longer than this for one thing waits for nothing else."""
_FAR_SECONDS: Final = 0.02
_MOST_NAMED: Final = 3
_BUSY: Final = 0.8
_EVEN: Final = 0.02
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Snapshot:
    """A budget at one moment; times are the database's clock, ``wall`` is the time of day.

    Attributes:
        answer_seconds: How long the database took to answer.
    """

    terms: Terms
    pace: Pace
    shares: InFlightShares
    now: float
    wall: float
    answer_seconds: float = 0.0

    def supposing(self, *, share: float | None = None, limits: Sequence[Limit] | None = None) -> Snapshot:
        """The same, had all processes another share or quota; what was used so far stays used.

        Raises:
            ConfigurationError: A value is not possible.
        """
        old = {(each.period_seconds, each.unit, each.endpoints): each.name for each in self.terms.limits}
        terms = replace(
            self.terms,
            share=self.terms.share if share is None else share,
            limits=self.terms.limits if limits is None else tuple(limits),
        )
        pace = deepcopy(self.pace)
        tracks = {name: track for name, track in pace.tracks.items() if name.startswith("~")}
        for rule in terms.rules:
            limit = rule.limit
            name = old.get((limit.period_seconds, limit.unit, limit.endpoints), "")
            if (track := pace.tracks.get(name)) is not None:
                track.interval = rule.interval_seconds
                track.arrival = min(track.arrival, self.now + (track.call_seconds or track.interval))
                tracks[limit.name] = track
        pace.tracks = tracks
        for key, quota in pace.quotas.items():
            pace.quotas[key] = replace(quota, share=terms.share if share is not None else quota.share)
        return replace(self, terms=terms, pace=pace)


@dataclass(frozen=True)
class RunWork:
    """What one run still has to do.

    Attributes:
        calls: Calls to come; None where the run has not said.
        work_class: None where that is not known.
        process: Of which process it is; empty where that is not known.
    """

    source: str
    calls: int | None
    work_class: WorkClass | None = None
    process: str = ""

    def __str__(self) -> str:
        kind = f", {self.work_class}" if self.work_class else ""
        calls = "calls not known" if self.calls is None else f"{counted(self.calls, 'call')} to come"
        return f"run {self.source[:8]} ({calls}{kind})"


@dataclass(frozen=True)
class Work:
    """What the runs of a deployment still have to do, and what they did.

    Attributes:
        pace: Calls per second that they made together of late; 0 where that is not known.
        samples: Oldest first, of the last day.
    """

    runs: tuple[RunWork, ...] = ()
    pace: float = 0.0
    samples: tuple[Sample, ...] = ()
    now: datetime = _EVER

    @classmethod
    def of(cls, samples: Sequence[Sample], leases: Sequence[LeaseState], now: datetime) -> Work:
        """By the samples of the backlog, and the leases of live runs."""
        newest = {sample.source: sample for sample in samples if sample.time > now - FRESH}
        alive = {lease.holder: lease.info for lease in leases if not lease.lapsed}
        runs = []
        for source in sorted({*(name for name, sample in newest.items() if sample.waits), *alive}):
            info, sample = alive.get(source, {}), newest.get(source)
            if sample is None and "class" not in info:
                continue  # a run that harvests nothing
            told = None if sample is None or (sample.waits and not sample.calls) else sample.calls
            known: WorkClass | None = next(
                (each for each in (SCHEDULED, BACKFILL) if each == info.get("class")), None
            )
            runs.append(RunWork(source, told, known, info.get("process", "")))
        return cls(tuple(runs), pace_at(samples, now), tuple(samples), now)

    def run(self, name: str) -> RunWork | None:
        """A run, by its id or how that begins; None where it is not at work."""
        return next((run for run in self.runs if run.source.startswith(name)), None)

    def used_since(self, since: datetime) -> dict[str, int]:
        """Calls that each source made since then, the most first."""
        first: dict[str, Sample] = {}
        last: dict[str, Sample] = {}
        for sample in self.samples:
            if sample.time < since or sample.source not in first:
                first[sample.source] = sample
            last[sample.source] = sample
        used = {}
        for source, sample in last.items():
            if sample.time >= since:
                begun = first[source].time >= since + FRESH
                used[source] = sample.calls_done - (0 if begun else first[source].calls_done)
        return {
            source: calls for source, calls in sorted(used.items(), key=lambda item: -item[1]) if calls > 0
        }


@dataclass(frozen=True)
class Explanation:
    """Why calls wait.

    Attributes:
        binds: ``outage``, ``hold``, ``window``, ``headers``, ``learnt``, ``pace``, ``in flight`` or ``nothing``.
        limit: Which limit or quota; empty where it is none.
        text: The same for people, with how much of it is used.
        wait_seconds: Until the next call may go; None where that cannot be known.
        held_by: Who uses it: runs and processes.
        before: Whose calls go before these, or share the pace with them.
        also: Endpoints that wait for a limit of their own.
        calls: Calls to come; None where that is not known.
        done_seconds: Until all of them are made, at the earliest and at the latest; None where that cannot be known.
        assumes: What the estimate takes for granted, or why there is none.
        teams: Where the pace is shared by weight: each team, its part, and what of it is lent or borrowed.
    """

    binds: str
    limit: str
    text: str
    wait_seconds: float | None
    wall: float
    held_by: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    calls: int | None = None
    done_seconds: tuple[float, float] | None = None
    assumes: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        parts = [self.text + (f", by {_listed(self.held_by)}" if self.held_by else "")]
        parts += [f"the next call goes {self.next_call}"] if self.next_call else []
        parts += [f"before it: {_listed(self.before)}"] if self.before else []
        parts += [f"also waiting: {_listed(self.also)}"] if self.also else []
        parts += list(self.teams)
        return "; ".join([*parts, self.done]) if self.calls != 0 else "; ".join(parts)

    @property
    def next_call(self) -> str:
        """When it goes; empty where that is at once or cannot be known."""
        waits = self.wait_seconds is not None and self.wait_seconds > _LONG_SECONDS
        return self._in(self.wait_seconds or 0.0) if waits else ""

    @property
    def done(self) -> str:
        """When the work is done."""
        if self.done_seconds is None or self.calls is None:
            reason = f": {self.assumes[0]}" if self.assumes else ""
            return f"when it will be done cannot be known{reason}"
        low, high = self.done_seconds
        when = f"{self._in(low)} at the earliest"
        if high > 1.1 * low + 1:
            when += f" and {self._in(high)} at the latest"
        return f"{counted(self.calls, 'call')} to come, done {when}"

    def _in(self, seconds: float) -> str:
        # A share of a month's quota may last for longer than calendars reach.
        if seconds > 100 * 366 * 86_400:
            return "in more than a hundred years"
        now, then = (datetime.fromtimestamp(self.wall + passed, UTC) for passed in (0.0, seconds))
        shown = f"{then:%H:%M:%S}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M}"
        return f"in {duration_text(seconds)} ({shown} UTC)"


def explain(
    snapshot: Snapshot,
    work: Work,
    *,
    run: RunWork | None = None,
    calls: int | None = None,
    work_class: WorkClass | None = None,
    endpoint: str | None = None,
    supposed: bool = False,
) -> Explanation:
    """Why calls wait, and when those to come are made.

    Args:
        run: Whose calls; None for the whole deployment.
        calls: Calls to come, where a plan tells; otherwise those that the runs tell of.
        work_class: Of these calls, where the run does not tell.
        endpoint: Where the call that waits goes; None where that is not known.
        supposed: Whether the snapshot is a supposition, to which the pace of late says nothing.
    """
    work_class = (run.work_class if run else None) or work_class
    view = _View(snapshot, work, backfill=work_class == BACKFILL)
    bound, also = view.binding(endpoint)
    one = work.runs if run is None else (run,)
    if calls is None and one and all(each.calls is not None for each in one):
        calls = sum(each.calls or 0 for each in one)
    elif calls is None and run is None and not one:
        calls = 0
    before = view.before(run, work_class)
    beside = sum(each.calls or 0 for each in before)
    known = all(each.calls is not None for each in before)
    done, assumes = view.done(bound, calls, beside, supposed=supposed)
    if done is not None and not known:
        assumes = (*assumes, "a run beside it has not said how many calls it still needs; they are not in it")
    return Explanation(
        binds=bound.kind,
        limit=view.name(bound),
        text=view.text(bound) + view.far(bound, snapshot.answer_seconds),
        wait_seconds=None if bound.kind == OUTAGE else max(0.0, bound.at - snapshot.now),
        wall=snapshot.wall,
        held_by=view.held_by(bound),
        before=tuple(map(str, before)),
        also=also,
        calls=calls,
        done_seconds=done,
        assumes=assumes,
        teams=view.teams(),
    )


class _View:
    """A snapshot that is looked at for calls of one class."""

    def __init__(self, snapshot: Snapshot, work: Work, *, backfill: bool) -> None:
        self._terms, self._now, self._wall = snapshot.terms, snapshot.now, snapshot.wall
        self._rules = self._terms.rules
        self._pace = deepcopy(snapshot.pace)
        self._work = work
        self._backfill = backfill
        self._members = snapshot.shares.live()
        self._teams = snapshot.shares.teams
        self._in_flight = sum(each.in_flight for each in self._members.values())
        self._waiting = sum(each.waiting for each in self._members.values())
        self._cap = min([self._terms.max_in_flight, *(each.cap for each in self._members.values())])
        self._limits = {rule.limit.name: rule for rule in self._rules}

    # -- what binds --------------------------------------------------------------------------------

    def binding(self, endpoint: str | None) -> tuple[Bound, tuple[str, ...]]:
        """What keeps calls back most, and what else keeps calls to some endpoints back."""
        now, wide = self._now, self._bounds(endpoint or "")
        narrow: dict[str, Bound] = {}
        if endpoint is None:
            apart = self._terms.endpoints | self._pace.quotas.narrow_endpoints()
            for name in sorted(apart):
                own = [bound for bound in self._bounds(name) if not bound.wide]
                latest = max(own, key=lambda bound: bound.at, default=None)
                if latest is not None and latest.at - now > _LONG_SECONDS:
                    narrow[name] = latest
        bound = self._chosen(wide, list(narrow.values()))
        also = tuple(
            f"calls to {name}, {self.text(each)}, for {duration_text(each.at - now)}"
            for name, each in narrow.items()
            if each is not bound
        )
        return bound, also

    def _chosen(self, wide: list[Bound], narrow: list[Bound]) -> Bound:
        now = self._now
        if outage := [bound for bound in wide if bound.kind == OUTAGE]:
            return outage[0]
        latest = max(wide, key=lambda bound: bound.at, default=Bound(NOTHING, "", now))
        if latest.at - now > _LONG_SECONDS:
            # What follows from a hold ends with it, or one call later.
            lasting = max(_LONG_SECONDS, latest.interval)
            holds = (bound for bound in wide if bound.kind == HOLD and latest.at - bound.at <= lasting)
            return next(holds, latest)
        if self._waiting and self._in_flight >= self._cap:
            return Bound(IN_FLIGHT, "", now)
        if narrow and (self._waiting or not self._in_flight):
            return max(narrow, key=lambda bound: bound.at)
        spaced = [bound for bound in wide if bound.interval > 0]
        slowest = max(spaced, key=lambda bound: bound.interval, default=Bound(NOTHING, "", now))
        queue = self._waiting or self._pace.reservations.reach_past(now)
        busy = slowest.interval * self._work.pace >= _BUSY
        return slowest if queue or busy else Bound(NOTHING, "", now)

    def _bounds(self, endpoint: str) -> list[Bound]:
        # A copy: looking brings the tracks up to date.
        pace, counts = deepcopy(self._pace), tuple(self._pace.per_call().items())
        return pace.bounds(self._rules, Ask(endpoint, self._backfill, counts=counts), self._now)

    # -- in words ----------------------------------------------------------------------------------

    def name(self, bound: Bound) -> str:
        """Of the limit or quota."""
        if bound.kind == IN_FLIGHT:
            return f"{self._cap} calls in flight"
        rule = self._limits.get(bound.name)
        return str(rule.limit) if rule else bound.name if bound.kind in (PACE, WINDOW, HEADERS) else ""

    def text(self, bound: Bound) -> str:
        """What binds, with how much of it is used."""
        pace, now, name = self._pace, self._now, self.name(bound)
        if bound.kind == OUTAGE:
            since = duration_text(now - (pace.breaker.opened_at or now))
            out = pace.breaker.probe_until > now
            asks = "a call is out to ask" if out else "a call every few seconds asks"
            return f"the vendor has been down for {since}; {asks} whether it is back"
        if bound.kind == HOLD:
            return f"nobody sends: {bound.name}"
        if bound.kind == IN_FLIGHT:
            return f"{self._in_flight} of at most {self._cap} calls are in flight and {self._waiting} wait"
        if bound.kind == NOTHING:
            return "the budget keeps no call back"
        if bound.kind in (HEADERS, LEARNT):
            return rate_reason(self._terms, pace, now, self._wall) if bound.wide else self._told(bound)
        rule, track = self._limits.get(bound.name), pace.tracks.get(bound.name)
        if rule is None:
            return f"another process of this account has a limit that this one has not: {bound.name}"
        share = f"our share of it is {rule.share:.0%}"
        if bound.kind == WINDOW and track is not None:
            used = Used(track.used, rule.parts / PARTS, rule.limit.unit)
            return f"the limit {name} is used up ({share}): {used}"
        text = f"the limit {name} spaces calls ({share})"
        stricter = track is not None and track.interval > 1.001 * rule.interval_seconds
        if stricter and bound.interval:
            text += ", more widely since another process has a smaller share or limit: "
            text += f"{1 / bound.interval:.3g} calls/s"
        return text

    def far(self, bound: Bound, answer_seconds: float) -> str:
        """That the database takes long, where calls may wait for that rather than for the pace."""
        rate = self._pace.present_rate(self._rules, self._now)
        near = answer_seconds < max(_FAR_SECONDS, 0.5 / rate)
        if near or math.isinf(rate) or bound.kind not in (PACE, NOTHING):
            return ""
        return (
            f"; the budget's database takes {answer_seconds * 1000:.0f} ms to answer, which slows calls that may go "
            f"every {1000 / rate:.0f} ms: keep it near the workers"
        )

    def _told(self, bound: Bound) -> str:
        quota = self._pace.quotas.get(bound.name)
        where = f" for {', '.join(quota.endpoints)}" if quota and quota.endpoints else ""
        left = quota.rate(self._now) if quota else None
        rest = f"leaves {left:.3g} calls/s" if left else "is used up"
        return f"the vendor says that its quota{where} {rest}"

    def held_by(self, bound: Bound) -> tuple[str, ...]:
        """Runs and processes that use what binds."""
        if bound.kind == IN_FLIGHT:
            held = sorted(self._members.items(), key=lambda item: -item[1].in_flight)
            return tuple(self._member(holder, each) for holder, each in held if each.in_flight)
        rule = self._limits.get(bound.name)
        if bound.kind != WINDOW or rule is None or rule.limit.unit != REQUESTS:
            return ()
        # The database's times and those of samples may differ; a window's length does not.
        reach = min(timedelta(seconds=rule.limit.period_seconds), SAMPLES_SINCE)
        used = self._work.used_since(self._work.now - reach)
        of_day = " in the last day" if timedelta(seconds=rule.limit.period_seconds) > SAMPLES_SINCE else ""
        return tuple(f"run {source[:8]} ({calls:,}{of_day})" for source, calls in used.items())

    def _member(self, holder: str, member: Member) -> str:
        runs = [
            run.source[:8] for run in self._work.runs if run.process and holder.startswith(run.process + "-")
        ]
        who = f"run {', '.join(runs)}" if runs else f"process {holder}"
        return f"{who} ({member.in_flight} in flight, {member.work_class})"

    def before(self, run: RunWork | None, work_class: WorkClass | None) -> tuple[RunWork, ...]:
        """Runs whose calls go first or share the pace: of scheduled work the scheduled ones, of a backfill all."""
        if run is None:
            return ()
        others = [each for each in self._work.runs if each.source != run.source and each.calls != 0]
        if work_class == SCHEDULED:
            others = [each for each in others if each.work_class != BACKFILL]
        return tuple(sorted(others, key=lambda each: (each.work_class == BACKFILL, each.source)))

    def teams(self) -> tuple[str, ...]:
        """Each team at work, its part of the pace, and what it has of late."""
        found: dict[str, Waiting] = {}
        for holder, member in self._members.items():
            others = Waiting(OTHERS, member.waiting, 0.0)
            of, waiting = self._teams.get(holder, Teams(self._terms.account, (others,)))
            for each in waiting if of == self._terms.account else ():
                before = found.get(each.team.name, Waiting(each.team, 0, 0.0))
                team = Team(each.team.name, max(each.team.weight, before.team.weight))
                found[team.name] = Waiting(team, each.calls + before.calls, each.rate + before.rate)
        found = {name: each for name, each in found.items() if each.calls or each.rate}
        if not found.keys() - {OTHERS.name}:
            return ()
        weights = sum(each.team.weight for each in found.values())
        # A process in which nobody has a weight does not tell how fast it is.
        told = all(holder in self._teams for holder, member in self._members.items() if member.waiting)
        rates = sum(each.rate for each in found.values()) if told else 0.0
        lent = not all(each.calls for each in found.values())
        return tuple(
            _of_team(each, each.team.weight / weights, each.rate / rates if rates else None, lent=lent)
            for each in sorted(found.values(), key=lambda each: (each.team == OTHERS, each.team.name))
        )

    # -- when it is done ---------------------------------------------------------------------------

    def done(
        self, bound: Bound, calls: int | None, beside: int, *, supposed: bool
    ) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
        """Seconds until so many calls are made, at the earliest and latest, and what that assumes."""
        now, pace = self._now, self._pace
        if bound.kind == OUTAGE and calls != 0:
            return None, ("nobody knows when the vendor is back",)
        if calls is None:
            return None, ("no run has said how many calls are still to come",)
        rate, best = pace.present_rate(self._rules, now), pace.ceiling(self._rules, now)
        observed = self._work.pace
        if math.isinf(rate) and not observed:
            return None, ("no limit is known that would tell the pace, and no run has told its own",)
        late = 0.0
        assumes = [
            "no work comes in meanwhile, lists yet to be read add nothing, and few calls are made again"
        ]
        by_pace = bound.kind in (IN_FLIGHT, PACE, LEARNT, NOTHING) or math.isinf(rate)
        if observed and by_pace and not supposed:
            late = (calls + beside) / observed
            assumes.append(f"at the latest means at the pace of the last minutes, {observed:.3g} calls/s")
        if math.isinf(best):
            best = rate if math.isfinite(rate) else observed
        if math.isinf(rate):
            rate = best
        if self._terms.endpoints:
            assumes.append("limits of some endpoints are not in it: how many calls go there is not known")
        if bound.kind == LEARNT:
            assumes.append("what the vendor bears may change")
        held = max(0.0, pace.held_until(now) - now, bound.at - now if bound.wide else 0.0)
        early = held + self._drain(calls, best, held)
        late = max(late, early, held + self._drain(calls + beside, rate, held))
        return (early, late), tuple(assumes)

    def _drain(self, calls: int, rate: float, held: float) -> float:
        """Seconds from the end of a hold until so many calls are made at a pace, and within counted windows."""
        longest = max(0, calls - 1) / rate
        for rule in self._rules:
            track = self._pace.tracks.get(rule.limit.name)
            if rule.limit.counted and not rule.endpoints:
                units = 1.0 if rule.limit.unit == REQUESTS else track.average if track else 0.0
                counts = track.counts if track else []
                start = self._now + held
                longest = max(longest, _seconds_in_window(rule, counts, calls, units, 1 / rate, start))
        return longest


def _seconds_in_window(
    rule: Rule, counts: Sequence[tuple[float, int]], calls: int, units: float, interval: float, start: float
) -> float:
    """Seconds until so many calls have fitted into a window that looks back over the last period.

    Args:
        counts: What was used of it, in billionths by the start of its part of the window.
        units: What a call counts of it.
    """
    if not units or not calls:
        return 0.0
    period = rule.limit.period_seconds
    lasts = period + period / WINDOW_PARTS
    whole, each = rule.parts, min(rule.parts, max(1, round(units * PARTS)))
    per_window = max(1, whole // each)
    windows = max(0, calls // per_window - 2)
    left, at, last = calls - windows * per_window, start, start
    entries = deque((begun + lasts, number) for begun, number in counts if begun + lasts > start)
    used = sum(number for _, number in entries)
    part = max(1, per_window // WINDOW_PARTS)
    while left:
        while entries and entries[0][0] <= at:
            used -= entries.popleft()[1]
        fits = min(left, part, max(0, whole - used) // each)
        if not fits and entries:
            at = entries[0][0]
            continue
        fits = max(1, fits)
        entries.append((at + lasts, fits * each))
        used += fits * each
        left -= fits
        last = at + (fits - 1) * interval
        at += fits * interval
    return last - start + windows * period


def _of_team(waiting: Waiting, part: float, has: float | None, *, lent: bool) -> str:
    team, calls = waiting.team, waiting.calls
    who = f"team {team.name}" if team.name else "other troops"
    wait = "no call waits" if not calls else f"{calls:,} call{'s' * (calls > 1)} wait{'s' * (calls == 1)}"
    text = f"{who} (weight {team.weight:g}, {wait}): its part of the pace is {part:.0%}"
    if has is None:
        return text
    more = has - part
    told = ""
    if abs(more) > _EVEN and (more < 0 if not calls else more > 0 and lent):
        told = f", so it {'borrows' if calls else 'lends'} {abs(more):.0%}"
    return f"{text}, recently it had {has:.0%}{told}"


def _listed(names: Sequence[str]) -> str:
    every = list(names)
    more = len(every) - _MOST_NAMED
    return ", ".join(every[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
