"""A message to people: one POST of JSON to an address that is itself a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import requests

from vendor_assets.client.network import Network
from vendor_assets.errors import MessageError

TIMEOUT_SECONDS: Final = 10.0


def post(
    url: str,
    document: Mapping[str, Any],
    *,
    network: Network | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Send a document.

    Args:
        url: Where to; whoever knows it may write there, so it appears in no message.
        document: Becomes JSON.
        network: The way there.
        timeout_seconds: For the connection, and for each part of the answer.

    Raises:
        MessageError: It did not arrive; says why, and never where to.
    """
    session = requests.Session()
    # A netrc of the machine has no business with it.
    session.trust_env = False
    if network is not None and (proxy := network.proxy.read()):
        address = proxy if "://" in proxy else f"http://{proxy}"
        session.proxies = {"http": address, "https": address}
    if network is not None and network.ca_bundle:
        session.verify = network.ca_bundle
    try:
        answer = session.post(
            url, json=dict(document), timeout=timeout_seconds, allow_redirects=False, stream=True
        )
        status = answer.status_code
        answer.close()
    except (requests.RequestException, OSError) as error:
        # Its text and its cause name the address.
        raise MessageError(
            f"the alert's webhook did not answer ({type(error).__name__}); is VENDOR_ASSETS_ALERT_URL right?"
        ) from None
    finally:
        session.close()
    if not 200 <= status < 300:
        raise MessageError(f"the alert's webhook answered {status}; is VENDOR_ASSETS_ALERT_URL right?")
