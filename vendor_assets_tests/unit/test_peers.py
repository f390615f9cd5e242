"""The judge and the tables of the benchmark that compares us with other tools; no contestant runs here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks import peers
from benchmarks.peers import CASES, Figures, Rows
from vendor_assets.simulator.world import World

CASE = {case.name: case for case in CASES}
FIGURES = Figures(wall=2.0, cpu=0.5, mb=100.0, calls=100, throttled=0, outages=0, rows=Rows())


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("truth") / "truth.parquet"
    world = World.preset("small", troops=1, warriors=1, data_groups=2, churn=False)
    assert peers.write_truth(world, 3600, path) == pq.read_metadata(path).num_rows
    return path


def _checked(table: pa.Table, truth: Path, folder: Path) -> Rows:
    pq.write_table(table, folder / "found.parquet")
    return peers.check([folder / "found.parquet"], truth)


def test_rows_that_are_the_truth_are_right(truth: Path, tmp_path: Path) -> None:
    """Order, files and types of columns do not matter: ids may be numbers, times texts, values decimals."""
    table = pq.read_table(truth).sort_by([("value", "ascending")])
    for name, kind in (("troop_id", pa.int64()), ("value", pa.decimal128(20, 6))):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    for name in ("timeslice_start", "timeslice_end"):
        texts = pc.strftime(table[name], format="%Y-%m-%dT%H:%M:%S+00:00")
        table = table.set_column(table.schema.get_field_index(name), name, texts)
    pq.write_table(table.slice(0, 7), tmp_path / "1.parquet")
    pq.write_table(
        table.slice(7).append_column("load_id", [["x"] * (table.num_rows - 7)]), tmp_path / "2.parquet"
    )
    assert peers.check(sorted(tmp_path.iterdir()), truth).right


def test_missing_rows_are_found(truth: Path, tmp_path: Path) -> None:
    """A row that is not there is missing, and all are where there is no file."""
    table = pq.read_table(truth)
    assert _checked(table.slice(3), truth, tmp_path) == Rows(missing=3)
    assert peers.check([], truth) == Rows(missing=table.num_rows)


def test_double_rows_are_found(truth: Path, tmp_path: Path) -> None:
    """Each row beyond the first of a key is double."""
    table = pq.read_table(truth)
    assert _checked(pa.concat_tables([table, table.slice(0, 2), table.slice(0, 1)]), truth, tmp_path) == Rows(
        double=3
    )


@pytest.mark.parametrize("value", [7.25, None])
def test_wrong_values_are_found(truth: Path, tmp_path: Path, value: float | None) -> None:
    """Another value, or none in place of one, is wrong, also beside a right copy of the row."""
    table = pq.read_table(truth)
    column = table.schema.get_field_index("value")
    wrong = table.slice(0, 1).set_column(column, "value", pa.array([value], pa.float64()))
    assert _checked(pa.concat_tables([wrong, table.slice(1)]), truth, tmp_path) == Rows(wrong=1)
    assert _checked(pa.concat_tables([wrong, table]), truth, tmp_path) == Rows(double=1, wrong=1)


def test_rows_that_the_vendor_never_had_are_wrong(truth: Path, tmp_path: Path) -> None:
    """A row of another warrior is wrong, and misses nothing."""
    table = pq.read_table(truth)
    alien = table.slice(0, 1).set_column(
        table.schema.get_field_index("warrior_id"), "warrior_id", pa.array(["9"])
    )
    assert _checked(pa.concat_tables([alien, table]), truth, tmp_path) == Rows(wrong=1)


def test_a_table_has_a_line_for_each_contestant() -> None:
    """Costs are by call and by row, and we are in bold."""
    lines = peers.render(
        CASE["a"], {peers.OURS: FIGURES, "dlt": replace(FIGURES, cpu=1.0)}, 100, 1000, {peers.OURS, "dlt"}
    )
    assert lines[2] == "| **vendor_assets** | 2.0 | 100 | 5.00 | 500.0 | 100 | 0 | 0 | 0 | yes |"
    assert lines[3] == "| dlt | 2.0 | 100 | 10.00 | 1000.0 | 100 | 0 | 0 | 0 | yes |"
    assert {line.count("|") for line in lines if line} == {lines[0].count("|")}


def test_a_contestant_that_did_not_run_is_shown_with_the_reason() -> None:
    """Neither one that cannot be installed nor one that failed is left out."""
    failed = replace(FIGURES, rows=Rows(missing=1000), failed="exit 1: boom")
    lines = peers.render(CASE["a"], {"dlt": "no such version", "asyncio": failed}, 100, 1000, frozenset())
    assert "- dlt did not run: no such version" in lines
    assert "- asyncio: exit 1: boom" in lines
    assert lines[3].startswith("| asyncio | 2.0 with start-up |")
    assert lines[3].endswith("| 1,000 | 0 | 0 | no |")
    assert {line.count("|") for line in lines if line.startswith("|")} == {lines[0].count("|")}


def test_a_limit_and_faults_have_columns_of_their_own() -> None:
    """What the vendor refused, its outages and the limit's use; what its faults cost."""
    paced = replace(FIGURES, throttled=3, outages=1, used=0.955, span=1.5)
    lines = peers.render(CASE["b"], {"dlt": paced}, 100, 1000, frozenset({"dlt"}))
    assert lines[2].startswith("| dlt | 2.0 | 1.5 | 100 | 3 | 1 | 96% |")
    faulty = peers.render(CASE["d"], {"dlt": replace(FIGURES, extra=1.25)}, 100, 1000, frozenset({"dlt"}))
    assert faulty[2].startswith("| dlt | 2.0 | +1.2 | 100 |")


def test_more_calls_than_needed_make_nobody_cheaper() -> None:
    """Costs are by what the job takes; who did only a part of it has none."""
    wasteful = replace(FIGURES, calls=400)
    lossy = replace(wasteful, rows=Rows(missing=1))
    lines = peers.render(CASE["e"], {"dlt": wasteful, "asyncio": lossy}, 100, 1000, {"dlt", "asyncio"})
    assert "| 400 | 0 | 0 | 0% | 5.00 | 500.0 |" in lines[2]
    assert "| 400 | 0 | 0 | 0% | – | – |" in lines[3]


def test_the_calls_of_a_case_are_counted() -> None:
    """One list of troops, a page of warriors for each 200 of a troop, and two calls for each warrior."""
    small = replace(CASE["a"], vendor={"troops": 1, "warriors": 201, "data_groups": 1})
    assert peers.needed(small, 7) == {"calls": 1 + 2 + 2 * 201, "answers": 201, "rows": 7}


def test_who_is_ahead_of_us_is_said() -> None:
    """Plainly, for each measure; who lost rows is ahead in nothing."""
    quick = replace(FIGURES, wall=1.0, mb=99.0)
    lossy = replace(quick, rows=Rows(missing=1))
    found = peers.ahead({peers.OURS: FIGURES, "dlt": quick, "asyncio": quick, "multiprocessing": lossy})
    assert found == ["Ahead of us in wall: dlt; asyncio.", "Ahead of us in memory: dlt; asyncio."]
    assert peers.ahead({peers.OURS: FIGURES, "dlt": replace(FIGURES, failed="exit 1")}) == [
        "Nobody who got every row is ahead of us in anything."
    ]


def test_the_median_counts_and_a_wrong_row_of_any_run() -> None:
    """Times are medians; a run that lost a row or ended badly is not hidden by two that did not."""
    runs = [replace(FIGURES, wall=wall) for wall in (1.0, 9.0, 2.0)]
    runs[1] = replace(runs[1], rows=Rows(missing=1), failed="exit 1: boom", throttled=4)
    found = peers.median(runs)
    assert (found.wall, found.rows.missing, found.failed, found.throttled) == (2.0, 1, "exit 1: boom", 4)


def test_what_processes_took_has_their_children_in_it(tmp_path: Path) -> None:
    """CPU and memory of a child count, and a failure's last word is kept."""
    child = "x = bytearray(150_000_000)\nfor i in range(10_000_000): pass\nraise SystemExit('an error of the child')"
    code = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)"
    spent = peers.run(
        [([sys.executable, "-c", code], tmp_path, {}), ([sys.executable, "-c", "1"], tmp_path, {})]
    )
    assert spent.codes == (1, 0)
    assert spent.mb > 140
    assert spent.cpu > 0.1
    assert "an error of the child" in peers._reason(spent)


def test_the_page_takes_new_figures_and_keeps_its_text() -> None:
    """What stands between the marks is replaced, nothing else."""
    begin, end = peers.MARKS
    page = f"# Title\n\ntext\n\n{begin}old\n{end}\nmore\n"
    assert peers.put_into_page(page, "new\n") == f"# Title\n\ntext\n\n{begin}\nnew\n\n{end}\nmore\n"


def test_the_page_shows_the_figures_that_were_measured() -> None:
    """docs/benchmarks.md holds what benchmarks/results/peers.md says, word for word."""
    measured = peers.RESULTS.read_text().partition("\n")[2].replace("\n## ", "\n### ").strip()
    page = peers.PAGE.read_text()
    assert page == peers.put_into_page(page, measured)


def test_every_script_is_there_and_its_versions_are_pinned() -> None:
    """Figures name what they are figures of."""
    for contestant in peers.CONTESTANTS:
        assert all("==" in each for each in contestant.requirements)
        assert not contestant.script or (peers.SCRIPTS / contestant.script).exists()
