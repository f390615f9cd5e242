"""Resources: the object store, the rate-limited vendor API, and the harvester built on both."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from vendor_assets import vendors
from vendor_assets.account import in_flight_of
from vendor_assets.budget import (
    SAMPLES_SINCE,
    Backlog,
    Budget,
    BudgetState,
    Explanation,
    Leases,
    Limit,
    LongestWait,
    Snapshot,
    Work,
    explain,
    process_name,
)
from vendor_assets.client import VendorClient
from vendor_assets.client.credentials import Login
from vendor_assets.client.network import Network
from vendor_assets.days import parse_time_zone
from vendor_assets.errors import BudgetUnavailableError
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.weights import Weights
from vendor_assets.logs import get_logger
from vendor_assets.orchestration.assets.backlog import Recorder
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import About
from vendor_assets.secret import Secret
from vendor_assets.storage.marker import Claim, open_marked_store
from vendor_assets.storage.objects import ObjectStore, open_store
from vendor_assets.storage.source import Source
from vendor_assets.vendors import Vendor

logger = get_logger(__name__)


class StoreResource(dg.ConfigurableResource[Any]):
    """The store of an account, in a folder; for S3 see :class:`vendor_assets.orchestration.s3.S3StoreResource`."""

    url: str = Field(description="A folder's absolute path, or s3://bucket/prefix")
    source: str = Field(
        default="",
        description="Whose data it holds, kind@address or kind@address#account; empty: not compared",
    )

    def open(self) -> ObjectStore:
        """Open the store, once.

        Raises:
            ConfigurationError: The URL is invalid, or the store holds another vendor's data.
            StorageUnavailableError: It cannot be read.
        """
        opened: tuple[ObjectStore, Claim | None] | None = self.__dict__.get("_opened")
        if opened is None:
            factory = self._client_factory()
            opened = (
                open_marked_store(self.url, Source.parse(self.source), s3_client_factory=factory)
                if self.source
                else (open_store(self.url, s3_client_factory=factory), None)
            )
            # Pydantic's frozen models refuse to set attributes.
            self.__dict__["_opened"] = opened
        store, claim = opened
        if claim is not None:
            claim.compare()
        return store

    def _client_factory(self) -> Callable[[], Any] | None:
        return None


class AlertResource(dg.ConfigurableResource[Any]):
    """Where alerts are sent besides the log."""

    url: str = Field(
        default="", description="A webhook in Slack's form; give it as an environment variable; empty: none"
    )
    url_file: str = Field(default="", description="Path of a file that holds the address instead")

    def address(self) -> str:
        """The webhook's address, a secret; empty if there is none.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        return _secret("VENDOR_ASSETS_ALERT_URL", self.url, self.url_file).read()


def _secret(name: str, text: str, path: str) -> Secret:
    """The secret of a field, which may refer to an environment variable."""
    return Secret(name, (text.get_value() or "") if isinstance(text, dg.EnvVar) else text, path)


class VendorApiResource(dg.ConfigurableResource[Any]):
    """The vendor's API, called within the budget that all processes and machines share."""

    kind: str = Field(
        description="new_relic, nerdgraph, datadog, cloudwatch, prometheus, or an entry point's name"
    )
    url: str = Field(description="The vendor's address")
    account: str = Field(default="", description="The account's name, where several are harvested there")
    budget_account: str | None = Field(
        default=None, description="Under which account's name calls are counted; by default its own"
    )
    options: dict[str, str] = Field(default={}, description="The vendor's own settings")
    api_key: str = Field(default="", description="The key; give it as an environment variable")
    application_key: str = Field(
        default="", description="The second key, where there is one; give it as an environment variable"
    )
    user: str = Field(default="", description="For basic authentication, or a client's id")
    password: str = Field(default="", description="The user's; give it as an environment variable")
    token: str = Field(
        default="", description="For bearer authentication; give it as an environment variable"
    )
    headers: str = Field(
        default="", description="Headers, like X-Scope-OrgID=team-a; give them as an environment variable"
    )
    proxy: str = Field(default="", description="An HTTP proxy; give it as an environment variable")
    proxy_name: str = Field(default="VENDOR_PROXY", description="Which variable names the proxy")
    ca_bundle: str = Field(default="", description="Certificates to trust: path of a file or a folder")
    ca_name: str = Field(default="VENDOR_CA_BUNDLE", description="Which variable names the certificates")
    client_cert: str = Field(default="", description="Path of our own certificate")
    client_key: str = Field(default="", description="Path of its key")
    files: dict[str, str] = Field(
        default={}, description="Secrets that are in a file, read when used: setting to path"
    )
    rates: list[str] = Field(description="The vendor's quota, like 1000/min; empty: found by trying")
    share: float = Field(description="Our part of the quota: above 0, at most 1")
    max_in_flight: int = Field(description="Calls at once, over all processes")
    database_url: str = Field(
        default="", description="The budget's database; with a password as an environment variable"
    )

    def _secret(self, name: str, text: str) -> Secret:
        return _secret(name, text, self.files.get(name, ""))

    def database(self) -> str:
        """Address of the budget's database; may hold a password.

        Raises:
            ConfigurationError: Its file cannot be read.
        """
        return self._secret("VENDOR_ASSETS_DB", self.database_url).read()

    def vendor(self) -> Vendor:
        """The vendor's dialect.

        Raises:
            ConfigurationError: There is none of this kind, or it cannot have this account or these options.
        """
        return vendors.make(self.kind, self.account, self.options)

    @property
    def budget_name(self) -> str:
        """Name of the vendor account in the budget."""
        account = self.account if self.budget_account is None else self.budget_account
        return str(Source(self.kind, self.url, account))

    def budget(self) -> Budget:
        """The budget of this vendor account."""
        limits: tuple[Limit, ...] | Literal["auto"] = Limit.parse_all(self.rates) or "auto"
        name = self.budget_name
        key = self._secret("VENDOR_API_KEY", self.api_key)
        return Budget(
            self.database(),
            name,
            limits=limits,
            share=self.share,
            max_in_flight=self.max_in_flight,
            in_flight_of=in_flight_of(self.vendor(), name, self.url, key),
        )

    def state(self) -> BudgetState:
        """The budget's current state.

        Raises:
            BudgetUnavailableError: Its database cannot be reached.
        """
        with closing(self.budget()) as budget:
            return budget.state()

    def snapshot(self) -> Snapshot:
        """The budget as it stands, to be explained.

        Raises:
            BudgetUnavailableError: Its database cannot be reached.
        """
        with closing(self.budget()) as budget:
            return budget.snapshot()

    def work(self, account: str = "") -> Work:
        """What runs still have to do, and what they did in the last day.

        Raises:
            BudgetUnavailableError: Its database cannot be reached.
        """
        now = datetime.now(UTC)
        with closing(Backlog(self.database(), account)) as backlog:
            return Work.of(backlog.read(now - SAMPLES_SINCE), self.leases().all(), now)

    def leases(self) -> Leases:
        """The leases of live runs."""
        return Leases(self.database())

    def _tell_of_others(self, budget: Budget) -> None:
        """Tell of accounts elsewhere, as in another project, that ask as this one does within another budget."""
        if self.vendor().most_in_flight_of == "user":
            # A user's key may reach several accounts, each with a rate of its own.
            return
        keys = {
            "VENDOR_API_KEY": self.api_key, "VENDOR_APPLICATION_KEY": self.application_key,
            "VENDOR_TOKEN": self.token, "VENDOR_HEADERS": self.headers,
        }  # fmt: skip
        seen = [str(Source(self.kind, self.url)), self.user]
        seen += [self._secret(name, text).read() for name, text in keys.items()]
        digest = hashlib.blake2b(json.dumps(seen).encode(), digest_size=16, person=b"asker").hexdigest()
        with suppress(BudgetUnavailableError):
            if others := budget.others_of(f"asker {digest}"):
                logger.warning(
                    "%s is asked with one key as %s, with a budget each, which is more than the rate; if they are one "
                    "account there, give all the same account (VENDOR_ACCOUNT)",
                    self.url,
                    " and ".join([*others, self.budget_name]),
                )

    @contextmanager
    def client(self, stop: threading.Event | None = None, *, max_attempts: int = 5) -> Iterator[VendorClient]:
        """A client that is closed at the end of the block."""
        budget = self.budget()
        self._tell_of_others(budget)
        client = VendorClient(
            base_url=self.url,
            api_key=self._secret("VENDOR_API_KEY", self.api_key),
            login=Login(
                self.user,
                self._secret("VENDOR_PASSWORD", self.password),
                self._secret("VENDOR_TOKEN", self.token),
                self._secret("VENDOR_HEADERS", self.headers),
                self._secret("VENDOR_APPLICATION_KEY", self.application_key),
            ),
            network=Network(
                self._secret(self.proxy_name, self.proxy),
                self.ca_bundle,
                self.ca_name,
                self.client_cert,
                self.client_key,
            ),
            vendor=self.vendor(),
            budget=budget,
            max_in_flight=self.max_in_flight,
            max_attempts=max_attempts,
            stop=stop,
        )
        try:
            yield client
        finally:
            client.close()
            budget.close()


class RunLeaseResource(dg.ConfigurableResource[Any]):
    """The lease that shows that a run is alive, for runs that do not harvest."""

    database_url: str = Field(default="", description="The budget's database, as the vendor's API has it")
    database_file: str = Field(default="", description="Path of a file that holds its address instead")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Any]:
        """Hold the lease while the run lives."""
        run = context.run
        if run is None:
            yield None
            return
        database = _secret("VENDOR_ASSETS_DB", self.database_url, self.database_file).read()
        with Leases(database).hold(run.run_id, info={"job": run.job_name}):
            yield run.run_id


class HarvesterResource(dg.ConfigurableResource[Any]):
    """The harvester of a run, with the run's lease."""

    vendor_api: dg.ResourceDependency[VendorApiResource]
    store: dg.ResourceDependency[StoreResource]
    timezone: str = Field(description="Time zone of days, an IANA name")
    resolution_seconds: int = Field(description="Wanted length of a timeslice")
    settling_seconds: int = Field(description="How long after a day's end its data may still change")
    filters: dict[str, str] = Field(default={}, description="What is harvested: setting to patterns")
    weights: str = Field(default="", description="Patterns of troops with weights, like payments=3,*=1")
    account: str = Field(default="", description="The account's name in Dagster; empty for the only one")
    key_prefix: list[str] = Field(default=[], description="Prefix of the assets' keys")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Any]:
        """Provide the harvester itself as the resource."""
        run = context.run
        run_id = run.run_id if run else f"no-run-{id(self):x}"
        job = run.job_name if run else ""
        about = About(run, Names(self.account, tuple(self.key_prefix))) if run else None
        planned = about.calls if about else None
        info = {"job": job, "process": process_name()} | ({"class": about.work_class} if about else {})
        with self._harvester(run_id, info, planned) as (harvester, client):
            recorder = Recorder(
                lambda: harvester.progress,
                Backlog(self.vendor_api.database(), self.account),
                source=run_id,
                say=context.log.info if context.log else print,
                budget=self.vendor_api.state,
                waits=lambda: client.longest_wait,
                explain=self._explain,
            )
            with recorder:
                yield harvester

    def _explain(self, source: str, wait: LongestWait) -> Explanation:
        """Why a call of a run waits."""
        work = self.vendor_api.work(self.account)
        return explain(
            self.vendor_api.snapshot(),
            work,
            run=work.run(source),
            work_class=wait.work_class,
            endpoint=wait.endpoint,
        )

    @contextmanager
    def _harvester(
        self, run_id: str, info: dict[str, str], calls_planned: int | None
    ) -> Iterator[tuple[Harvester, VendorClient]]:
        stop = threading.Event()
        store = self.store.open()
        leases = self.vendor_api.leases()
        with leases.hold(run_id, info=info), self.vendor_api.client(stop) as client:
            # Before any call: answers that cannot be stored would be lost.
            store.prepare()
            harvester = Harvester(
                store=store,
                vendor=self.vendor_api.vendor(),
                client=client,
                liveness=leases,
                zone=parse_time_zone(self.timezone),
                resolution_seconds=self.resolution_seconds,
                settling_seconds=self.settling_seconds,
                filters=Filters.parse(self.filters),
                weights=Weights.parse(self.weights),
                threads=self.vendor_api.max_in_flight,
                stop=stop,
                calls_planned=calls_planned,
            )
            try:
                yield harvester, client
            finally:
                harvester.close()
