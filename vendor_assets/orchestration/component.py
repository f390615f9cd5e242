"""An account as a Dagster component: a dozen lines of YAML become its assets, checks, sensors and schedules."""

import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

import dagster as dg
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import Field, PrivateAttr

from vendor_assets.account import Account
from vendor_assets.errors import ConfigurationError
from vendor_assets.orchestration.definitions import build_definitions
from vendor_assets.orchestration.names import Names
from vendor_assets.settings import account_of, beside


class AccountScaffolder(dg.Scaffolder[Any]):
    """Writes a ``defs.yaml`` to fill in, for ``dg scaffold defs vendor_assets.VendorAccount <name>``."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Write the file, or the usual ``component.py`` where Python is asked for."""
        if request.scaffold_format != "yaml":
            dg.scaffold_component(request)
            return
        target = request.target_path
        folder = target.parent if request.append else target
        text = _SCAFFOLD.format(
            type=request.type_name,
            variable=re.sub(r"\W", "_", folder.name, flags=re.ASCII).upper() + "_KEY",
            start=datetime.now(UTC).date() - timedelta(days=7),
        )
        if request.append:
            with target.open("a", encoding="utf-8") as file:
                file.write(f"---\n{text}")
        else:
            (target / "defs.yaml").write_text(text, encoding="utf-8")


@dg.scaffold_with(AccountScaffolder)
class VendorAccount(dg.Component, dg.Resolvable, dg.Model):
    """One account at a vendor, harvested within its quota into partitioned Parquet.

    The attributes are the settings of ``vendor_assets.env.example`` with shorter names. Secrets are never given
    directly: ``…_env`` names the environment variable that holds one, ``…_file`` the file. Paths are relative to the
    project's root.

    Subclasses may override :meth:`resolve_account` and :meth:`asset_spec`.
    """

    name: str | None = Field(
        default=None,
        description="The account's name in Dagster: prefix of its assets, jobs and sensors; by default the folder's",
    )
    url: str = Field(description="The vendor's address")
    kind: str | None = Field(
        default=None,
        description="new_relic, nerdgraph, datadog, cloudwatch, prometheus, or an entry point's name",
    )
    options: dict[str, Any] | None = Field(default=None, description="Settings of the vendor's own")
    account: str | None = Field(default=None, description="Whose budget it is; by default the account's own")
    api_key_env: str | None = Field(default=None, description="Variable that holds the key")
    api_key_file: str | None = Field(default=None, description="File that holds the key")
    application_key_env: str | None = Field(default=None, description="Variable that holds the second key")
    application_key_file: str | None = Field(default=None, description="File that holds the second key")
    user: str | None = Field(default=None, description="For basic authentication, or a client's id")
    password_env: str | None = Field(default=None, description="Variable that holds the user's password")
    password_file: str | None = Field(default=None, description="File that holds the user's password")
    token_env: str | None = Field(default=None, description="Variable that holds a bearer token")
    token_file: str | None = Field(default=None, description="File that holds a bearer token")
    headers_env: str | None = Field(default=None, description="Variable that holds headers, like a tenant's")
    headers_file: str | None = Field(default=None, description="File that holds headers")
    proxy_env: str | None = Field(default=None, description="Variable that holds a proxy's address")
    proxy_file: str | None = Field(default=None, description="File that holds a proxy's address")
    ca_bundle: str | None = Field(default=None, description="Certificates to trust, a file or a folder")
    client_cert: str | None = Field(default=None, description="Our own certificate")
    client_key: str | None = Field(default=None, description="Its key")
    rate: str | None = Field(
        default=None, description="The vendor's quota, like 1000/min or 20/s burst 20; auto finds it"
    )
    share: float | None = Field(
        default=None, description="Our part of it: above 0, at most 1; 0.8 by default"
    )
    max_in_flight: int | None = Field(default=None, description="Calls at once, over all processes")
    store: str | None = Field(default=None, description="A folder or s3://bucket/prefix; ./data/<name>")
    db_env: str | None = Field(default=None, description="Variable that holds the budget's database address")
    db_file: str | None = Field(default=None, description="File that holds the budget's database address")
    start: str | None = Field(default=None, description="First day, in quotes")
    timezone: str | None = Field(default=None, description="Time zone of days, an IANA name")
    resolution: int | None = Field(default=None, description="Seconds per timeslice")
    settling: int | None = Field(
        default=None, description="Seconds after a day's end until its data are final"
    )
    look_back: int | None = Field(default=None, description="Days that the schedule look_back fetches again")
    retention: int | None = Field(default=None, description="Days for which answers are kept")
    history: int | None = Field(default=None, description="Days for which Dagster keeps the logs of runs")
    alert_url_env: str | None = Field(default=None, description="Variable that holds a webhook's address")
    alert_url_file: str | None = Field(default=None, description="File that holds a webhook's address")
    troops: str | None = Field(default=None, description="Patterns of troops; ! leaves out")
    warriors: str | None = Field(default=None, description="Patterns of warriors; ! leaves out")
    data_groups: str | None = Field(default=None, description="Patterns of data groups")
    values: str | None = Field(default=None, description="Patterns of values")
    weights: str | dict[str, float] | None = Field(
        default=None,
        description="Teams' parts of the pace: patterns of troops with weights, like payments=3,*=1",
    )
    automation: bool = Field(default=True, description="Whether there are sensors and schedules")
    in_process: bool = Field(
        default=True,
        description="Whether all runs of the code location have their steps in one process; "
        "false where the project has its own executor",
    )
    translation: Annotated[
        TranslationFn[str] | None,
        TranslationFnResolver[str](lambda asset: {"asset": asset}),
    ] = Field(
        default=None,
        description="Key prefix, group, owners, tags, description; {{ spec }} is an asset's spec, {{ asset }} its name",
    )

    _positions: Any = PrivateAttr(default=None)
    _folder: str = PrivateAttr(default="")

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> Self:
        """Resolve the YAML, and keep the position of each attribute for messages."""
        component = super().load(attributes, context)
        component._positions = context.resolution_context.source_position_tree  # noqa: SLF001 its own class
        component._folder = context.path.name  # noqa: SLF001
        return component

    def resolve_account(self, name: str, root: Path) -> Account:
        """The account to build; subclasses may override it.

        Args:
            name: The account's name if the attributes give none.
            root: The project's root.

        Raises:
            ConfigurationError: A value is wrong, on one line.
        """
        given = self.model_dump(exclude=set(_NO_SETTINGS), exclude_none=True)
        document: dict[str, Any] = {key: given[key] for key in given if key in _KEYS}
        environ = dict(os.environ)
        try:
            return account_of(self.name or name, document, environ, root=root, place=_PLACE)
        except ConfigurationError as error:
            message = str(error)
        raise ConfigurationError(message.replace(_PLACE, self._place(message, root), 1))

    def _account_beside_others(self, context: dg.ComponentLoadContext) -> Account:
        """The account, with a budget in common with those of the project's YAML that ask with its key."""
        root = context.project_root
        mine = self.resolve_account(context.path.name, root)
        found = {mine.name: (mine, self)}
        # A component that was made in Python may be in no project.
        for other in context.component_tree.get_all_components(VendorAccount) if self._folder else ():
            if other._folder and other is not self:  # noqa: SLF001 its own class
                account = other.resolve_account(other._folder, root)  # noqa: SLF001
                found.setdefault(account.name, (account, other))
        by_name = [found[name] for name in sorted(found)]
        documents = {account.name: component._attributes for account, component in by_name}  # noqa: SLF001
        accounts = beside([account for account, _ in by_name], documents)
        return next(account for account in accounts if account.name == mine.name)

    def _place(self, message: str, root: Path) -> str:
        """File and line of the attribute that a message is about."""
        if self._positions is None:
            return _PLACE
        about = message.partition(": ")[2]
        keys = [*self._attributes, "translation"] if "give it a name" not in about else ["name"]
        found = {key: match.start() for key in keys if (match := re.search(rf"\b{key}\b", about))}
        path = ["attributes", min(found, key=lambda key: found[key])] if found else ["attributes"]
        position, _ = self._positions.lookup_closest_and_path(path, None)
        file = Path(position.filename)
        shown = file.relative_to(root) if file.is_relative_to(root) else file
        return f"{shown}:{position.start.line}"

    @property
    def _attributes(self) -> list[str]:
        given: dict[str, Any] = self.model_dump(exclude=set(_NO_ACCOUNT), exclude_none=True)
        return list(given)

    def asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """Translate an asset's key prefix, group, owners, tags and description; subclasses may override it.

        The prefix must be the same for all assets of the account, and the last part of each key must stay.
        """
        return self.translation(spec, spec.key.path[-1]) if self.translation else spec

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The account's definitions.

        Raises:
            ConfigurationError: A value is wrong, or a translation changes what the account's sensors and jobs go by.
        """
        root = context.project_root
        account = self._account_beside_others(context)
        names = Names.for_account(account)
        probe = self.asset_spec(dg.AssetSpec(names.key("troops")))
        account = replace(account, key_prefix=tuple(probe.key.path[:-1]))

        def translated(spec: dg.AssetSpec) -> dg.AssetSpec:
            new = self.asset_spec(spec.replace_attributes(key=names.key(spec.key.path[-1])))
            for attribute in _FIXED:
                if getattr(new, attribute) != getattr(spec, attribute):
                    place = self._place(": translation", root)
                    advice = "only a prefix may come before it" if attribute == "key" else "leave it out"
                    raise ConfigurationError(
                        f"{place}, account {account.name!r}: translation changes the {attribute} of "
                        f"{spec.key.to_user_string()}, which the account's sensors and jobs go by; {advice}"
                    )
            return new

        built = build_definitions(account, automation=self.automation, in_process=self.in_process)
        return built.map_resolved_asset_specs(func=translated)


_FIXED = ("key", "deps", "partitions_def")
_PLACE = "defs.yaml"
_NO_ACCOUNT = frozenset({"automation", "in_process", "translation"})
_NO_SETTINGS = _NO_ACCOUNT | {"name"}
_KEYS = frozenset(VendorAccount.model_fields) - _NO_SETTINGS
_SCAFFOLD = """\
type: {type}

attributes:
  # The folder is the account's name; it is the prefix of its assets, jobs and sensors.
  url: https://api.newrelic.com
  # The vendor: new_relic, nerdgraph, datadog, cloudwatch, prometheus, or an entry point's name.
  kind: new_relic
  # The variable that holds the key, not the key itself; set it before `dg check defs`.
  api_key_env: {variable}
  # The vendor's quota, like 1000/min or 20/s burst 20; auto finds it.
  rate: auto
  # The first day that is harvested.
  start: "{start}"
"""
