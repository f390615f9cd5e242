"""One deployment: settings become resources, assets, jobs, sensors and schedules."""

import warnings
from typing import Any

import dagster as dg

from vendor_assets.configuration import SIMULATOR_API_KEY, Settings
from vendor_assets.orchestration.assets import build_assets, observed_assets
from vendor_assets.orchestration.checks import build_checks
from vendor_assets.orchestration.io_managers import ParquetIOManager
from vendor_assets.orchestration.jobs import build_jobs
from vendor_assets.orchestration.observing import build_observing_sensors
from vendor_assets.orchestration.resources import (
    AlertResource,
    HarvesterResource,
    RunLeaseResource,
    StoreResource,
    VendorApiResource,
)
from vendor_assets.orchestration.schedules import build_schedules
from vendor_assets.orchestration.sensors import build_sensors
from vendor_assets.secret import Secret


def build_resources(settings: Settings, *, s3: dict[str, Any] | None = None) -> dict[str, Any]:
    """The resources of a deployment.

    Args:
        settings: The checked settings.
        s3: Arguments for Dagster's ``S3Resource``; None leaves all to the standard AWS variables.
    """
    store = _store(settings.store_url, str(settings.source), s3 or {})
    vendor_api = VendorApiResource(
        kind=settings.vendor.kind,
        url=settings.vendor_url,
        account=settings.vendor_account,
        api_key=_reference(settings.key, SIMULATOR_API_KEY),
        user=settings.login.user,
        password=_reference(settings.login.password),
        token=_reference(settings.login.token),
        headers=_reference(settings.login.headers),
        proxy=_reference(settings.network.proxy),
        proxy_name=settings.network.proxy.name,
        ca_bundle=settings.network.ca_bundle,
        ca_name=settings.network.ca_name,
        client_cert=settings.network.client_cert,
        client_key=settings.network.client_key,
        files={secret.name: secret.path for secret in settings.secrets if secret.path},
        rates=[] if settings.limits == "auto" else [str(limit) for limit in settings.limits],
        share=settings.share,
        max_in_flight=settings.max_in_flight,
        database_url=_reference(settings.database, shown="sqlite:"),
    )
    harvester = HarvesterResource(
        vendor_api=vendor_api,
        store=store,
        timezone=settings.zone.key,
        resolution_seconds=settings.resolution_seconds,
        settling_seconds=settings.settling_seconds,
        filters=settings.filters.texts,
    )
    return {
        "store": store,
        "vendor_api": vendor_api,
        "harvester": harvester,
        "run_lease": RunLeaseResource(
            database_url=_reference(settings.database, shown="sqlite:"), database_file=settings.database.path
        ),
        "io_manager": ParquetIOManager(store=store),
        "alert": AlertResource(url=_reference(settings.alert), url_file=settings.alert.path),
    }


def _reference(secret: Secret, shown: str = "\0") -> str:
    """A secret by the name of its variable, so that it is in no run config, no launch and no page.

    Args:
        secret: What the settings hold.
        shown: A text that begins like this is no secret.
    """
    if secret.path or not secret:
        return ""
    text = secret.read()
    return text if text.startswith(shown) else dg.EnvVar(secret.name)


def _store(url: str, source: str, s3: dict[str, Any]) -> StoreResource:
    if not url.startswith("s3://"):
        return StoreResource(url=url, source=source)
    from dagster_aws.s3 import S3Resource

    from vendor_assets.orchestration.s3 import S3StoreResource

    return S3StoreResource(url=url, source=source, s3=S3Resource(**s3))


def build_definitions(settings: Settings, *, s3: dict[str, Any] | None = None) -> dg.Definitions:
    """Everything that Dagster needs to know of a deployment."""
    # Not stable in Dagster yet, wanted, and pinned by our constraints; nobody who runs this can act on it. For the
    # whole process, since Dagster says some of it only when it resolves the definitions.
    for named in ("backfill_policy", "with_source_code_references", "CodeReference", "owners"):
        warnings.filterwarnings("ignore", f".*{named}", dg.BetaWarning)
    warnings.filterwarnings("ignore", "Specifying a partitions_def on an AssetCheckSpec", dg.PreviewWarning)
    assets = dg.with_source_code_references(build_assets(settings))
    jobs = build_jobs(settings)
    return dg.Definitions(
        assets=[*assets, *observed_assets(settings)],
        asset_checks=build_checks(settings),
        jobs=jobs,
        sensors=[*build_sensors(settings, jobs), *build_observing_sensors(settings)],
        schedules=build_schedules(settings),
        resources=build_resources(settings, s3=s3),
        executor=dg.in_process_executor,
    )
