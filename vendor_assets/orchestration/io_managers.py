"""The IO manager: assets as Parquet in the store, one file per partition."""

from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa

from vendor_assets.errors import ObjectNotFoundError
from vendor_assets.orchestration.metadata import PATH, ROW_COUNT
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import split_key
from vendor_assets.orchestration.resources import StoreResource
from vendor_assets.storage import layout
from vendor_assets.storage.parquet import read_table, write_table
from vendor_assets.tables import TABLES, Table


class ParquetIOManager(dg.ConfigurableIOManager):
    """Stores pandas or Arrow tables as Parquet, in a folder or on S3.

    Several partitions are loaded as one table, ordered by key, with the columns ``day`` and ``troop`` (the partition
    key) added from the path; columns that only some partitions have are null in the others. Annotate the parameter
    with ``pyarrow.Table`` to get Arrow; otherwise it is a pandas ``DataFrame``. A named index is stored as a column.

    ``day`` and ``troop`` may be in the returned table, but are not stored in the file.
    """

    store: StoreResource
    key_prefix: list[str] = []

    def _name(self, key: dg.AssetKey) -> str:
        """The asset's name in the store, without the prefix of the account."""
        return Names(key_prefix=tuple(self.key_prefix)).asset(key) or key.to_user_string()

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write one partition atomically.

        Raises:
            dagster.Failure: It is not a table, or its column ``day`` or ``troop`` contradicts the partition.
        """
        if obj is None:
            return
        name = self._name(context.asset_key)
        table = _as_table(name, obj)
        store = self.store.open()
        keys = context.asset_partition_keys if context.has_asset_partitions else [""]
        if len(keys) != 1:
            message = f"{name}: one output for {len(keys)} partitions; give it one partition per run"
            raise dg.DagsterInvariantViolationError(message)
        key = _key(name, keys[0])
        if keys[0]:
            table = _without_partition(name, table, keys[0])
        spec = TABLES.get(name) or Table(name, "", (), (), table.schema)
        write_table(store, key, table, spec)
        context.add_output_metadata({ROW_COUNT: table.num_rows, PATH: dg.MetadataValue.path(store.uri(key))})

    def load_input(self, context: dg.InputContext) -> Any:
        """Load the partitions that an asset depends on.

        Raises:
            dagster.Failure: Partitions are missing or do not fit together.
        """
        name = self._name(context.asset_key)
        store = self.store.open()
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else [""]
        tables, missing = [], []
        for partition in keys:
            try:
                table = read_table(store, _key(name, partition))
            except ObjectNotFoundError:
                missing.append(partition)
                continue
            tables.append(_with_partition(name, table, partition) if partition else table)
        if missing:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise dg.Failure(
                f"{name}: {len(missing)} of {len(keys)} partitions are not there: {shown}; materialize them first",
                allow_retries=False,
            )
        try:
            loaded = (
                pa.concat_tables(_mergeable(tables), promote_options="permissive") if tables else pa.table({})
            )
        except pa.ArrowTypeError as error:
            raise dg.Failure(
                f"{name}: its {len(keys)} partitions do not fit together: {error}; materialize the older ones again",
                allow_retries=False,
            ) from error
        return loaded if context.dagster_type.typing_type is pa.Table else loaded.to_pandas()


def _mergeable(tables: list[pa.Table]) -> list[pa.Table]:
    """Tables in which a column is categorical in all or in none: what was text may be written as categories later."""
    fields = [field for table in tables for field in table.schema]
    plain = {field.name for field in fields if not pa.types.is_dictionary(field.type)}
    return [
        table.cast(
            pa.schema(
                field.with_type(field.type.value_type)
                if field.name in plain and pa.types.is_dictionary(field.type)
                else field
                for field in table.schema
            )
        )
        for table in tables
    ]


def _as_table(name: str, obj: Any) -> pa.Table:
    if isinstance(obj, pa.Table):
        return obj
    index: Any = getattr(obj, "index", None)
    if not hasattr(obj, "columns") or not hasattr(index, "names"):
        raise dg.Failure(
            f"{name} returned a {type(obj).__name__}; return a pandas DataFrame or a pyarrow Table",
            allow_retries=False,
        )
    named = any(level is not None for level in index.names)
    return pa.Table.from_pandas(obj.reset_index() if named else obj, preserve_index=False)


def _parts(name: str, partition: str) -> tuple[date, str | None]:
    try:
        return split_key(partition)
    except ValueError as error:
        raise dg.Failure(
            f"{name}: partition {partition!r} is neither a day nor a day and a troop; "
            "give the asset another IO manager or one of these partitions",
            allow_retries=False,
        ) from error


def _key(name: str, partition: str) -> str:
    return layout.table_key(name, *_parts(name, partition)) if partition else layout.table_key(name)


def _in_path(name: str, partition: str) -> dict[str, pa.Scalar]:
    """The columns encoded in a partition's path."""
    day, troop = _parts(name, partition)
    columns = {"day": pa.scalar(day, pa.date32())}
    return columns if troop is None else columns | {"troop": pa.scalar(troop, pa.string())}


def _with_partition(name: str, table: pa.Table, partition: str) -> pa.Table:
    for column, value in _in_path(name, partition).items():
        if column in table.column_names:
            table = table.drop_columns(column)
        table = table.append_column(column, pa.repeat(value, table.num_rows))
    return table


def _without_partition(name: str, table: pa.Table, partition: str) -> pa.Table:
    for column, value in _in_path(name, partition).items():
        if column not in table.column_names:
            continue
        found = table.column(column).unique()
        try:
            others = [item for item in found.cast(value.type) if item != value]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            others = list(found)
        if others:
            raise dg.Failure(
                f"{name} {partition}: column {column} holds {others[0]}, but in this partition it is {value}; "
                "rename the column",
                allow_retries=False,
            )
        table = table.drop_columns(column)
    return table
