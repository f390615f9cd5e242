"""The repo keeps its own rules: layout, words, imports, pins, and nothing of anybody's machine."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance
from dagster._annotations import is_public
from dotenv import dotenv_values
from hypothesis import settings
from packaging.specifiers import SpecifierSet

import vendor_assets
from vendor_assets import errors
from vendor_assets.settings import NAMES, read

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vendor_assets"
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(PACKAGE)], "vendor_assets.")
    if not module.name.endswith("__main__")
)
TEXTS = {
    ".cfg",
    ".css",
    ".env",
    ".example",
    ".html",
    ".ipynb",
    ".md",
    ".py",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
    "",
}


def _tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: which files are tracked is not known")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize(
    "name",
    [
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "benchmarks",
        "constraints.txt",
        "dagster.yaml",
        "docs/glossary.md",
        "docs/why.md",
        "pyproject.toml",
        "setup.py",
        "vendor_assets",
        "vendor_assets.env.example",
        "vendor_assets/py.typed",
        "vendor_assets_tests",
        "workspace.yaml",
    ],
)
def test_what_a_stranger_looks_for_is_where_it_is_looked_for(name: str) -> None:
    """The top level has the files that a Dagster project is expected to have."""
    assert (ROOT / name).exists()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported_and_says_what_it_is(name: str) -> None:
    """Each module imports by itself, without a warning, and its first line says what it is."""
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip().splitlines()[0].endswith((".", ":", "…"))


@pytest.mark.parametrize("module", ["vendor_assets", "vendor_assets.errors"])
def test_importing_the_package_loads_nothing_else(module: str) -> None:
    """``import vendor_assets`` costs a millisecond, because it loads nothing from outside the standard library."""
    loaded = _modules_after(f"import {module}")
    assert loaded - set(sys.stdlib_module_names) <= {"vendor_assets"}


def test_the_command_answers_before_anything_heavy_is_loaded() -> None:
    """Help, versions and wrong arguments do not wait for Dagster, pandas, pyarrow, boto3 or SQLAlchemy."""
    heavy = {"boto3", "dagster", "duckdb", "matplotlib", "pandas", "pyarrow", "requests", "sqlalchemy"}
    assert not heavy & _modules_after("import vendor_assets.cli")


def test_a_run_on_a_folder_loads_nothing_for_s3_or_analysis() -> None:
    """Every run imports the definitions: what only some need (S3, DuckDB, the notebook) would cost each seconds."""
    heavy = {"boto3", "dagster_aws", "duckdb", "matplotlib", "nbclient", "pandas"}
    assert not heavy & _modules_after("import vendor_assets.definitions")


def _modules_after(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_no_module_is_called_after_nothing() -> None:
    """No module is called utils, helpers, common, base or manager; a vendor's base and the IO managers excepted."""
    empty = {"base", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
    allowed = {PACKAGE / "vendors" / "base.py"}
    modules = [path for folder in (PACKAGE, ROOT / "vendor_assets_tests") for path in folder.rglob("*.py")]
    assert [path for path in modules if path.stem in empty and path not in allowed] == []


def test_nothing_of_a_machine_is_tracked() -> None:
    """No tracked text names a machine's folders, a package registry's host or a local build of a package."""
    forbidden = re.compile(
        r"(?<![\w.])/(?:root|work|home/\w+|Users/\w+)/|pypi\.org|pythonhosted|index-url|find-links|"
        r"file:///\w|==[\w.]+\+\w"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in _tracked()
        if path.suffix in TEXTS and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def test_nothing_that_a_run_leaves_is_tracked() -> None:
    """Tables, Dagster's history, settings with a key and caches stay out of the repo."""
    left = re.compile(
        r"^(data|\.dagster|\.venv|\.tmp_dagster_home_\w+)/|(^|/)(__pycache__/|vendor_assets\.env$)"
    )
    assert [name for path in _tracked() if left.search(name := path.relative_to(ROOT).as_posix())] == []


def test_every_test_states_its_rule() -> None:
    """Each test has a docstring whose first line is a whole sentence: the rule that it checks."""
    silent = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for path in (ROOT / "vendor_assets_tests").rglob("test_*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and function.name.startswith("test_")
        and not (ast.get_docstring(function) or "").rstrip().endswith((".", ")"))
    ]
    assert silent == []


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    """The picture in the docstring of ``errors`` shows every error once, each below its base."""
    drawn = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)(\w+Error)\b", line):
            depth = len(found[1]) // 4
            del branch[depth:]
            drawn[found[2]] = branch[-1] if branch else "Exception"
            branch.append(found[2])
    defined = {
        name: kind.__base__.__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__ and issubclass(kind, Exception) and kind.__base__
    }
    assert drawn == defined


def test_retryable_is_said_of_the_errors_that_say_so() -> None:
    """The picture says retryable of exactly those errors that may succeed by themselves."""
    said = set(re.findall(r"(\w+Error)\s+retryable:", errors.__doc__ or ""))
    assert said == {
        name for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__dict__.get("retryable")
    }


def test_what_is_imported_is_declared() -> None:
    """Every distribution that the package imports is among its dependencies, not only theirs."""
    project = _project()["project"]
    declared = {_name(each) for each in project["dependencies"]}
    providers = packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {top}"
        for path in PACKAGE.rglob("*.py")
        for top in _imported(path)
        if top not in sys.stdlib_module_names
        and top != "vendor_assets"
        and not {_name(each) for each in providers.get(top, [top])} & declared
    }
    assert missing == set()


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_what_dagster_keeps_private_is_used_in_one_file() -> None:
    """Only ``dagster_private`` imports private modules of Dagster or uses what is private of an instance."""
    private = {
        name
        for name in dir(DagsterInstance)
        if not name.startswith("__") and not is_public(inspect.getattr_static(DagsterInstance, name))
    } | {"_compute_log_manager"}
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "dagster_private.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Attribute) and node.attr in private:
                owner = ast.unparse(node.value)
                if re.search(r"(^|[._])instance$|^dg\.DagsterInstance(\(.*\))?$", owner):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {owner}.{node.attr}")
            if any(re.match(r"dagster(_\w+)?\._|dagster\.(\w+\.)*_", module) for module in modules):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {modules[0]}")
    assert found == []


def test_what_is_declared_is_pinned() -> None:
    """``constraints.txt`` pins every dependency, those of tests too, to one released version."""
    project = _project()["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    pins = {_name(name): version for name, version in _pins().items()}
    assert {_name(each) for each in wanted} - {"vendor-assets"} <= set(pins)
    assert [version for version in pins.values() if not re.fullmatch(r"\d[\w.]*", version)] == []


def test_what_is_pinned_runs_on_the_oldest_python() -> None:
    """Debian's Python is not the newest of its minor version: each pin accepts the first one that we promise."""
    oldest = _project()["project"]["requires-python"].removeprefix(">=") + ".0"
    refused = []
    for name in _pins():
        try:
            wanted = metadata(name).get("Requires-Python")
        except PackageNotFoundError:
            continue
        if wanted and not SpecifierSet(wanted).contains(oldest):
            refused.append(f"{name} wants Python {wanted}")
    assert refused == []


def test_the_template_names_every_setting() -> None:
    """``vendor_assets.env.example`` has each setting once, in order, and no other."""
    text = (ROOT / "vendor_assets.env.example").read_text()
    assert tuple(re.findall(r"^#([A-Z_]+)=", text, re.MULTILINE)) == NAMES


def test_the_template_is_accepted_as_it_stands(tmp_path: Path) -> None:
    """Whoever removes every ``#`` before a setting gets settings that are accepted, not an error."""
    text = (ROOT / "vendor_assets.env.example").read_text()
    file = tmp_path / "vendor_assets.env"
    file.write_text(re.sub(r"^#([A-Z_]+=)", r"\1", text, flags=re.MULTILINE) + "VENDOR_API_KEY=a-key\n")
    environ = {name: value or "" for name, value in dotenv_values(file).items()}
    account = read(environ, root=tmp_path)
    assert account.vendor_url == environ["VENDOR_URL"]
    assert account.share == read({}, root=tmp_path).share


def test_the_template_shows_the_defaults(tmp_path: Path) -> None:
    """Settings from the template are those from an empty environment, but for address, key and first day."""
    text = (ROOT / "vendor_assets.env.example").read_text()
    shown = dict(re.findall(r"^#([A-Z_]+)=(.*)$", text, re.MULTILINE))
    for name in ("VENDOR_URL", "VENDOR_API_KEY", "VENDOR_ASSETS_START"):
        del shown[name]
    real = {"VENDOR_URL": "https://api.newrelic.com", "VENDOR_API_KEY": "key"}
    ours, theirs = (repr(read(real | environ, root=tmp_path)) for environ in (shown, {}))
    # A vendor has no equality; all else of the settings has.
    assert re.sub(r" object at \w+", "", ours) == re.sub(r" object at \w+", "", theirs)


def test_dagster_loads_the_definitions_from_a_checkout() -> None:
    """``workspace.yaml`` names a module that exists, and the folder in which an uninstalled checkout has it."""
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    (location,) = (entry["python_module"] for entry in workspace["load_from"])
    assert location["module_name"] in MODULES
    assert location["working_directory"] == "."


def test_backfills_never_take_the_last_two_places_of_the_run_queue() -> None:
    """However many backfills there are, ours and the UI's, two places are left for scheduled work."""
    runs = yaml.safe_load((ROOT / "dagster.yaml").read_text())["concurrency"]["runs"]
    assert runs["max_concurrent_runs"] - sum(each["limit"] for each in runs["tag_concurrency_limits"]) >= 2


def test_links_between_documents_lead_somewhere() -> None:
    """Each relative link of the README and the documents leads to a file that is there."""
    documents = [path for path in _tracked() if path.suffix == ".md"]
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in documents
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []


def test_the_package_is_typed_and_has_its_notebooks() -> None:
    """What is not Python and is needed at run time lies inside the package, where it is installed from."""
    data = _project()["tool"]["setuptools"]["package-data"]["vendor_assets"]
    assert [pattern for pattern in data if not list(PACKAGE.glob(pattern))] == []
    assert re.fullmatch(r"\d+\.\d+\.\d+", vendor_assets.__version__)


def test_property_tests_have_one_profile() -> None:
    """No property test fails because a machine is busy: deadlines are off in one place, and nobody sets one."""
    assert settings.default is not None
    assert settings.default.deadline is None
    own = [
        path.name
        for path in (ROOT / "vendor_assets_tests").rglob("test_*.py")
        if re.search(r"\bdeadline=|suppress_health_check=", path.read_text(encoding="utf-8"))
        and path != Path(__file__)
    ]
    assert own == []
