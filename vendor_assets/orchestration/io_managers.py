"""The IO manager: assets as Parquet in the store, one file per partition, read and written whole."""

from typing import Any

import dagster as dg
import pyarrow as pa

from vendor_assets.errors import ObjectNotFoundError
from vendor_assets.orchestration.partitions import split_key
from vendor_assets.orchestration.resources import StoreResource
from vendor_assets.storage import layout
from vendor_assets.storage.parquet import read_table, write_table
from vendor_assets.tables import TABLES, Table


class ParquetIOManager(dg.ConfigurableIOManager):
    """Keeps pandas or Arrow tables as Parquet, on a folder or on S3.

    An asset that loads several partitions gets their rows in one table, with the columns ``day`` and ``troop``
    (the partition key) added from the path. Annotate the parameter with ``pyarrow.Table`` to get Arrow;
    otherwise it is a pandas ``DataFrame``.
    """

    store: StoreResource

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Publish one partition; whoever reads meanwhile sees the old file or the new one."""
        if obj is None:
            return
        table = obj if isinstance(obj, pa.Table) else pa.Table.from_pandas(obj, preserve_index=False)
        name = context.asset_key.to_user_string()
        spec = TABLES.get(name) or Table(name, "", (), (), table.schema)
        store = self.store.open()
        keys = context.asset_partition_keys if context.has_asset_partitions else [""]
        if len(keys) != 1:
            message = f"{name}: one output for {len(keys)} partitions; give it one partition per run"
            raise dg.DagsterInvariantViolationError(message)
        key = _key(name, keys[0])
        write_table(store, key, table, spec)
        context.add_output_metadata(
            {"dagster/row_count": table.num_rows, "path": dg.MetadataValue.path(store.uri(key))}
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """Load the partitions that an asset depends on.

        Raises:
            dagster.Failure: One of them is missing; the message names the first few.
        """
        name = context.asset_key.to_user_string()
        store = self.store.open()
        keys = list(context.asset_partition_keys) if context.has_asset_partitions else [""]
        tables, missing = [], []
        for partition in keys:
            try:
                table = read_table(store, _key(name, partition))
            except ObjectNotFoundError:
                missing.append(partition)
                continue
            tables.append(_with_partition(table, partition) if partition else table)
        if missing:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise dg.Failure(
                f"{name}: {len(missing)} of {len(keys)} partitions are not there: {shown}; materialize them first",
                allow_retries=False,
            )
        loaded = pa.concat_tables(tables) if tables else pa.table({})
        return loaded if context.dagster_type.typing_type is pa.Table else loaded.to_pandas()


def _key(name: str, partition: str) -> str:
    if not partition:
        return layout.table_key(name)
    day, troop = split_key(partition)
    return layout.table_key(name, day, troop)


def _with_partition(table: pa.Table, partition: str) -> pa.Table:
    day, troop = split_key(partition)
    table = table.append_column("day", pa.repeat(pa.scalar(day, pa.date32()), table.num_rows))
    if troop is not None:
        table = table.append_column("troop", pa.repeat(pa.scalar(troop), table.num_rows))
    return table
