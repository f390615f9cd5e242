"""What a deployment was given for its vendor arrives there, by way of Dagster's resource."""

from __future__ import annotations

from pathlib import Path

import pytest

from vendor_assets.orchestration.definitions import build_resources
from vendor_assets.settings import read
from vendor_assets.vendors.base import Keys
from vendor_assets_tests.support.recorder import recorder
from vendor_assets_tests.support.toy import ToyVendor

GIVEN = {
    "VENDOR_API_KEY": "the-first-key", "VENDOR_APPLICATION_KEY": "the-second-key",
    "VENDOR_USER": "client", "VENDOR_PASSWORD": "the-password",
}  # fmt: skip


class Asking(ToyVendor):
    """Wants everything, and sends it as it is."""

    needs_api_key = needs_application_key = needs_login = True

    def auth(self, keys: Keys) -> dict[str, str]:
        return {
            "DD-API-KEY": keys.api_key, "DD-APPLICATION-KEY": keys.application_key,
            "X-Login": f"{keys.user}:{keys.password}",
        }  # fmt: skip


@pytest.mark.parametrize("in_files", [False, True])
def test_a_vendor_gets_both_keys_and_the_login(
    in_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From variables, to which Dagster's resource refers, or from files; the resource itself shows none of them."""
    monkeypatch.setattr("vendor_assets.vendors.load", lambda kind: Asking)
    environ = {"VENDOR_KIND": "toy", "VENDOR_RATE": "500/s"}
    for name, text in GIVEN.items():
        if in_files and name != "VENDOR_USER":
            (tmp_path / name).write_text(text)
            environ[f"{name}_FILE"] = str(tmp_path / name)
        else:
            environ[name] = text
            monkeypatch.setenv(name, text)
    with recorder() as server:
        account = read(environ | {"VENDOR_URL": server.url}, root=tmp_path)
        vendor_api = build_resources(account)["vendor_api"]
        assert "the-" not in repr(vendor_api)
        with vendor_api.client() as client:
            client.fetch(account.vendor.probe())
    (only,) = server.received
    assert only.headers["dd-api-key"] == "the-first-key"
    assert only.headers["dd-application-key"] == "the-second-key"
    assert only.headers["x-login"] == "client:the-password"
    assert "authorization" not in only.headers
