"""The view of one day for its report: troops, latency, incidents, coverage."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Final

import pandas as pd

from vendor_assets.analytics import metrics
from vendor_assets.analytics.metrics import Stretch
from vendor_assets.analytics.sources import WEEKS
from vendor_assets.analytics.warehouse import Warehouse
from vendor_assets.days import day_window, parse_day, parse_time_zone
from vendor_assets.errors import ConfigurationError, ObjectNotFoundError
from vendor_assets.presentable import presentable
from vendor_assets.storage import layout
from vendor_assets.storage.marker import Marker
from vendor_assets.storage.source import EMBEDDED
from vendor_assets.storage.troop_keys import TroopKeys

"""Past weeks with which the day is compared."""
SERIES: Final = ("troop_id", "data_group", "value_name")
"""Columns that identify a series over all warriors of a troop."""
_MOST_SERIES: Final = 5_000
"""Series in which to look for incidents: those that vary most."""
_MOST_WARRIORS: Final = 30
"""Warriors in the plot of an incident: those with the largest values."""

_OVER_WARRIORS: Final = """
    coalesce(
        sum(value * weight) FILTER (weight > 0) / nullif(sum(weight) FILTER (weight > 0), 0), avg(value)
    )
"""


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame, columns as attributes."""
    return iter(frame.itertuples(index=False))


class DayView:
    """The view of one day; its parts are computed on first use.

    Args:
        timezone: Time zone of days, an IANA name; ConfigurationError if it is unknown.
    """

    def __init__(self, warehouse: Warehouse, day: date, timezone: str = "UTC") -> None:
        self.warehouse = warehouse
        self.day = day
        self.zone = parse_time_zone(timezone)
        self.window = day_window(day, self.zone)

    @classmethod
    def open(cls, warehouse: Warehouse, day: str = "", timezone: str = "UTC") -> DayView:
        """The view of a day given as text; by default the newest day with statistics.

        Raises:
            ConfigurationError: The day is not a date, or the time zone is unknown.
            ObjectNotFoundError: No day has statistics.
        """
        if day:
            return cls(warehouse, parse_day(day), timezone)
        days = warehouse.days("daily_performance")
        if not days:
            message = f"no day of daily_performance is in {warehouse.store.url}; harvest one first"
            raise ObjectNotFoundError(message)
        return cls(warehouse, days[-1], timezone)

    @property
    def timezone(self) -> str:
        """The IANA name of the day's time zone."""
        return self.zone.key

    @cached_property
    def source(self) -> str:
        """Which vendor and account the data are of, in words; empty if the store does not say."""
        try:
            marker = Marker.read(self.warehouse.store)
        except ConfigurationError:
            marker = None
        if marker is None:
            return ""
        source = marker.source
        where = "the embedded vendor" if source.address == EMBEDDED else source.address
        return f"{source.kind}, {where}" + (f", account {source.account}" if source.account else "")

    @cached_property
    def daily(self) -> pd.DataFrame:
        """Rows of ``daily_performance``.

        Raises:
            ObjectNotFoundError: The day's statistics have not been computed.
        """
        if not self.warehouse.partitions("daily_performance", self.day):
            message = (
                f"daily_performance of {self.day} is not in {self.warehouse.store.url}; materialize it first"
            )
            raise ObjectNotFoundError(message)
        return self.warehouse.read("daily_performance", self.day, categories=False)

    @cached_property
    def states(self) -> Mapping[str, str]:
        """State of each troop's data, by troop id: complete, partial, empty or missing."""
        keys = self.warehouse.states("performance_data", self.day)
        ids = {layout.encode_segment(troop_id): troop_id for troop_id in self._known_names}
        ids |= TroopKeys(self.warehouse.store).ids()
        # A troop without a roster entry and statistics is known by its key only.
        return {ids.get(key, key): state for key, state in keys.items()}

    @cached_property
    def _known_names(self) -> dict[str, str | None]:
        names = {troop.id: troop.name for troop in self.warehouse.roster(self.day).troops}
        for troop_id, name in self.daily[["troop_id", "troop_name"]].drop_duplicates("troop_id").to_numpy():
            names.setdefault(troop_id, name if isinstance(name, str) else None)
        return names

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Each troop's display name, with its id if several share one; its id if it has none."""
        known = {troop_id: self._known_names.get(troop_id) for troop_id in {*self._known_names, *self.states}}
        given = [name for name in known.values() if name]
        return {
            troop_id: troop_id if not name else name if given.count(name) == 1 else f"{name} [{troop_id}]"
            for troop_id, name in sorted(known.items())
        }

    @cached_property
    def main(self) -> pd.DataFrame:
        """The main value of each troop; see ``metrics.main_values``."""
        return metrics.main_values(self.daily)

    @cached_property
    def latency(self) -> pd.DataFrame:
        """Percentiles of each troop's main value over its warriors, for each timeslice.

        Columns: ``troop_id, data_group, value_name, timeslice_start, timeslice_end, warriors, p50, p95, p99``.
        """
        return self._query(
            """
            SELECT troop_id, data_group, value_name, timeslice_start, max(timeslice_end) AS timeslice_end,
                count(*) AS warriors, quantile_cont(value, 0.5) AS p50, quantile_cont(value, 0.95) AS p95,
                quantile_cont(value, 0.99) AS p99
            FROM performance_data SEMI JOIN main USING (troop_id, data_group, value_name)
            WHERE isfinite(value)
            GROUP BY ALL ORDER BY troop_id, timeslice_start
            """,
            frames={"main": self.main},
        )

    @cached_property
    def overview(self) -> pd.DataFrame:
        """One row per troop of the day, busiest first, those without data last.

        Columns: ``troop_id, troop, state, warriors, data_groups, timeslices, calls`` (of the main data group; NaN if
        unknown), ``errors`` (NaN if unknown), ``data_group, value_name`` (the main value), ``mean, p50, p95, p99, max``
        (of the main value over warriors and timeslices), ``covered_share``.
        """
        sizes = (
            self.daily.groupby("troop_id")
            .agg(
                warriors=("warrior_id", "nunique"),
                data_groups=("data_group", "nunique"),
                timeslices=("timeslices", "sum"),
                covered_share=("covered_share", "mean"),
            )
            .reset_index()
        )
        values = self._query(
            f"""
            SELECT troop_id, data_group, value_name, sum(weight) AS calls, {_OVER_WARRIORS} AS mean,
                quantile_cont(value, 0.5) AS p50, quantile_cont(value, 0.95) AS p95,
                quantile_cont(value, 0.99) AS p99, max(value) AS max
            FROM performance_data SEMI JOIN main USING (troop_id, data_group, value_name)
            WHERE isfinite(value)
            GROUP BY ALL
            """,
            frames={"main": self.main},
        )
        rows = pd.DataFrame(
            {
                "troop_id": list(self.names),
                "troop": list(self.names.values()),
                "state": [self.states.get(troop_id, "missing") for troop_id in self.names],
            },
            dtype=str,
        )
        rows = rows.merge(sizes, on="troop_id", how="left").merge(values, on="troop_id", how="left")
        errors = metrics.errors(self.daily, self.window.seconds / 60)
        rows["errors"] = rows["troop_id"].map(errors).astype(float)
        for name in ("warriors", "data_groups", "timeslices"):
            rows[name] = rows[name].fillna(0).astype(int)
        rows["covered_share"] = rows["covered_share"].fillna(0.0)
        return rows.sort_values(
            ["timeslices", "calls", "troop"], ascending=[False, False, True], kind="stable"
        ).reset_index(drop=True)

    @cached_property
    def before(self) -> Mapping[str, pd.Series]:
        """Means of the troops' main values on the day before and a week before, by troop id; empty without data."""
        found = {}
        for name, days in (("day before", 1), ("week before", 7)):
            day = self.day - timedelta(days=days)
            there = self.warehouse.partitions("daily_performance", day)
            daily = (
                self.warehouse.read("daily_performance", day, categories=False)
                if there
                else self.daily.iloc[:0]
            )
            found[name] = metrics.means(daily, self.main)
        return found

    @cached_property
    def part_time(self) -> Mapping[str, int]:
        """Of each troop how many warriors have no values at the day's beginning or end, by troop id."""
        rows = self._query(
            """
            SELECT troop_id, warrior_id, min(timeslice_start) AS first, max(timeslice_end) AS last,
                max(timeslice_end - timeslice_start) AS step
            FROM performance_data WHERE isfinite(value) GROUP BY ALL
            """
        )
        late = rows["first"] >= pd.Timestamp(self.window.start) + rows["step"]
        early = rows["last"] <= pd.Timestamp(self.window.end) - rows["step"]
        return {
            str(troop): int(count) for troop, count in (late | early).groupby(rows["troop_id"]).sum().items()
        }

    @cached_property
    def timeslice(self) -> str:
        """The usual length of a timeslice in words, like ``half hour``."""
        rows = self.latency
        if rows.empty:
            return "timeslice"
        minutes = float((rows["timeslice_end"] - rows["timeslice_start"]).dt.total_seconds().median()) / 60
        return {1.0: "minute", 30.0: "half hour", 60.0: "hour"}.get(minutes, f"{minutes:g} minutes")

    @cached_property
    def slowest(self) -> pd.DataFrame:
        """The data groups with the largest latency; see ``metrics.slowest_groups``."""
        return metrics.slowest_groups(self.daily, self.main)

    @cached_property
    def weeks(self) -> tuple[date, ...]:
        """The same weekday of past weeks with data, newest first."""
        there = set(self.warehouse.days("performance_data"))
        past = (self.day - timedelta(weeks=number) for number in range(1, WEEKS + 1))
        return tuple(day for day in past if day in there)

    @cached_property
    def scored(self) -> pd.DataFrame:
        """The series of each troop over its warriors, scored by ``metrics.anomalies``."""
        rows = self._query(
            f"""
            WITH series AS (
                SELECT {", ".join(SERIES)}, timeslice_start, max(timeslice_end) AS timeslice_end,
                    {_OVER_WARRIORS} AS value
                FROM performance_data WHERE isfinite(value)
                GROUP BY ALL
            ), most AS (
                SELECT {", ".join(SERIES)} FROM series GROUP BY ALL
                ORDER BY (max(value) - min(value)) / nullif(abs(median(value)), 0) DESC NULLS LAST, {", ".join(SERIES)}
                LIMIT {_MOST_SERIES}
            )
            SELECT * FROM series SEMI JOIN most USING ({", ".join(SERIES)})
            """
        )
        past = self.warehouse.query(
            f"""
            SELECT {", ".join(SERIES)}, timeslice_start, {_OVER_WARRIORS} AS value
            FROM performance_data SEMI JOIN wanted USING ({", ".join(SERIES)})
            WHERE isfinite(value)
            GROUP BY ALL
            """,
            table="performance_data",
            days=list(self.weeks),
            frames={"wanted": rows[list(SERIES)].drop_duplicates()},
        )
        return metrics.anomalies(rows, past, by=SERIES, timezone=self.timezone)

    @cached_property
    def incidents(self) -> list[tuple[Stretch, list[Stretch]]]:
        """Incidents, most severe first: the worst stretch of each, and its other stretches."""
        return metrics.incidents(metrics.stretches(self.scored, by=SERIES))

    def felt(self, incident: tuple[Stretch, list[Stretch]]) -> list[Stretch]:
        """What users of the service felt of an incident: its main value, then its errors; empty if neither changed."""
        main = set(self.main[list(SERIES)].itertuples(index=False, name=None))
        worst, others = incident
        changed = [worst, *others]
        slow = [stretch for stretch in changed if stretch.series in main]
        wrong = [
            stretch
            for stretch in changed
            if metrics.is_error(stretch.series[2]) and stretch.ratio > 1 and stretch not in slow
        ]
        return [*slow[:1], *wrong[:1]]

    def told(self, incident: tuple[Stretch, list[Stretch]]) -> Stretch:
        """What is told first of an incident: what users felt of it, else its worst stretch."""
        return (self.felt(incident) or [incident[0]])[0]

    @cached_property
    def headline(self) -> Stretch | None:
        """What is told first of the worst incident."""
        return self.told(self.incidents[0]) if self.incidents else None

    @cached_property
    def incident_rows(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The series of the headline, over its warriors and per warrior; empty if there is no incident."""
        if self.headline is None:
            return self.scored.iloc[:0], pd.DataFrame(columns=["warrior_id", "timeslice_start", "value"])
        series = dict(zip(SERIES, self.headline.series, strict=True))
        mine = (self.scored[list(SERIES)] == pd.Series(series)).all(axis=1)
        single = self._query(
            f"""
            WITH mine AS (
                SELECT warrior_id, timeslice_start, value FROM performance_data
                WHERE troop_id = $troop_id AND data_group = $data_group AND value_name = $value_name
                    AND isfinite(value)
            )
            SELECT * FROM mine WHERE warrior_id IN (
                SELECT warrior_id FROM mine GROUP BY 1 ORDER BY max(value) DESC, 1 LIMIT {_MOST_WARRIORS}
            )
            ORDER BY warrior_id, timeslice_start
            """,
            parameters=series,
        )
        return self.scored[mine].sort_values("timeslice_start"), single

    @cached_property
    def coverage(self) -> pd.DataFrame:
        """The share of each troop's series that has values, by hour of the day.

        Rows: troop ids in the order of ``overview``; columns: starts of hours (or of longer steps, if timeslices are
        longer) in UTC. Without data it is 0, never NaN.
        """
        rows = self._query(
            """
            SELECT troop_id, timeslice_start,
                max(epoch(timeslice_end) - epoch(timeslice_start)) AS seconds,
                sum(epoch(timeslice_end) - epoch(timeslice_start)) AS covered
            FROM performance_data WHERE isfinite(value) GROUP BY ALL
            """
        )
        step = max(3600.0, math.ceil(rows["seconds"].max() / 3600) * 3600.0 if len(rows) else 0.0)
        start = pd.Timestamp(self.window.start)
        bins = [
            start + pd.Timedelta(seconds=number * step)
            for number in range(math.ceil(self.window.seconds / step))
        ]
        order = self.overview["troop_id"].tolist()
        if rows.empty:
            return pd.DataFrame(0.0, index=order, columns=bins)
        series = self.daily.groupby("troop_id").size()
        place = ((rows["timeslice_start"] - start).dt.total_seconds() // step).astype(int)
        found = (
            rows.assign(bin=place.clip(0, len(bins) - 1)).pivot_table(
                index="troop_id", columns="bin", values="covered", aggfunc="sum", fill_value=0.0
            )
        ).reindex(index=order, columns=range(len(bins)), fill_value=0.0)
        # The last step of a day may be shorter.
        lengths = [min(step, self.window.seconds - number * step) for number in range(len(bins))]
        shares = found.div(pd.Series(lengths, index=found.columns), axis=1).div(series.reindex(order), axis=0)
        shares.columns = pd.Index(bins)
        return shares.fillna(0.0).clip(upper=1.0)

    @cached_property
    def caveats(self) -> list[str]:
        """What limits the day's validity, most important first; empty for a good day."""
        said = []
        for state, text in (
            ("missing", "no data of {} (not harvested, or failed): {}"),
            ("partial", "only a part of the data of {}: {}"),
        ):
            troops = [self.names[troop_id] for troop_id, found in self.states.items() if found == state]
            if troops:
                shown = ", ".join(sorted(troops)[:5]) + (
                    f" and {len(troops) - 5} more" if len(troops) > 5 else ""
                )
                number = f"{len(troops)} troop{'s' if len(troops) > 1 else ''}"
                said.append(text.format(number, shown))
        stated = int(self.daily["troops_missing"].max()) if len(self.daily) else 0
        missing = sum(found == "missing" for found in self.states.values())
        if stated > missing:
            said.append(
                f"the statistics were computed when {stated} troops were missing and {missing} are now: "
                "materialize daily_performance again"
            )
        if not len(self.daily):
            said.append("no values at all on this day")
        elif not self.main["latency"].any():
            said.append("no value looks like a latency: the most variable values are shown instead")
        return said

    def summary(self) -> dict[str, str | int | float]:
        """The day in a few numbers: plain JSON without NaN."""
        found: dict[str, str | int | float] = {
            "day": self.day.isoformat(),
            "timezone": self.timezone,
            "troops": len(self.names),
            "troops_missing": sum(state == "missing" for state in self.states.values()),
            "troops_partial": sum(state == "partial" for state in self.states.values()),
            "warriors": int(self.overview["warriors"].sum()),
            "series": len(self.daily),
            "timeslices": int(self.overview["timeslices"].sum()),
            "covered_share": round(float(self.daily["covered_share"].mean()), 4) if len(self.daily) else 0.0,
            "incidents": len(self.incidents),
            "weeks_compared": len(self.weeks),
        }
        if self.headline is not None:
            found["incident"] = self.describe(self.headline)
            if math.isfinite(self.headline.ratio):
                found["incident_ratio"] = round(self.headline.ratio, 2)
        return found

    def describe(self, stretch: Stretch) -> str:
        """A stretch in one sentence, with times in the day's zone."""
        troop_id, data_group, value_name = stretch.series
        name = self.names.get(troop_id, troop_id)
        times = " to ".join(self.times(stretch))
        text = f"{name}: {data_group} {value_name} was {stretch.change} from {times} {self.timezone}"
        return presentable(text)

    def times(self, stretch: Stretch) -> tuple[str, str]:
        """Start and end of a stretch as times of the day; the day's end is 24:00."""
        end = "24:00" if stretch.end >= self.window.end else f"{stretch.end.astimezone(self.zone):%H:%M}"
        return f"{stretch.start.astimezone(self.zone):%H:%M}", end

    def _query(
        self,
        sql: str,
        *,
        frames: Mapping[str, pd.DataFrame] | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> pd.DataFrame:
        return self.warehouse.query(
            sql, table="performance_data", days=self.day, frames=frames, parameters=parameters
        )
