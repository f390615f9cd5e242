"""An account as a component: a dozen lines of YAML in a project that ``create-dagster`` made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import vendor_assets
from vendor_assets.errors import ConfigurationError
from vendor_assets.orchestration.component import AccountScaffolder, VendorAccount
from vendor_assets.settings import KEYS, REFERENCES

PROJECT = """
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "my_project"
"""
PROD = """
type: vendor_assets.VendorAccount

attributes:
  url: http://127.0.0.1:9
  api_key_env: PROD_KEY
  rate: 500/s
  start: "2026-11-01"
"""
LAB = """
type: vendor_assets.VendorAccount

attributes:
  name: lab
  kind: prometheus
  url: http://127.0.0.1:9
  rate: 20/s burst 20
  automation: false

post_processing:
  assets:
    - target: "*"
      attributes:
        owners: ["team:platform"]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PROD_KEY", "s3cr3t-of-prod")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    for name, text in (("newrelic_prod", PROD), ("prometheus", LAB)):
        folder = tmp_path / "my_project" / "defs" / name
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(text)
    for folder in (tmp_path / "my_project", tmp_path / "my_project" / "defs"):
        (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("my_project"):
            del sys.modules[name]


# Of Dagster's own way to apply what the YAML says of owners.
@pytest.mark.filterwarnings("ignore:Parameter `execution_type`")
def test_two_folders_of_yaml_are_two_accounts(project: Path) -> None:
    """The folder names an account, attributes may; both stand in one location, and owners are the project's choice."""
    defs = dg.load_from_defs_folder(path_within_project=project / "my_project")
    dg.Definitions.validate_loadable(defs)
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    for account in ("newrelic_prod", "lab"):
        for asset in ("troops", "warriors", "data_groups", "performance_data", "daily_performance"):
            assert f"{account}/{asset}" in specs
    assert specs["lab/troops"].owners == ["team:platform"]
    assert specs["newrelic_prod/troops"].owners != ["team:platform"]
    sensors = {sensor.name for sensor in defs.sensors or ()}
    assert "newrelic_prod_roster_sensor" in sensors
    assert not any(name.startswith("lab_") for name in sensors)
    store = (defs.resources or {})["newrelic_prod__store"]
    assert store.url == str(project / "data" / "newrelic_prod")
    assert "s3cr3t" not in repr(defs.resources)


@pytest.mark.parametrize(("told", "shared"), [("", True), ("account: of_its_own", False)])
@pytest.mark.filterwarnings("ignore:Parameter `execution_type`")
def test_components_that_ask_with_one_key_share_a_budget(
    project: Path, told: str, shared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A budget for each would be twice the rate; where one says that it is another account, a warning tells of it."""
    folder = project / "my_project" / "defs" / "other"
    folder.mkdir()
    (folder / "defs.yaml").write_text(f"{PROD}  {told}\n")
    defs = dg.load_from_defs_folder(path_within_project=project / "my_project")
    one, other = ((defs.resources or {})[f"{name}__vendor_api"] for name in ("newrelic_prod", "other"))
    assert (one.database() == other.database()) == shared
    assert (one.budget_name == other.budget_name) == shared
    assert one.account != other.account
    assert ("with one key" in caplog.text) != shared


def test_the_package_offers_its_component() -> None:
    """Dagster's tools find it by the entry point, under the name that YAML uses."""
    (found,) = entry_points(group="dagster_dg_cli.registry_modules", name="vendor_assets")
    module = found.load()
    assert module is vendor_assets
    assert "VendorAccount" in dir(module)
    assert module.VendorAccount is VendorAccount


def test_every_setting_is_an_attribute() -> None:
    """A setting of the environment is missing in no component."""
    assert set(VendorAccount.model_fields) - {"name", "automation", "in_process", "translation"} == {
        *KEYS,
        *REFERENCES,
    }


def test_a_subclass_may_change_what_is_built(project: Path) -> None:
    """Settings and specs go through methods of their own."""

    class Ours(VendorAccount):
        def asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
            return spec.replace_attributes(group_name="ours", tags={"tier": "gold"})

    defs = dg.build_defs_for_component(Ours(name="prod", kind="prometheus", url="http://x"))
    groups = {spec.group_name for spec in defs.resolve_all_asset_specs()}
    assert groups == {"ours"}


def test_a_mistake_says_what_and_where(tmp_path: Path) -> None:
    """One line with the account and the key."""
    wrong = VendorAccount(name="prod", url="http://x", kind="prometheus", rate="much")
    with pytest.raises(ConfigurationError) as caught:
        wrong.resolve_account("prod", tmp_path)
    assert str(caught.value).startswith("defs.yaml, account 'prod': rate='much'")


@pytest.mark.parametrize(
    ("wrong", "line", "says"),
    [
        ("rate: much", 8, "rate='much'"),
        ("start: soon", 8, "start='soon'"),
        ("weights: {payments: 0}", 8, "weights: 'payments=0.0' is not a team's weight"),
        ("db_env: NOWHERE", 8, "db_env names NOWHERE, which is not set"),
        ("name: Not A Name", 8, "give it a name"),
    ],
)
def test_a_mistake_in_yaml_is_one_line_with_its_place(
    project: Path, wrong: str, line: int, says: str
) -> None:
    """The file and the line of the attribute that is wrong, below those that are right."""
    file = project / "my_project" / "defs" / "newrelic_prod" / "defs.yaml"
    right = "type: vendor_assets.VendorAccount\n\nattributes:\n  url: http://127.0.0.1:9\n"
    file.write_text(f"{right}  api_key_env: PROD_KEY\n  share: 0.5\n  resolution: 60\n  {wrong}\n")
    with pytest.raises(Exception, match="newrelic_prod") as caught:
        dg.load_from_defs_folder(path_within_project=project / "my_project")
    error = caught.value.__cause__
    assert isinstance(error, ConfigurationError)
    assert str(error).startswith(f"my_project/defs/newrelic_prod/defs.yaml:{line}, account ")
    assert says in str(error)
    assert "\n" not in str(error)


@pytest.mark.filterwarnings("ignore:Parameter `execution_type`")
def test_a_translation_says_how_the_assets_look(project: Path) -> None:
    """Group, owners, tags and description, from the spec and the asset's name; tags are added to ours."""
    file = project / "my_project" / "defs" / "newrelic_prod" / "defs.yaml"
    file.write_text(f"""{PROD.rstrip()}
  translation:
    group_name: vendor
    owners: ["team:platform"]
    tags:
      table: "{{{{ asset }}}}"
    description: "{{{{ asset }}}} of prod. {{{{ spec.description }}}}"
""")
    defs = dg.load_from_defs_folder(path_within_project=project / "my_project")
    dg.Definitions.validate_loadable(defs)
    spec = {spec.key: spec for spec in defs.resolve_all_asset_specs()}[
        dg.AssetKey(["newrelic_prod", "troops"])
    ]
    assert spec.group_name == "vendor"
    assert spec.owners == ["team:platform"]
    assert spec.tags["table"] == "troops"
    assert (spec.description or "").startswith("troops of prod. ")
    assert "None" not in (spec.description or "")


@pytest.mark.filterwarnings("ignore:Parameter `execution_type`")
def test_a_translation_may_give_a_prefix(project: Path) -> None:
    """The account's keys are changed everywhere: in what depends on them, and in what sensors and jobs look for."""
    file = project / "my_project" / "defs" / "newrelic_prod" / "defs.yaml"
    file.write_text(f"{PROD.rstrip()}\n  translation:\n    key_prefix: lake\n")
    defs = dg.load_from_defs_folder(path_within_project=project / "my_project")
    dg.Definitions.validate_loadable(defs)
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    (upstream,) = specs["lake/newrelic_prod/warriors"].deps
    assert upstream.asset_key.to_user_string() == "lake/newrelic_prod/troops"
    assert not any(key.startswith("newrelic_prod/") for key in specs)
    job = defs.resolve_job_def("newrelic_prod_roster")
    assert job.asset_layer.executable_asset_keys == {dg.AssetKey(["lake", "newrelic_prod", "troops"])}


@pytest.mark.parametrize("key", ["key: other", "deps: [lake/raw]"])
def test_a_translation_leaves_what_sensors_go_by(project: Path, key: str) -> None:
    """A key that sensors would not find is refused, with the place."""
    file = project / "my_project" / "defs" / "newrelic_prod" / "defs.yaml"
    file.write_text(f"{PROD.rstrip()}\n  translation:\n    {key}\n")
    with pytest.raises(Exception, match="defs") as caught:
        dg.load_from_defs_folder(path_within_project=project / "my_project").resolve_all_asset_specs()
    causes = [caught.value, caught.value.__cause__]
    (error,) = [cause for cause in causes if isinstance(cause, ConfigurationError)]
    assert str(error).startswith("my_project/defs/newrelic_prod/defs.yaml:")
    assert "translation changes the" in str(error)
    assert "\n" not in str(error)


@pytest.mark.filterwarnings("ignore:Parameter `execution_type`")
def test_the_scaffold_is_an_account_to_fill_in(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``dg scaffold defs`` writes loads once the variable that it names is set."""
    folder = project / "my_project" / "defs" / "fresh"
    folder.mkdir()
    request: dg.ScaffoldRequest[Any] = dg.ScaffoldRequest(
        type_name="vendor_assets.VendorAccount",
        target_path=folder,
        scaffold_format="yaml",
        project_root=project,
        params=None,
    )
    AccountScaffolder().scaffold(request)
    monkeypatch.setenv("FRESH_KEY", "s3cr3t")
    defs = dg.load_from_defs_folder(path_within_project=project / "my_project")
    dg.Definitions.validate_loadable(defs)
    assert dg.AssetKey(["fresh", "troops"]) in {spec.key for spec in defs.resolve_all_asset_specs()}
