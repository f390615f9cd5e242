"""A message to people: one POST of JSON to an address that is itself a secret."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import Any, Final

import requests

from vendor_assets.client.network import Network
from vendor_assets.errors import MessageError

TIMEOUT_SECONDS: Final = 10.0
WHOLE_SECONDS: Final = 30.0
"""How long a message may take in all, whatever a server sends drop by drop."""

_sending = threading.Lock()


def post(
    url: str,
    document: Mapping[str, Any],
    *,
    network: Network | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    whole_seconds: float = WHOLE_SECONDS,
) -> None:
    """Send a document; redirects are not followed, and nothing of an answer is read but its head.

    Args:
        url: Where to; whoever knows it may write there, so it appears in no message.
        document: Becomes JSON.
        network: The way there.
        timeout_seconds: For the connection, and for each part of the answer.
        whole_seconds: For all of it.

    Raises:
        MessageError: It did not arrive; says why, and never where to.
    """
    if not _sending.acquire(blocking=False):
        raise MessageError("the alert's webhook has not finished answering the last message; this one waits")
    came: queue.SimpleQueue[int | str] = queue.SimpleQueue()

    def send() -> None:
        try:
            came.put(_status(url, document, network, timeout_seconds))
        except Exception as error:  # noqa: BLE001  whatever an address or an answer brings about; its text names the address
            came.put(type(error).__name__)
        finally:
            _sending.release()

    # A server may keep a socket busy for ever; nobody but this thread waits for it, and no second one does.
    threading.Thread(target=send, name="webhook", daemon=True).start()
    try:
        found = came.get(timeout=whole_seconds)
    except queue.Empty:
        found = f"nothing whole within {whole_seconds:g} s"
    right = "is VENDOR_ASSETS_ALERT_URL right?"
    if isinstance(found, str):
        raise MessageError(f"the alert's webhook did not answer ({found}); {right}")
    if not 200 <= found < 300:
        raise MessageError(f"the alert's webhook answered {found}; {right}")


def _status(url: str, document: Mapping[str, Any], network: Network | None, timeout_seconds: float) -> int:
    with requests.Session() as session:
        # A netrc of the machine has no business with it.
        session.trust_env = False
        if network is not None and (proxy := network.proxy.read()):
            address = proxy if "://" in proxy else f"http://{proxy}"
            session.proxies = {"http": address, "https": address}
        if network is not None and network.ca_bundle:
            session.verify = network.ca_bundle
        with session.post(
            url, json=dict(document), timeout=timeout_seconds, allow_redirects=False, stream=True
        ) as answer:
            return int(answer.status_code)
