"""Dagster definitions of an account: resources, assets, checks, jobs, sensors and schedules."""

import warnings
from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.errors import ConfigurationError
from vendor_assets.orchestration.assets.hierarchy import build_assets, observed_assets
from vendor_assets.orchestration.automation.schedules import build_schedules
from vendor_assets.orchestration.automation.sensors import build_sensors
from vendor_assets.orchestration.automation.watch import build_observing_sensors
from vendor_assets.orchestration.checks import build_checks
from vendor_assets.orchestration.io_managers import ParquetIOManager
from vendor_assets.orchestration.jobs import build_jobs
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.resources import (
    AlertResource,
    HarvesterResource,
    RunLeaseResource,
    StoreResource,
    VendorApiResource,
)
from vendor_assets.secret import Secret
from vendor_assets.settings import SIMULATOR_API_KEY

ROLES: Final = ("store", "vendor_api", "harvester", "run_lease", "io_manager", "alert")
"""The roles of an account's resources; :meth:`Names.resource` gives their keys."""


def build_resources(
    account: Account, *, s3: dict[str, Any] | None = None, own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The resources of an account, by key.

    Args:
        account: The account.
        s3: Arguments for Dagster's ``S3Resource``; None uses the standard AWS variables.
        own: Replacements by role; the other resources are built on a replaced store or vendor API.

    Raises:
        ConfigurationError: A role is unknown.
    """
    own = dict(own or {})
    if unknown := sorted(set(own) - set(ROLES)):
        raise ConfigurationError(
            f"resource {unknown[0]!r} is not one of an account's; there are {', '.join(ROLES)}"
        )
    store = own.get("store") or _store(account.store_url, str(account.source), s3 or {})
    vendor_api = own.get("vendor_api") or VendorApiResource(
        kind=account.vendor.kind,
        url=account.vendor_url,
        account=account.vendor_account,
        budget_account=account.budget_account,
        options=dict(account.vendor_options),
        api_key=_reference(account.key, SIMULATOR_API_KEY),
        application_key=_reference(account.login.application_key),
        user=account.login.user,
        password=_reference(account.login.password),
        token=_reference(account.login.token),
        headers=_reference(account.login.headers),
        proxy=_reference(account.network.proxy),
        proxy_name=account.network.proxy.name,
        ca_bundle=account.network.ca_bundle,
        ca_name=account.network.ca_name,
        client_cert=account.network.client_cert,
        client_key=account.network.client_key,
        files={secret.name: secret.path for secret in account.secrets if secret.path},
        rates=[] if account.limits == "auto" else [str(limit) for limit in account.limits],
        share=account.share,
        max_in_flight=account.max_in_flight,
        database_url=_reference(account.database, shown="sqlite:"),
    )
    names = Names.for_account(account)
    prefix = list(names.key("troops").path[:-1])
    harvester = HarvesterResource(
        vendor_api=vendor_api,
        store=store,
        timezone=account.zone.key,
        resolution_seconds=account.resolution_seconds,
        settling_seconds=account.settling_seconds,
        filters=account.filters.texts,
        weights=account.weights.text,
        account=account.name,
        key_prefix=prefix,
    )
    found = {
        "store": store,
        "vendor_api": vendor_api,
        "harvester": harvester,
        "run_lease": RunLeaseResource(
            database_url=_reference(account.database, shown="sqlite:"), database_file=account.database.path
        ),
        "io_manager": ParquetIOManager(store=store, key_prefix=prefix),
        "alert": AlertResource(url=_reference(account.alert), url_file=account.alert.path),
    }
    return {names.resource(role): resource for role, resource in (found | own).items()}


def _reference(secret: Secret, shown: str = "\0") -> str:
    """A secret as a reference to its environment variable, so that Dagster never stores or shows it.

    Args:
        shown: Texts with this prefix are not secret.
    """
    if secret.path or not secret:
        return ""
    text = secret.read()
    return text if text.startswith(shown) else dg.EnvVar(secret.variable)


def _store(url: str, source: str, s3: dict[str, Any]) -> StoreResource:
    if not url.startswith("s3://"):
        return StoreResource(url=url, source=source)
    from dagster_aws.s3 import S3Resource

    from vendor_assets.orchestration.s3 import S3StoreResource

    return S3StoreResource(url=url, source=source, s3=S3Resource(**s3))


def build_definitions(
    account: Account,
    *,
    s3: dict[str, Any] | None = None,
    resources: Mapping[str, Any] | None = None,
    automation: bool = True,
    in_process: bool = True,
) -> dg.Definitions:
    """The definitions of an account, to be merged with those of other accounts and projects.

    Args:
        account: The account; several in one code location each need a name.
        s3: Arguments for Dagster's ``S3Resource``; None uses the standard AWS variables.
        resources: Replacements by role; see :func:`build_resources`.
        automation: Whether to include sensors and schedules.
        in_process: Whether all runs of the code location have their steps in one process, which costs a third of the
            CPU time and leaves nothing behind that calls on after a kill; False where the project names its own
            executor. Our own jobs have in any case.
    """
    assets = dg.with_source_code_references(build_assets(account))
    jobs = build_jobs(account)
    sensors = [*build_sensors(account, jobs), *build_observing_sensors(account)]
    return dg.Definitions(
        assets=[*assets, *observed_assets(account)],
        asset_checks=build_checks(account),
        jobs=jobs,
        sensors=sensors if automation else [],
        schedules=build_schedules(account) if automation else [],
        resources=build_resources(account, s3=s3, own=resources),
        executor=dg.in_process_executor if in_process else None,
    )


def silence_warnings() -> None:
    """Ignore, in this process, Dagster's warnings about beta features that we use on purpose.

    Only for processes that are ours: our own code location and command. Some are issued when definitions are resolved.
    """
    for named in (
        "backfill_policy", "with_source_code_references", "CodeReference", "owners",
        "MultiToSingleDimensionPartitionMapping",
    ):  # fmt: skip
        warnings.filterwarnings("ignore", f".*{named}", dg.BetaWarning)
    warnings.filterwarnings("ignore", "Specifying a partitions_def on an AssetCheckSpec", dg.PreviewWarning)
