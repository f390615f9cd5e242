"""The budget's database: small documents changed by compare and swap, on SQLite or PostgreSQL.

Nothing holds a lock while Python computes: a change is one read and one conditional update, so a process
that is stopped or killed between the two blocks nobody.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from vendor_assets.budget.clock import Clock
from vendor_assets.errors import BudgetError, BudgetUnavailableError, ConfigurationError
from vendor_assets.logs import get_logger

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection

if sys.platform != "win32":
    import fcntl

log = get_logger(__name__)
T = TypeVar("T")

PATIENCE_SECONDS: Final = 30.0
"""How long a database that is away is waited for: a restart of PostgreSQL takes seconds."""

_BUSY_SECONDS: Final = 5.0
_SILENT_SECONDS: Final = 20.0
"""When a connection to PostgreSQL that does not answer is shut down; the server gives up a statement after 10 s."""
_BROKEN_FILE: Final = ("not a database", "malformed", "disk image", "file is encrypted")

_HOPELESS: Final = (
    "password authentication failed",
    "unable to open database file",
    "readonly database",
    "permission denied",
    "no password supplied",
)

_ADVICE: Final = {
    "permission denied": "give its user the right to make and change tables there",
    "read-only transaction": "see that it is no copy for reading and that its user may write",
    "is locked": "see which program keeps it locked",
    "is full": "make room for it",
}
"""What to do, by what a database says."""

_CONNECTION: Final = {
    "connect_timeout": 5,
    "application_name": "vendor_assets budget",
    # A machine that is gone says nothing; the kernel alone would wait for a quarter of an hour, or two hours.
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""As libpq takes it; what the address says itself goes before."""

_SERVER_CLOCK: Final = "extract(epoch from clock_timestamp() - timestamptz '2026-01-01 00:00:00+00')::float8"
"""Seconds since a late zero: small numbers keep their microseconds."""
_SERVER_ZERO: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()

metadata = sa.MetaData()

documents = sa.Table(
    "vendor_assets_budget",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
leases = sa.Table(
    "vendor_assets_leases",
    metadata,
    sa.Column("holder", sa.Text, primary_key=True),
    sa.Column("boot", sa.Text, nullable=False),
    sa.Column("renewed_at", sa.Double, nullable=False),
    sa.Column("ttl_seconds", sa.Double, nullable=False),
    sa.Column("renewals", sa.BigInteger, nullable=False),
    sa.Column("info", sa.Text, nullable=False),
)
backlog = sa.Table(
    "vendor_assets_backlog_samples",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("time", sa.Double, nullable=False, index=True),
    sa.Column("source", sa.Text, nullable=False),
    *(
        sa.Column(name, sa.BigInteger, nullable=False)
        for name in ("troops", "warriors", "data_groups", "dead", "calls", "calls_done")
    ),
)


class understanding:  # noqa: N801 - used as a function is, and made for each look at a document
    """For reading a document of an account, which a newer release may have written.

    Raises:
        BudgetError: It cannot be read.
    """

    def __init__(self, account: str) -> None:
        self._account = account

    def __enter__(self) -> None:
        """Begin to read."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ValueError | LookupError | TypeError | AttributeError):
            raise BudgetError(
                f"the budget of {self._account} cannot be read by this release of vendor_assets ({_short(error)}); a "
                "newer one has written it: update this one, or, after a downgrade, delete the account's rows from the "
                "table vendor_assets_budget"
            ) from error


class Snapshot(NamedTuple):
    """A document as it is.

    Attributes:
        version: Goes up by one with each change; None where there is no document yet.
        now: The database's clock at the moment of reading, in seconds.
        read_at: This machine's monotonic clock right after it.
    """

    version: int | None
    body: str
    now: float
    read_at: float


class Database:
    """One connection, shared by a process's threads; made when first used and again when lost.

    The clock of SQLite, which lives on one machine, is the machine's monotonic clock; PostgreSQL's is the
    server's. A SQLite file that was deleted or replaced is noticed before the next statement, and one that
    is corrupt is put aside under another name; either way a new one is made.

    Whatever reads or writes raises BudgetUnavailableError where the database cannot be reached, after all patience.

    Args:
        url: SQLAlchemy's: ``sqlite:////folder/file.db`` or ``postgresql://user:password@host/name``.

    Raises:
        ConfigurationError: The URL is none of these.
    """

    def __init__(
        self, url: str, clock: Clock | None = None, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.clock = clock or Clock()
        self._patience_seconds = patience_seconds
        self._url = _parse(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._path = Path(self._url.database or "").absolute() if self.is_sqlite else None
        self._log = Path(f"{self._path}-wal")
        self._file: tuple[object, object] = (None, None)
        self._connection: Connection | None = None
        self._cursor: Any = None
        self._asked: object = None
        self._ended = threading.Event()
        self._lock = threading.RLock()
        insert = sqlite.insert if self.is_sqlite else postgresql.insert
        self._insert = insert(documents).on_conflict_do_nothing()
        self.insert_lease = insert(leases)
        self._has_clock = not self.is_sqlite and not self.clock.simulated
        moment = [sa.text(_SERVER_CLOCK)] if self._has_clock else []
        dialect = self._url.get_dialect()
        self._driver = dialect.import_dbapi()
        select = sa.select(documents.c.version, documents.c.body, *moment).where(
            documents.c.account == sa.bindparam("a"), documents.c.part == sa.bindparam("p")
        )
        update = (
            sa.update(documents)
            .where(
                documents.c.account == sa.bindparam("a"),
                documents.c.part == sa.bindparam("p"),
                documents.c.version == sa.bindparam("old"),
            )
            .values(version=sa.bindparam("new"), body=sa.bindparam("b"))
        )
        # Each call needs some of these, so they go to the driver as they are.
        options = {"paramstyle": "named"} if self.is_sqlite else {}
        self._select, self._update = (
            str(statement.compile(dialect=dialect(**options))) for statement in (select, update)
        )
        self._suspect = False
        _open_databases.add(self)

    def __repr__(self) -> str:
        return f"Database({_place(self._url)})"

    @property
    def boot(self) -> str:
        """In which run of the clock the times are; constant for PostgreSQL."""
        return self.clock.boot() if self.is_sqlite else "server"

    def read(self, account: str, part: str, *, patience_seconds: float | None = None) -> Snapshot:
        """Read a document."""

        def statement(connection: Connection) -> Snapshot:
            self._cursor.execute(self._select, {"a": account, "p": part})
            row = next(iter(self._cursor.fetchall()), None)
            read_at = self.clock.monotonic()
            if row is None:
                return Snapshot(None, "", self.time(connection), self.clock.monotonic())
            return Snapshot(row[0], row[1], row[2] if self._has_clock else read_at, read_at)

        return self.run(statement, patience_seconds)

    def swap(self, account: str, part: str, version: int | None, body: str) -> bool:
        """Replace a document, unless somebody else has since it was read."""

        def statement(connection: Connection) -> bool:
            if version is None:
                values = {"account": account, "part": part, "version": 1, "body": body}
                return connection.execute(self._insert, values).rowcount == 1
            values = {"a": account, "p": part, "old": version, "new": version + 1, "b": body}
            self._cursor.execute(self._update, values)
            return bool(self._cursor.rowcount == 1)

        return self.run(statement)

    def change(self, account: str, part: str, step: Callable[[Snapshot], tuple[str | None, T]]) -> T:
        """Read, compute, swap; again until nobody came between.

        Args:
            step: From what was read to the new body and a result; a body of None changes nothing. It may
                be called several times and keeps no trace of calls but the last.
        """
        attempt = 0
        while True:
            snapshot = self.read(account, part)
            body, result = step(snapshot)
            if body is None or self.swap(account, part, snapshot.version, body):
                return result
            attempt += 1
            # Whoever lost tries again after a while that grows, or many would lose again and again.
            self.clock.sleep(random.uniform(0, min(0.0002 * 2**attempt, 0.02)))  # noqa: S311 - no secret

    def run(self, statement: Callable[[Connection], T], patience_seconds: float | None = None) -> T:
        """Run a statement; connect before, and again where the connection broke."""
        patience = self._patience_seconds if patience_seconds is None else patience_seconds
        until = self.clock.monotonic() + patience
        pause = 0.02
        said = False
        while True:
            try:
                with self._lock:
                    try:
                        connection = self._open()
                        self._asked = object()
                        return statement(connection)
                    finally:
                        self._asked = None
            except (SQLAlchemyError, self._driver.Error, OSError) as error:
                self.close()
                self._suspect = self.is_sqlite and _says(error, _BROKEN_FILE)
                if _hopeless(error) or self.clock.monotonic() + pause > until:
                    raise BudgetUnavailableError(self._explain(error)) from error
                if not said and pause > 0.5:
                    log.warning("the budget's database does not answer, trying again: %s", self._said(error))
                    said = True
            self.clock.sleep(pause)
            pause = min(pause * 2, 1.0)

    def time(self, connection: Connection) -> float:
        """The database's clock, asked over an open connection."""
        if not self._has_clock:
            return self.clock.monotonic()
        return float(connection.scalar(sa.text(f"select {_SERVER_CLOCK}")) or 0)

    def ahead_seconds(self, connection: Connection) -> float:
        """How far this machine's time of day is ahead of the database's; 0 if they agree to a second."""
        if not self._has_clock:
            return 0.0
        ahead = self.clock.wall() - _SERVER_ZERO - self.time(connection)
        return ahead if abs(ahead) > 1 else 0.0

    def close(self) -> None:
        """Close the connection; the next statement would open another."""
        with self._lock:
            connection, self._connection, self._cursor = self._connection, None, None
            self._ended.set()
            if connection is not None:
                with contextlib.suppress(SQLAlchemyError, OSError):
                    connection.invalidate()
                    connection.close()

    def abandon(self) -> None:
        """After a fork the connection belongs to the parent: it is neither used nor closed."""
        connection, self._connection = self._connection, None
        cursor, self._cursor = self._cursor, None
        self._asked, self._ended = None, threading.Event()
        self._lock = threading.RLock()
        if connection is not None:
            # Kept from being collected: collecting would close the parent's connection.
            _abandoned.append((connection, cursor))

    def _open(self) -> Connection:
        if self._path is None:
            return self._connection or self._use(self._connect())
        if self._connection is not None and (_identity(self._path), _identity(self._log)) == self._file:
            return self._connection
        if self._connection is not None:
            log.warning(
                "the budget's database %s was deleted or replaced; going on with a new one", self._path
            )
            self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(self._path):
            if not self._path.exists():
                _move_away(self._path, "")
            try:
                connection = self._connect_to_file(self._path)
                if self._suspect:
                    connection.exec_driver_sql("SELECT * FROM vendor_assets_budget").all()
                    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
                    if found != "ok":
                        connection.close()
                        raise _CorruptError(found)
            except (DBAPIError, _CorruptError) as error:
                if not (isinstance(error, _CorruptError) or _says(error, _BROKEN_FILE)):
                    raise
                aside = f".corrupt-{int(self.clock.wall())}"
                log.error(  # noqa: TRY400 - the exception adds nothing to what is said
                    "the budget's database %s is corrupt; it is kept as *%s and a new one is made",
                    self._path,
                    aside,
                )
                _move_away(self._path, aside)
                connection = self._connect_to_file(self._path)
            self._suspect = False
        return self._use(connection)

    def _connect_to_file(self, path: Path) -> Connection:
        """Connect to SQLite's file, and note which file and which log it is.

        SQLite opens the log by its name, and whoever closes a file last deletes it by its name: where the folder was
        moved or covered meanwhile, that may be another file's.
        """
        if not path.exists():
            path.touch(0o644)
        before = _identity(path)
        connection = self._connect()
        self._file = _identity(path), _identity(self._log)
        if self._file[0] != before:
            connection.close()
            raise OSError("it was replaced while it was opened")
        return connection

    def _use(self, connection: Connection) -> Connection:
        self._cursor = connection.connection.cursor()
        self._connection = connection
        return connection

    def _connect(self) -> Connection:
        options = (
            {"timeout": _BUSY_SECONDS, "check_same_thread": False}
            if self.is_sqlite
            else {name: value for name, value in _CONNECTION.items() if name not in self._url.query}
        )
        engine = sa.create_engine(
            self._url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=options
        )
        if not self.is_sqlite:
            self._asked, self._ended = object(), threading.Event()
            watch = functools.partial(_watch, weakref.ref(self), self._ended)
            # Before SQLAlchemy's own, which asks the server already.
            sa.event.listen(engine, "connect", watch, insert=True)
        connection = engine.connect()
        try:
            if self.is_sqlite:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
            else:
                # A crash of the server may lose the last half second, during which nobody is served.
                connection.exec_driver_sql("SET synchronous_commit = off")
                connection.exec_driver_sql("SET statement_timeout = '10s'")
            for attempt in range(5):
                self._asked = object()
                try:
                    metadata.create_all(connection)
                    break
                except SQLAlchemyError:
                    # Two processes that create a table at once: one of them is told it exists.
                    if attempt == 4 or connection.invalidated:
                        raise
        except BaseException:
            connection.close()
            raise
        return connection

    def _explain(self, error: Exception) -> str:
        where = _place(self._url)
        said = self._said(error)
        usual = "see that its folder exists and can be written" if self.is_sqlite else "see that it runs"
        todo = next((advice for words, advice in _ADVICE.items() if words in said), usual)
        return f"the budget's database {where} cannot be used ({said}); {todo}, or set VENDOR_ASSETS_DB"

    def _said(self, error: Exception) -> str:
        """What an error says, without what of the address is a secret."""
        text = _short(error)
        for secret in (self._url.password, *self._url.query.values()):
            if isinstance(secret, str) and len(secret) > 2:
                text = text.replace(secret, "***")
        return text


_abandoned: list[tuple[Connection, object]] = []


def _watch(watched: weakref.ref[Database], ended: threading.Event, connection: Any, _record: object) -> None:
    """Start to watch a new connection; its socket is duplicated, since a closed one's number may be another's soon."""
    own = socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)
    threading.Thread(
        target=_end_silence, args=(watched, ended, own), name="budget database", daemon=True
    ).start()


def _end_silence(watched: weakref.ref[Database], ended: threading.Event, connection: socket.socket) -> None:
    """Shut down a connection that does not answer: libpq itself would wait for ever."""
    asked, looks = None, 0
    with connection:
        # Looks are counted, and no time, in which this process may have been stopped itself.
        while looks < 10 and not ended.wait(_SILENT_SECONDS / 10):
            database = watched()
            if database is None:
                return
            looks = looks + 1 if database._asked is asked is not None else 0
            asked = database._asked
            del database
        if not ended.is_set():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _CorruptError(Exception):
    """SQLite's own check found something."""


def _parse(text: str) -> URL:
    try:
        url = sa.make_url(text)
        backend = url.get_backend_name()
    except (SQLAlchemyError, ValueError) as error:
        raise ConfigurationError(_not_a_url("(not shown, as it may hold a password)")) from error
    if backend == "sqlite" and url.database and url.database != ":memory:":
        return url
    if backend in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg2")
        try:
            url.get_dialect().import_dbapi()
        except (ImportError, NoSuchModuleError) as error:
            message = "PostgreSQL as the budget's database needs psycopg2: pip install psycopg2-binary"
            raise ConfigurationError(message) from error
        return url
    raise ConfigurationError(_not_a_url(_place(url)))


def check_database(url: str) -> None:
    """Whether an address is a database's that can be used, without opening it.

    Raises:
        ConfigurationError: It is not; no password is in the message.
    """
    _parse(url)


def database_place(url: str) -> str:
    """A database's address for people, without what may be a secret: user, password and options."""
    return _place(_parse(url))


def _place(url: URL) -> str:
    backend = url.get_backend_name()
    return sa.URL.create(backend, host=url.host, port=url.port, database=url.database).render_as_string()


def _not_a_url(shown: str) -> str:
    return (
        f"the budget's database {shown} is not understood; "
        "accepted are sqlite:////folder/file.db and postgresql://user:password@host/name"
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - called for each statement, and half as dear as Path.stat
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _move_away(path: Path, suffix: str) -> None:
    """Rename the file and what SQLite keeps beside it; without a suffix, remove what is beside it."""
    for ending in ("-wal", "-shm", ""):
        found = path.with_name(path.name + ending)
        with contextlib.suppress(FileNotFoundError):
            if suffix:
                found.rename(found.with_name(found.name + suffix))
            elif ending:
                found.unlink()


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Only one process at a time opens or repairs the file."""
    if sys.platform == "win32":
        yield
        return
    with path.with_name(path.name + ".lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _hopeless(error: Exception) -> bool:
    """Whether trying again soon cannot help."""
    text = str(error)
    return (
        isinstance(error, PermissionError | NotADirectoryError | FileExistsError)
        # A folder that cannot be made, though the one above is there; one that was deleted just now can be.
        or (isinstance(error, FileNotFoundError) and Path(error.filename).parent.exists())
        or _says(error, _HOPELESS)
        or ('database "' in text and "does not exist" in text)
    )


def _says(error: Exception, texts: tuple[str, ...]) -> bool:
    return any(text in str(error) for text in texts)


def _short(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(cause).split())[:300]


_open_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _after_fork() -> None:
    for database in list(_open_databases):
        database.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
