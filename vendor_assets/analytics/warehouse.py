"""The warehouse: reading tables for analysis, pruned by path and column.

In a notebook::

    import vendor_assets

    frame = vendor_assets.read("performance_data", ("2026-11-01", "2026-11-30"), ["checkout-*"])

Only the files of these days and troops are opened, and only the columns that are asked for are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, overload

import pyarrow as pa

from vendor_assets.analytics.troop_names import keys_named
from vendor_assets.days import days_between, parse_day
from vendor_assets.errors import ConfigurationError, ObjectNotFoundError, StorageError
from vendor_assets.logs import get_logger
from vendor_assets.states import state_of_table
from vendor_assets.storage import layout
from vendor_assets.storage.concurrent import map_concurrently
from vendor_assets.storage.objects import ObjectStore, open_store
from vendor_assets.storage.parquet import (
    duckdb_connection,
    duckdb_reason,
    read_metadata,
    read_schema,
    read_table,
)
from vendor_assets.storage.roster import Roster, Troop
from vendor_assets.storage.troop_keys import TroopKeys
from vendor_assets.tables import TABLES, Table
from vendor_assets.temporary import temporary_folder

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

logger = get_logger(__name__)

Day = date | str
Days = Day | tuple[Day, Day] | Iterable[Day]
Kind = Literal["pandas", "arrow", "duckdb"]

DAY_FIELD: Final = pa.field(
    "day", pa.date32(), nullable=False, metadata={"description": "The partition's day"}
)
TROOP_FIELD: Final = pa.field(
    "troop", pa.string(), nullable=False, metadata={"description": "The troop's partition key, from the path"}
)

_REPEATED: Final = frozenset(
    {"troop_id", "troop_name", "warrior_id", "warrior_name", "data_group", "value_name"}
)
"""Columns whose texts repeat in many rows. Of five million rows of performance data pandas needs 38 bytes a row with
categoricals, 177 without, and groups and filters in less than half the time."""

_FEW_TROOPS: Final = 4
"""Up to so many troops are asked for by name; for more, the day's folder is listed once."""
_MEMORY_LIMIT: Final = "512MB"
"""What DuckDB may use before it spills to disk."""


@dataclass(frozen=True, order=True)
class Partition:
    """One file of a table: its day, its troop's partition key (None in tables of days) and its object key.

    A table that is not partitioned has one, of the first day that there is.
    """

    day: date
    troop: str | None
    key: str


class Warehouse:
    """The tables of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    @classmethod
    def connect(cls, url: str) -> Warehouse:
        """The warehouse in a folder or at ``s3://bucket/prefix``, with the credentials that boto3 finds."""
        return cls(open_store(url))

    def days(self, table: str) -> list[date]:
        """The days of which a table has at least one partition, in order."""
        return self._days_of(self._table(table).name)

    def partitions(
        self, table: str, days: Days | None = None, troops: Iterable[str] | str | None = None
    ) -> list[Partition]:
        """The partitions that are there, by day and troop.

        Args:
            table: A table's name, one of your own too.
            days: One day, a tuple (first, last), both included, or a list of days; all days if not given. Days
                are dates or texts like ``2026-11-20``.
            troops: What :meth:`read` takes.

        Raises:
            ConfigurationError: An unknown table or troop, or a day that is none.
        """
        return self._partitions(self._table(table), days, troops)

    def _partitions(
        self, spec: Table, days: Days | None, troops: Iterable[str] | str | None
    ) -> list[Partition]:
        if not spec.partitioned_by:
            if days is not None or troops is not None:
                message = f"{spec.name} is not partitioned; leave days and troops out and filter its rows"
                raise ConfigurationError(message)
            return [Partition(date.min, None, layout.table_key(spec.name))]
        wanted = self._days(spec, days)
        if "troop" not in spec.partitioned_by:
            if troops is not None:
                message = f"{spec.name} is partitioned by day only; leave troops out and filter its rows"
                raise ConfigurationError(message)
            return self._present([Partition(day, None, layout.table_key(spec.name, day)) for day in wanted])
        if troops is None:
            return self._listed(spec, wanted)
        return self._of_troops(spec, wanted, troops)[1]

    def missing(
        self, table: str, days: Days | None = None, troops: Iterable[str] | str | None = None
    ) -> list[tuple[date, str | None]]:
        """The (day, troop) of which there is no partition, although it was asked for.

        For tables of troops that are not limited to some troops, the day's roster says who should be there; a
        day without a roster and without any partition is missing as a whole: (day, None). Raises as ``partitions``.
        """
        spec = self._table(table)
        wanted = self._days(spec, days)
        if "troop" not in spec.partitioned_by:
            present = {partition.day for partition in self.partitions(spec.name, days, troops)}
            return [(day, None) for day in wanted if day not in present]
        if troops is not None:
            keys, found = self._of_troops(spec, wanted, troops)
            there = {(partition.day, partition.troop) for partition in found}
            return [(day, key) for day in wanted for key in keys if (day, key) not in there]
        found = self._listed(spec, wanted)
        there = {(partition.day, partition.troop) for partition in found}
        gaps: list[tuple[date, str | None]] = []
        for day, roster in zip(wanted, map_concurrently(self.roster, wanted), strict=True):
            if not roster.troops and not any(partition.day == day for partition in found):
                gaps.append((day, None))
            keys = sorted(troop.key for troop in roster.troops)
            gaps.extend((day, key) for key in keys if (day, key) not in there)
        return gaps

    def roster(self, day: date) -> Roster:
        """The day's troops; empty where there is no roster."""
        try:
            return Roster.read(self.store, day)
        except ObjectNotFoundError:
            return Roster(day)

    def states(self, table: str, day: date) -> dict[str, str]:
        """What became of each troop of a day: ``complete``, ``partial``, ``empty`` or ``missing``, by partition key."""
        spec = self._table(table)
        found = {partition.troop or "": partition for partition in self._listed(spec, [day])}

        def state(key: str) -> str:
            try:
                metadata, rows = read_metadata(self.store, found[key].key)
            except ObjectNotFoundError:
                return "missing"
            return state_of_table(metadata, rows)

        known = dict(zip(found, map_concurrently(state, list(found)), strict=True))
        keys = sorted({*(troop.key for troop in self.roster(day).troops), *found})
        return {key: known.get(key, "missing") for key in keys}

    @overload
    def read(
        self,
        table: str,
        days: Days | None = ...,
        troops: Iterable[str] | str | None = ...,
        columns: Sequence[str] | None = ...,
        as_: Literal["pandas"] = ...,
        *,
        categories: bool = ...,
    ) -> pd.DataFrame: ...

    @overload
    def read(
        self,
        table: str,
        days: Days | None = ...,
        troops: Iterable[str] | str | None = ...,
        columns: Sequence[str] | None = ...,
        *,
        as_: Literal["arrow"],
        categories: bool = ...,
    ) -> pa.Table: ...

    @overload
    def read(
        self,
        table: str,
        days: Days | None = ...,
        troops: Iterable[str] | str | None = ...,
        columns: Sequence[str] | None = ...,
        *,
        as_: Literal["duckdb"],
        categories: bool = ...,
    ) -> duckdb.DuckDBPyRelation: ...

    def read(
        self,
        table: str,
        days: Days | None = None,
        troops: Iterable[str] | str | None = None,
        columns: Sequence[str] | None = None,
        as_: Kind = "pandas",
        *,
        categories: bool = True,
    ) -> pd.DataFrame | pa.Table | duckdb.DuckDBPyRelation:
        """Read a table's rows of some days and troops.

        Only files of these days and troops are opened, and only the wanted columns are read. Partitions that are
        not there give no rows and one line in the log; ``missing`` names them. The columns are the same even
        where there are no rows at all.

        A table of your own is what the IO manager, or anybody else, wrote to the same place, ``processed/<name>/``. Its
        columns are those of its newest partition; one that an older partition lacks is null there.

        Args:
            table: ``troops``, ``warriors``, ``data_groups``, ``performance_data``, ``daily_performance``, or a
                table of your own.
            days: One day, a tuple (first, last), both included, or several days; all days if not given. Days are
                dates or texts like ``2026-11-20``.
            troops: Ids, partition keys or names of troops, or shell patterns over these, like ``checkout-*``; all
                if not given. What may be several goes by this order; a name that several troops have is refused.
            columns: The table's columns, ``day`` (date) and ``troop`` (partition key; not in tables of days);
                all if not given.
            as_: ``pandas``, ``arrow``, or ``duckdb``: a relation that reads when it is asked, for data that is
                larger than memory.
            categories: Whether ids and names that repeat in our tables are categoricals in pandas, dictionaries in
                Arrow: a fifth of the memory of texts.

        Raises:
            ConfigurationError: An unknown table, troop, column or kind, a day that is none, or a store without tables.
            StorageError: Partitions of a table of your own do not fit together.
        """
        spec = self._table(table)
        names = _columns(spec, columns)
        if as_ not in ("pandas", "arrow", "duckdb"):
            raise ConfigurationError(f"as_={as_!r} is unknown; choose pandas, arrow or duckdb")
        found = self._partitions(spec, days, troops)
        if not found:
            self._must_have_tables()
        if days is not None:
            self._say_missing(spec, self._days(spec, days), found)
        if as_ == "duckdb":
            connection = duckdb_connection(self.store)
            connection.execute("SET TimeZone = 'UTC'")
            return self._relation(connection, spec, names, found)
        result = self._arrow(spec, names, found, categories=categories)
        if as_ == "arrow":
            return result
        frame = result.to_pandas()
        for name in (field.name for field in result.schema if categories and _repeats(spec, field)):
            # pandas sorts and groups by the order of categories, which is that of their first rows otherwise.
            frame[name] = frame[name].cat.reorder_categories(sorted(frame[name].cat.categories))
        return frame

    def _table(self, name: str) -> Table:
        """One of ours, or a table of the user's own as its newest partition is.

        Raises:
            ConfigurationError: There is none of this name.
        """
        if name in TABLES:
            return TABLES[name]
        if layout.is_table(name):
            for day in reversed(self._days_of(name)):
                for info in self.store.list(layout.table_prefix(name, day)):
                    troop = _troop_of(info.key)
                    if info.key != layout.table_key(name, day, troop):
                        continue
                    schema = _widened(read_schema(self.store, info.key))
                    return Table(name, "", ("day",) if troop is None else ("day", "troop"), (), schema)
            if self.store.head(layout.table_key(name)):
                return Table(name, "", (), (), read_schema(self.store, layout.table_key(name)))
        self._must_have_tables()
        message = (
            f"table {name!r} is unknown; choose one of {', '.join(TABLES)}, "
            f"or a table of your own that has a partition in {self.store.url}"
        )
        raise ConfigurationError(message)

    def _days_of(self, name: str) -> list[date]:
        days = map(layout.day_of_folder, self.store.folders(layout.table_prefix(name)))
        return sorted(day for day in days if day is not None)

    def _days(self, spec: Table, days: Days | None) -> list[date]:
        if days is None:
            return self._days_of(spec.name)
        if isinstance(days, tuple):
            pair: tuple[Day, ...] = days
            if len(pair) != 2:
                message = f"days={days!r} is not a pair (first, last); give a list for single days"
                raise ConfigurationError(message)
            return days_between(_day(days[0]), _day(days[1]))
        if isinstance(days, (str, date)):
            return [_day(days)]
        return sorted({_day(day) for day in days})

    def _listed(self, spec: Table, days: Sequence[date]) -> list[Partition]:
        def of_day(day: date) -> list[Partition]:
            infos = self.store.list(layout.table_prefix(spec.name, day))
            troops = ((info.key, _troop_of(info.key)) for info in infos)
            return [Partition(day, troop, key) for key, troop in troops if troop is not None]

        return sorted(partition for found in map_concurrently(of_day, days) for partition in found)

    def _of_troops(
        self, spec: Table, days: Sequence[date], troops: Iterable[str] | str
    ) -> tuple[list[str], list[Partition]]:
        """The partition keys of the troops that are meant, and their partitions on these days."""
        texts = [troops] if isinstance(troops, str) else list(troops)
        candidates = {text: _keys(text) for text in texts}
        found = self._with_keys(spec, days, {key for keys in candidates.values() for key in keys})
        there = {partition.troop for partition in found}
        chosen: dict[str, Collection[str]] = {
            text: [next(key for key in keys if key in there)]
            for text, keys in candidates.items()
            if not there.isdisjoint(keys)
        }
        if unknown := [text for text in candidates if text not in chosen]:
            chosen |= self._looked_up(spec, unknown, days)
            found = self._with_keys(spec, days, {key for keys in chosen.values() for key in keys})
        wanted = list(dict.fromkeys(key for text in texts for key in sorted(chosen[text])))
        return wanted, [partition for partition in found if partition.troop in wanted]

    def _looked_up(
        self, spec: Table, texts: Sequence[str], days: Sequence[date]
    ) -> dict[str, Collection[str]]:
        """The partition keys of troops that have no partition on these days by what they are called."""
        ids = TroopKeys(self.store).known()
        others = [day for day in self._days_of(spec.name) if day not in set(days)]
        chosen: dict[str, Collection[str]] = {}
        for text in texts:
            if text in ids:
                chosen[text] = [ids[text]]
            elif text in ids.values():
                chosen[text] = [text]
            else:
                chosen[text] = keys_named(text, self._troops_on(days)) or keys_named(
                    text, self._troops_on(others)
                )
        candidates = {text: [*keys, *_keys(text)] for text, keys in chosen.items()}
        there: set[str | None] = set()
        for some in (days, others):
            if any(there.isdisjoint(keys) for keys in candidates.values()):
                every = {key for keys in candidates.values() for key in keys}
                there |= {partition.troop for partition in self._with_keys(spec, some, every)}
        for text, keys in chosen.items():
            # A table of somebody's own may have troops that are on no roster.
            chosen[text] = keys or [key for key in _keys(text) if key in there][:1]
            if there.isdisjoint(chosen[text]):
                self._must_have_tables()
                message = (
                    f"troop {text!r} has no {spec.name} in {self.store.url} on any day; give ids, partition keys or "
                    "names as they are in the table troops, or patterns like checkout-*"
                )
                raise ConfigurationError(message)
        return chosen

    def _troops_on(self, days: Sequence[date]) -> set[Troop]:
        return {troop for roster in map_concurrently(self.roster, days) for troop in roster.troops}

    def _must_have_tables(self) -> None:
        """Tell a store that is not there from one that has nothing of what is asked for.

        Raises:
            ConfigurationError: There is none.
        """
        if not self.store.folders(layout.TABLES_PREFIX):
            raise ConfigurationError(
                f"there are no tables in {self.store.url}; harvest a day first, or give the store of a deployment: "
                "a folder, or s3://bucket/prefix, with processed/ in it"
            )

    def _with_keys(self, spec: Table, days: Sequence[date], keys: set[str]) -> list[Partition]:
        if len(keys) > _FEW_TROOPS:
            return [partition for partition in self._listed(spec, days) if partition.troop in keys]
        return self._present(
            [
                Partition(day, key, layout.table_key(spec.name, day, key))
                for day in days
                for key in sorted(keys)
            ]
        )

    def _present(self, partitions: Sequence[Partition]) -> list[Partition]:
        heads = map_concurrently(lambda partition: self.store.head(partition.key), partitions)
        return [partition for partition, head in zip(partitions, heads, strict=True) if head is not None]

    def _say_missing(self, spec: Table, days: Sequence[date], found: Sequence[Partition]) -> None:
        present = {partition.day for partition in found}
        gaps = [day.isoformat() for day in days if day not in present]
        if gaps:
            shown = ", ".join(gaps[:5]) + (f" and {len(gaps) - 5} more" if len(gaps) > 5 else "")
            logger.warning("%s has no rows for %s in %s", spec.name, shown, self.store.url)

    def _arrow(
        self, spec: Table, names: Sequence[str], partitions: Sequence[Partition], *, categories: bool
    ) -> pa.Table:
        schema = pa.schema([_schema(spec).field(name) for name in names])
        if categories:
            schema = pa.schema([_as_category(field) if _repeats(spec, field) else field for field in schema])
        stored = [name for name in names if name in spec.schema.names]

        def load(partition: Partition) -> pa.Table:
            if spec.name in TABLES:
                rows = read_table(self.store, partition.key, columns=stored or [spec.key[0]])
            else:
                rows = read_table(self.store, partition.key)
            columns = {
                name: rows[name] if name in rows.column_names else pa.nulls(rows.num_rows) for name in stored
            }
            columns["day"] = repeated(partition.day, DAY_FIELD.type, rows.num_rows)
            columns["troop"] = repeated(partition.troop or "", TROOP_FIELD.type, rows.num_rows)
            try:
                arrays = [columns[name].cast(schema.field(name).type) for name in names]
            except pa.ArrowInvalid as error:
                message = f"{partition.key} does not fit the newest partition of {spec.name}: {error}"
                raise StorageError(f"{message}; materialize it again") from error
            return pa.Table.from_arrays(arrays, schema=schema)

        return pa.concat_tables([schema.empty_table(), *map_concurrently(load, partitions)])

    def query(
        self,
        sql: str,
        *,
        table: str,
        days: Days | None = None,
        troops: Iterable[str] | str | None = None,
        frames: Mapping[str, pd.DataFrame | pa.Table] | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> pd.DataFrame:
        """Ask a question in DuckDB's SQL about a table that may be larger than memory.

        Args:
            sql: One SELECT; the table has its own name and the columns of ``read``.
            frames: Small tables to join with, by the name that they have in the SQL.
            parameters: Values of ``$name`` in the SQL.

        Raises:
            ConfigurationError: As ``read``.
            StorageError: A file cannot be read, or the SQL is wrong.
        """
        import duckdb  # noqa: PLC0415 (0.1 s that readers of paths need not pay)

        spec = self._table(table)
        found = self._partitions(spec, days, troops)
        with aggregating(self.store) as connection:
            for name, frame in (frames or {}).items():
                connection.register(name, frame)
            try:
                self._relation(connection, spec, _schema(spec).names, found).create_view(spec.name)
                answer: pd.DataFrame = (
                    connection.sql(sql, params=dict(parameters or {})).to_arrow_table().to_pandas()
                )
            except duckdb.Error as error:
                message = f"a query of {spec.name} failed: {duckdb_reason(error)}"
                raise StorageError(message) from error
            return answer

    def _relation(
        self,
        connection: duckdb.DuckDBPyConnection,
        spec: Table,
        names: Sequence[str],
        partitions: Sequence[Partition],
    ) -> duckdb.DuckDBPyRelation:
        empty = pa.schema([_schema(spec).field(name) for name in names]).empty_table()
        if not partitions:
            return connection.from_arrow(empty)
        wanted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
        source = scan(spec, [self.store.uri(partition.key) for partition in partitions])
        if _differs(spec):
            connection.register("every_column", empty)
            source = f"(FROM every_column UNION ALL BY NAME FROM {source})"
        return connection.sql(f"SELECT {wanted} FROM {source}")


def read(
    table: str,
    days: Days | None = None,
    troops: Iterable[str] | str | None = None,
    columns: Sequence[str] | None = None,
    as_: Kind = "pandas",
    *,
    categories: bool = True,
    store: ObjectStore | str,
) -> Any:
    """Read a table's rows of some days and troops from a store; see ``Warehouse.read``, which is typed by kind.

    Args:
        store: A folder, ``s3://bucket/prefix``, or an open store.
    """
    # Three kinds, one call: the overloads cannot say it.
    warehouse: Any = Warehouse.connect(store) if isinstance(store, str) else Warehouse(store)
    return warehouse.read(table, days, troops, columns, as_=as_, categories=categories)


@contextmanager
def aggregating(store: ObjectStore) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that spills to disk what does not fit its memory; its times are UTC."""
    with temporary_folder() as folder, duckdb_connection(store) as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
        connection.execute("SET temp_directory = ?", [str(folder)])
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def _schema(spec: Table) -> pa.Schema:
    fields = {"day": DAY_FIELD, "troop": TROOP_FIELD}
    return pa.schema([*spec.schema, *(fields[name] for name in spec.partitioned_by)])


def _columns(spec: Table, columns: Sequence[str] | None) -> list[str]:
    known: list[str] = _schema(spec).names
    if columns is None:
        return known
    wanted = [columns] if isinstance(columns, str) else list(columns)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        said = f"columns {', '.join(map(repr, unknown))} are unknown" if unknown else "no column is asked for"
        message = f"{spec.name}: {said}; choose from {', '.join(known)}"
        raise ConfigurationError(message)
    return list(dict.fromkeys(wanted))


def _differs(spec: Table) -> bool:
    """Whether a table's files may differ in their columns."""
    return spec.name not in TABLES or bool(spec.added)


def _widened(schema: pa.Schema) -> pa.Schema:
    """A schema whose dictionaries have room for the texts of every partition: pandas writes the smallest that do."""
    for at, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            wide = pa.dictionary(pa.int32(), field.type.value_type, field.type.ordered)
            schema = schema.set(at, field.with_type(wide))
    return schema


def _repeats(spec: Table, field: pa.Field) -> bool:
    return field.name == TROOP_FIELD.name or (spec.name in TABLES and field.name in _REPEATED)


def _as_category(field: pa.Field) -> pa.Field:
    return field.with_type(pa.dictionary(pa.int32(), pa.string()))


def _day(day: Day) -> date:
    if isinstance(day, datetime):
        return day.date()
    return day if isinstance(day, date) else parse_day(str(day))


def _troop_of(key: str) -> str | None:
    """The troop of a partition's object; None for foreign objects, which lie there for reasons of their own."""
    try:
        return layout.parse_table_key(key)[2]
    except StorageError:
        return None


def _keys(text: str) -> tuple[str, ...]:
    """The partition keys that a text may stand for without the store: the key of a troop's id, or itself."""
    keys = [layout.encode_segment(text), *([text] if layout.is_segment(text) else [])]
    return tuple(dict.fromkeys(keys))


def repeated(value: object, kind: pa.DataType, rows: int) -> pa.Array:
    """A column of one value."""
    return pa.repeat(pa.scalar(value, kind), rows)


def scan(spec: Table, uris: Sequence[str]) -> str:
    """SQL that reads files, with partition columns from their paths; without parameters, so that it can be a view."""
    files = ", ".join("'" + uri.replace("'", "''") + "'" for uri in uris)
    kinds = {"day": "DATE", "troop": "VARCHAR"}
    typed = ", ".join(f"'{name}': {kinds[name]}" for name in spec.partitioned_by)
    options = f", hive_partitioning = true, hive_types = {{{typed}}}" if typed else ""
    if _differs(spec):
        options += ", union_by_name = true"
    return f"read_parquet([{files}]{options})"
