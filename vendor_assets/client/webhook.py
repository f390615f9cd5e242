"""A message to people: one POST of JSON to a URL that is itself a secret."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import Any, Final

import requests

from vendor_assets.client.network import Network
from vendor_assets.errors import MessageError

TIMEOUT_SECONDS: Final = 10.0
"""For the connection, and for each part of the response."""
WHOLE_SECONDS: Final = 30.0

_sending = threading.Lock()


def post(
    url: str,
    document: Mapping[str, Any],
    *,
    network: Network,
    whole_seconds: float = WHOLE_SECONDS,
) -> None:
    """Send a document; redirects are not followed, and only the head of the response is read.

    Args:
        url: Whoever knows it may write there, so it appears in no message.
        whole_seconds: For all of it, however slowly a server sends.

    Raises:
        MessageError: It did not arrive; says why, and never where to.
    """
    if not _sending.acquire(blocking=False):
        raise MessageError("the alert's webhook has not finished answering the last message; this one waits")
    results: queue.SimpleQueue[int | str] = queue.SimpleQueue()

    def send() -> None:
        try:
            results.put(_status(url, document, network))
        except Exception as error:  # noqa: BLE001  whatever a URL or a response causes; its text names the URL
            results.put(type(error).__name__)
        finally:
            _sending.release()

    # A server may keep a socket busy for ever; only this thread waits for it, and there is no second one.
    threading.Thread(target=send, name="webhook", daemon=True).start()
    try:
        result = results.get(timeout=whole_seconds)
    except queue.Empty:
        result = f"nothing whole within {whole_seconds:g} s"
    right = "is VENDOR_ASSETS_ALERT_URL right?"
    if isinstance(result, str):
        raise MessageError(f"the alert's webhook did not answer ({result}); {right}")
    if not 200 <= result < 300:
        raise MessageError(f"the alert's webhook answered {result}; {right}")


def _status(url: str, document: Mapping[str, Any], network: Network) -> int:
    with requests.Session() as session:
        # Neither the machine's proxy variables nor its netrc.
        session.trust_env = False
        if proxy := network.proxy.read():
            address = proxy if "://" in proxy else f"http://{proxy}"
            session.proxies = {"http": address, "https": address}
        if network.ca_bundle:
            session.verify = network.ca_bundle
        with session.post(
            url, json=dict(document), timeout=TIMEOUT_SECONDS, allow_redirects=False, stream=True
        ) as response:
            return int(response.status_code)
