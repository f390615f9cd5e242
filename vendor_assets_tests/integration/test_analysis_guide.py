"""Each example of docs/analysis.md reads the same rows, from a folder and from S3, and its columns are the files'."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from sqlglot import exp

import vendor_assets
from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.errors import VendorAssetsError
from vendor_assets.storage.objects import ObjectStore, open_store
from vendor_assets.tables import TABLES, Table
from vendor_assets_tests.support.analysis import rows_of, slices, write_performance, write_roster
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.stores import Place

GUIDE: Final = Path(__file__).parents[2] / "docs" / "analysis.md"
SNIPPETS: Final = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
STATEMENTS: Final = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
LAKE: Final = "s3://lake/newrelic_prod"
DAYS: Final = [date(2026, 11, 19), date(2026, 11, 20)]
TROOPS: Final = ["200000000", "200010000"]
"""Their keys are these ids, as in a store of an older release: what guesses takes them for numbers."""
COLUMNS: Final = {*TABLES["performance_data"].schema.names, "day", "troop"}
ROWS: Final = sorted((day, troop, value) for day in DAYS for troop in TROOPS for value in (1.0, 2.0))


def write_days(store: ObjectStore) -> None:
    """The days of the guide, and one before."""
    for day in [DAYS[0] - timedelta(days=1), *DAYS]:
        write_roster(store, day, [(troop_id, f"checkout-{troop_id}") for troop_id in TROOPS])
        for troop_id in TROOPS:
            window = day_window(day, parse_time_zone("UTC"))
            write_performance(
                store, day, troop_id, rows_of(slices([1.0, 2.0], window=window, troop_id=troop_id))
            )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the store ``data``."""
    root = tmp_path_factory.mktemp("project")
    (root / "dagster.yaml").touch()
    (root / "vendor_assets.env").write_text("VENDOR_ASSETS_STORE=./data\n")
    write_days(open_store(str(root / "data")))
    return root


@pytest.fixture(scope="module")
def lake(s3_server: RunningS3) -> dict[str, str]:
    """The store of the guide on S3; what the environment needs to read it."""
    s3_server.client().create_bucket(Bucket="lake")
    write_days(Place(LAKE, s3_server.endpoint).open())
    return s3_server.environment | {"AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}


def as_pandas(found: Any) -> pd.DataFrame:
    """Whatever an example made, as pandas has it."""
    if isinstance(found, pd.DataFrame):
        return found
    table = found.to_arrow_table() if hasattr(found, "to_arrow_table") else found.to_arrow()
    frame: pd.DataFrame = table.to_pandas()
    return frame


def rows_in(frame: pd.DataFrame) -> list[tuple[date, str, float]]:
    """Day, troop and value of each row."""
    return sorted(frame[["day", "troop", "value"]].itertuples(index=False, name=None))


APART: Final = ("polars", "pyspark")
"""Run in processes of their own: Polars' threads have crashed pytest's minutes later."""


@pytest.mark.parametrize("code", [code for code in SNIPPETS if not any(name in code for name in APART)])
def test_every_example_reads_the_same_rows(
    folder: Path, code: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """As it stands: the days that it names, dates as dates, and keys that look like numbers as texts."""
    monkeypatch.chdir(folder)
    if LAKE in code:
        for name, text in request.getfixturevalue("lake").items():
            monkeypatch.setenv(name, text)
    names: dict[str, Any] = {}
    exec(compile(code, str(GUIDE), "exec"), names)  # noqa: S102  our own guide
    frame = as_pandas(names["frame"])
    assert set(frame.columns) == COLUMNS
    assert rows_in(frame) == ROWS


def test_a_projects_store_on_s3_is_read_with_its_credentials(
    lake: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the project's file says of S3 holds, without being in the environment; other places are told in one line."""
    settings = lake | {"VENDOR_ASSETS_STORE": LAKE}
    (tmp_path / "dagster.yaml").touch()
    (tmp_path / "vendor_assets.env").write_text(
        "\n".join(f"{name}={text}" for name, text in settings.items())
    )
    monkeypatch.chdir(tmp_path)
    assert rows_in(vendor_assets.read("performance_data", (DAYS[0], DAYS[1]))) == ROWS
    told = {
        "s3://lake/nix": "no tables in s3://lake/nix",
        "s3://no-lake/nix": "bucket no-lake does not exist",
    }
    for place, said in told.items():
        with pytest.raises(VendorAssetsError, match=said) as error:
            vendor_assets.read("performance_data", store=place)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("code", [code for code in SNIPPETS if "polars" in code])
def test_polars_examples_read_the_same_rows(
    folder: Path, code: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """As it stands, from the folder and from S3."""
    if LAKE in code:
        for name, text in request.getfixturevalue("lake").items():
            monkeypatch.setenv(name, text)
    code += "\nframe.write_parquet('polars.parquet')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    frame = pq.read_table(folder / "polars.parquet").to_pandas()
    assert set(frame.columns) == COLUMNS
    assert rows_in(frame) == ROWS


def test_sparks_example_reads_the_same_rows(folder: Path) -> None:
    """In a process of its own, where Spark and Java are there; they are too large to be installed for the tests."""
    if find_spec("pyspark") is None or shutil.which("java") is None:
        pytest.skip("no Spark here; pip install pyspark, and install Java")
    (code,) = (code for code in SNIPPETS if "pyspark" in code)
    code += "\nprint(sorted((row.day.isoformat(), row.troop, row.value) for row in frame.collect()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str([(day.isoformat(), *rest) for day, *rest in ROWS])


TYPES: Final = {
    pa.string(): ("text", "TEXT"),
    pa.bool_(): ("boolean", "BOOLEAN"),
    pa.int32(): ("int32", "INT"),
    pa.int64(): ("int64", "BIGINT"),
    pa.float64(): ("float64", "DOUBLE"),
    pa.timestamp("us", tz="UTC"): ("instant", "TIMESTAMP"),
    pa.list_(pa.string()): ("list of texts", "ARRAY<TEXT>"),
}
"""What the guide calls a type, and how sqlglot writes Athena's."""


@pytest.mark.parametrize("statement", STATEMENTS)
def test_athenas_tables_have_the_columns_of_the_files(statement: str) -> None:
    """Names and types are the schema's, days are projected, and the place is where the layout puts the table."""
    created = sqlglot.parse_one(statement, dialect="athena")
    assert isinstance(created, exp.Create)
    assert created.kind == "TABLE"
    name = created.this.this.name
    columns = {each.name: each.args["kind"].sql() for each in created.this.expressions}
    assert columns == {field.name: TYPES[field.type][1] for field in TABLES[name].schema}
    (partition,) = created.find(exp.PartitionedByProperty).this.expressions
    assert (partition.name, partition.args["kind"].sql()) == ("day", "TEXT")
    place = f"{LAKE}/processed/{name}/"
    assert created.find(exp.LocationProperty).this.name == place
    properties = [each for each in created.args["properties"].expressions if type(each) is exp.Property]
    said = {each.name: each.args["value"].name for each in properties}
    assert said["storage.location.template"] == f"{place}day=${{day}}/"
    assert (said["projection.enabled"], said["projection.day.type"]) == ("true", "date")


def described(table: Table) -> str:
    """A table as the guide describes it."""
    lines = [
        f"### {table.name}",
        "",
        table.grain.capitalize() + ".",
        "",
        "| column | type | |",
        "|---|---|---|",
    ]
    for field in table.schema:
        metadata = {name.decode(): text.decode() for name, text in field.metadata.items()}
        unit = f" ({metadata['unit']})" if "unit" in metadata else ""
        kind = TYPES[field.type][0] + (" or null" if field.nullable else "")
        lines.append(f"| `{field.name}` | {kind} | {metadata['description']}{unit} |")
    return "\n".join(lines)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_guide_describes_every_column(table: Table) -> None:
    """Name, type, meaning and unit are those of the schema; the message has what is to stand there."""
    assert described(table) in GUIDE.read_text(encoding="utf-8"), described(table)
