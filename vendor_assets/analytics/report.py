"""The report of a day: the notebook, executed in a kernel of this interpreter, and its HTML.

papermill executes the notebook; nbconvert makes one self-contained HTML file without scripts.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import vendor_assets
from vendor_assets import errors
from vendor_assets.analytics.warehouse import Warehouse
from vendor_assets.days import parse_time_zone
from vendor_assets.errors import ObjectNotFoundError, VendorAssetsError
from vendor_assets.logs import get_logger
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.temporary import temporary_folder

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from papermill import PapermillExecutionError

logger = get_logger(__name__)

NOTEBOOK: Final = "performance_report.ipynb"
CELL_SECONDS: Final = 600
"""Timeout of a cell; the largest known day takes a minute."""
START_SECONDS: Final = 60
"""Timeout of the kernel's start."""

_LONGEST_SOCKET_FOLDER: Final = 80
"""Characters; the path of a socket may have 107, on some systems 103."""
_KERNEL_VARIABLES: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_", "TZ", "TMPDIR", "XDG_", "LD_LIBRARY_PATH"),
    *("PYTHON", "VIRTUAL_ENV", "JUPYTER", "MPL", "OPENBLAS", "OMP_", "MKL_"),
)
"""Prefixes of environment variables that a Python process with plots may need."""
_S3_VARIABLES: Final = (
    *("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_LOG: Final = "kernel.log"
_HIDDEN: Final = frozenset({"about", "summary"})
"""Tags of cells that are not in the HTML."""


@dataclass(frozen=True)
class Report:
    """A day's report: the executed notebook, and the same as one HTML file without code.

    Attributes:
        headline_png: The plot of the incident, or of the day's latency if there is none.
        summary: See ``DayView.summary``.
    """

    notebook: bytes
    html: bytes
    headline_png: bytes
    summary: Mapping[str, str | int | float]


def render_report(store: ObjectStore, day: date, timezone: str = "UTC", *, sources: str = "") -> Report:
    """Execute the report notebook for a day and convert it to HTML.

    The kernel is always this interpreter; see :func:`kernel_environment` for what it inherits.

    Args:
        store: The store of the day's tables, which the kernel opens by its URL.
        timezone: Time zone of days, an IANA name.
        sources: What it is made of, kept in the page; see :mod:`vendor_assets.analytics.sources`.

    Raises:
        ObjectNotFoundError: The day's ``daily_performance`` does not exist.
        ConfigurationError: The time zone is unknown.
        VendorAssetsError: A cell failed; an error of ours keeps its type.
    """
    import nbformat  # noqa: PLC0415

    parse_time_zone(timezone)
    if not Warehouse(store).partitions("daily_performance", day):
        message = f"daily_performance of {day} is not in {store.url}; materialize it first"
        raise ObjectNotFoundError(message)
    executed = _execute({"day": day.isoformat(), "store": store.url, "timezone": timezone})
    html = _html(executed, title=f"Performance of {day.isoformat()}", sources=sources)
    return _report(executed, nbformat.writes(executed).encode(), html.encode())


def read_report(store: ObjectStore, day: date) -> Report:
    """Read a stored report.

    Raises:
        ObjectNotFoundError: It does not exist.
        VendorAssetsError: The notebook is not one of ours.
    """
    import nbformat  # noqa: PLC0415

    html = store.get(layout.report_key(day, "html"))
    notebook = store.get(layout.report_key(day, "ipynb"))
    try:
        executed = nbformat.reads(notebook.decode(), as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        said = " ".join(str(error).split())[:200]
        raise VendorAssetsError(
            f"the report of {day} cannot be read ({said}); materialize it again"
        ) from error
    return _report(executed, notebook, html)


def _report(executed: NotebookNode, notebook: bytes, html: bytes) -> Report:
    summary = _output(executed, "summary", "application/json")
    shown = "incident" if summary["incidents"] else "latency"
    png = base64.b64decode(_output(executed, shown, "image/png"))
    return Report(notebook=notebook, html=html, headline_png=png, summary=dict(summary))


def _execute(parameters: Mapping[str, str]) -> NotebookNode:
    # These take a second to import, and only reports need them.
    import nbformat  # noqa: PLC0415
    import papermill  # noqa: PLC0415
    from nbclient.exceptions import CellTimeoutError, DeadKernelError  # noqa: PLC0415

    what = f"the report of {parameters['day']}"
    source = resources.files("vendor_assets.notebooks").joinpath(NOTEBOOK).read_text(encoding="utf-8")
    with temporary_folder() as folder:
        try:
            executed: NotebookNode = papermill.execute_notebook(
                nbformat.reads(source, as_version=4),
                None,
                parameters=dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                start_timeout=START_SECONDS,
                execution_timeout=CELL_SECONDS,
                kernel_manager_class=_kernel_manager(folder, parameters["store"]),
                # Ignore the user's IPython start-up files and history.
                extra_arguments=[f"--IPKernelApp.ipython_dir={folder}"],
            )
            return executed
        except papermill.PapermillExecutionError as error:
            raise _failure(what, error) from error
        except CellTimeoutError as error:
            message = f"{what}: a cell took longer than {CELL_SECONDS} s; is this machine overloaded?"
            raise VendorAssetsError(message) from error
        except (DeadKernelError, RuntimeError) as error:
            said = _last_words(folder) or str(error)
            message = f"{what}: its Python process died or did not start ({said}); is there enough memory?"
            raise VendorAssetsError(message) from error


def _failure(what: str, error: PapermillExecutionError) -> VendorAssetsError:
    """The error of a failed cell; an error of ours keeps its type, so that it is retried or not as usual."""
    said = " ".join(str(error.evalue).split())[:1000]
    kind = vars(errors).get(error.ename)
    if isinstance(kind, type) and issubclass(kind, VendorAssetsError):
        return kind(f"{what}: {said}")
    return VendorAssetsError(f"{what} failed in cell {error.exec_count}: {error.ename}: {said}")


def kernel_environment(environ: Mapping[str, str], store: str) -> dict[str, str]:
    """The environment of a report's kernel, without API keys, alert addresses and database passwords.

    AWS credentials, proxies and certificates are only kept for a store on S3.
    """
    kept = (*_KERNEL_VARIABLES, *_S3_VARIABLES) if store.startswith("s3://") else _KERNEL_VARIABLES
    return {name: text for name, text in environ.items() if name.upper().startswith(kept)}


def _last_words(folder: Path) -> str:
    lines = (folder / _LOG).read_text(errors="replace").split("\n") if (folder / _LOG).exists() else []
    return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "")


def _kernel_manager(folder: Path, store: str) -> type[Any]:
    """A kernel manager that starts this interpreter with its files in a folder."""
    from jupyter_client.kernelspec import KernelSpecManager  # noqa: PLC0415
    from jupyter_client.manager import AsyncKernelManager  # noqa: PLC0415

    # The kernel's working directory, so that it can import a checkout that is not installed.
    root = Path(vendor_assets.__file__).absolute().parent.parent
    environment = kernel_environment(os.environ, store)  # noqa: TID251 - so that less of it is handed on

    class OwnInterpreter(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            # No folders, because an installed kernel named python3 may be another Python.
            specs = KernelSpecManager(kernel_dirs=[])
            # Sockets in our private folder, if its path is short enough.
            transport = "ipc" if len(str(folder)) < _LONGEST_SOCKET_FOLDER else "tcp"
            super().__init__(
                kernel_spec_manager=specs,
                connection_file=str(folder / "kernel.json"),
                transport=transport,
                **options,
            )

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            # Output outside of cells, for _last_words if the kernel dies.
            with (folder / _LOG).open("wb") as log:
                own = {"cwd": str(root), "stderr": log, "env": environment}
                await self._async_start_kernel(**(own | options))

    return OwnInterpreter


def _html(executed: NotebookNode, *, title: str, sources: str) -> str:
    from nbconvert import HTMLExporter  # noqa: PLC0415
    from traitlets.config import Config  # noqa: PLC0415

    from vendor_assets.analytics.templates import template  # noqa: PLC0415

    settings = Config()
    settings.TagRemovePreprocessor.enabled = True
    settings.TagRemovePreprocessor.remove_cell_tags = set(_HIDDEN)
    exporter = HTMLExporter(
        config=settings,
        # The other templates load scripts from the network.
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_notebook_node(executed)
    return template("report.html").render(
        title=title, body=body, version=vendor_assets.__version__, sources=sources
    )


def _output(executed: NotebookNode, tag: str, kind: str) -> Any:
    for cell in executed.cells:
        if tag in cell.metadata.get("tags", ()):
            for output in cell.get("outputs", ()):
                if kind in output.get("data", {}):
                    return output["data"][kind]
    message = f"the report's notebook has no cell tagged {tag} that gives {kind}; was it changed?"
    raise VendorAssetsError(message)
