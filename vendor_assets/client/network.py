"""The way to a host: through which proxy, trusting which certificates, with which certificate of one's own. Pure.

The machine's own variables are honoured as other programs honour them: ``HTTPS_PROXY``, ``HTTP_PROXY`` and
``NO_PROXY`` (in either case), ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE``, ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``; a
netrc is not. A call to this machine itself never takes a proxy that the environment names.
"""

from __future__ import annotations

import ipaddress
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import certifi

from vendor_assets.errors import ConfigurationError
from vendor_assets.secret import Secret

CA_NAMES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where the environment may name the certificates to trust, the first one set counts."""

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1", "[::1]")


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        host: Its name or address.
        port: Where it listens.
        authorization: What it wants in ``Proxy-Authorization``; a secret; empty for none.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, name: str) -> Proxy:
        """Read ``http://user:password@host:port``, in which only the host must be there.

        Args:
            text: It is in no message, since it may hold a password.
            name: Of the setting.

        Raises:
            ConfigurationError: It is none of these.
        """
        accepted = (
            "give one like http://proxy.example.com:3128 or http://user:password@proxy.example.com:3128"
        )
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname or "", parts.port
            host.encode("idna")
        except ValueError as error:  # UnicodeError among them
            raise ConfigurationError(f"{name} is not the address of a proxy; {accepted}") from error
        if parts.scheme != "http":
            known = parts.scheme in ("https", "socks4", "socks4a", "socks5", "socks5h")
            kind = f"a proxy of kind {parts.scheme}" if known else "not the address of a proxy"
            raise ConfigurationError(f"{name} names {kind}; only HTTP proxies can be used: {accepted}")
        bad = not host or any(not "!" <= character <= "~" for character in host)
        if bad or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ConfigurationError(f"{name} is not the address of a proxy; {accepted}")
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        basic = f"Basic {b64encode(login.encode()).decode()}" if login != ":" else ""
        return cls(host, 80 if port is None else port, basic)


@dataclass(frozen=True)
class Network:
    """How the vendor is reached.

    Attributes:
        proxy: The proxy's address, of the setting that its name says; not set for none.
        ca_bundle: Path of the certificates to trust, a file or a folder; empty for those of certifi.
        ca_name: Which setting or variable says so.
        client_cert: Path of our own certificate, which the vendor asks for; empty for none.
        client_key: Path of its key; empty where the certificate's file holds it too.
    """

    proxy: Secret = field(default_factory=lambda: Secret("VENDOR_PROXY"))
    ca_bundle: str = ""
    ca_name: str = "VENDOR_CA_BUNDLE"
    client_cert: str = ""
    client_key: str = ""

    def way(self) -> Proxy | None:
        """The proxy to use now; None for none.

        Raises:
            ConfigurationError: Its address is none.
        """
        text = self.proxy.read()
        return Proxy.parse(text, self.proxy.name) if text else None

    def __str__(self) -> str:
        """The way for people: no password, no user of the proxy."""
        said = []
        if (proxy := self.way()) is not None:
            said.append(f"through the proxy {proxy.host}:{proxy.port} ({self.proxy.name})")
        if self.ca_bundle:
            said.append(f"trusting {self.ca_bundle} ({self.ca_name})")
        if self.client_cert:
            said.append(f"showing the certificate {self.client_cert}")
        return ", ".join(said) or "straight, trusting the public certificates"

    def tls(self) -> ssl.SSLContext:
        """What is trusted, and who we are.

        Raises:
            ConfigurationError: A certificate or a key cannot be used.
        """
        for path in filter(None, (self.client_cert, self.client_key)):
            try:
                Path(path).read_bytes()
            except (OSError, ValueError) as error:
                raise self._not_ours(error) from error
        context = self._trusting()
        context.set_alpn_protocols(["http/1.1"])
        if self.client_cert:
            try:
                context.load_cert_chain(self.client_cert, self.client_key or None, password=_no_passphrase)
            except (OSError, ValueError) as error:
                raise self._not_ours(error) from error
        return context

    def _trusting(self) -> ssl.SSLContext:
        path = Path(self.ca_bundle or certifi.where())
        try:
            if not path.is_dir():
                return ssl.create_default_context(cafile=path)
            files = [entry.read_bytes() for entry in sorted(path.iterdir()) if entry.is_file()]
            found = [
                data.decode("ascii", "replace") for data in files if b"-----BEGIN CERTIFICATE-----" in data
            ]
            if not found:
                raise ValueError("no file in it holds a certificate")
            return ssl.create_default_context(cadata="\n".join(found))
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{self.ca_name}={str(path)!r} cannot be used ({_reason(error)}); give a file of certificates in PEM "
                "form, or a folder of such files"
            ) from error

    def _not_ours(self, error: Exception) -> ConfigurationError:
        name = f"VENDOR_CLIENT_CERT={self.client_cert!r}"
        if self.client_key:
            name += f" with VENDOR_CLIENT_KEY={self.client_key!r}"
        return ConfigurationError(
            f"{name} cannot be used ({_reason(error)}); give a certificate and the key that belongs to it as files in "
            "PEM form, the key without a passphrase"
        )


def _no_passphrase() -> str:
    # Without this, OpenSSL would ask on the terminal.
    raise ValueError("the key needs a passphrase")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "not in PEM form").replace("_", " ").lower()
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return " ".join(str(error).split())[:200]


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine itself."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def proxy_named_by(environ: Mapping[str, str], url: str) -> str:
    """The variable that names the proxy for an address; empty where the environment wants none for it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if is_loopback(host) or _without_proxy(environ, host, port):
        return ""
    names = (f"{parts.scheme.lower()}_proxy", f"{parts.scheme.upper()}_PROXY")
    return next((name for name in names if environ.get(name, "").strip()), "")


def _without_proxy(environ: Mapping[str, str], host: str, port: int | None) -> bool:
    """Whether ``NO_PROXY`` names a host: by its name, a domain above it, its address or its network; or all with *."""
    text = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    host = host.strip("[]").rstrip(".").lower()
    for written in text.lower().replace(",", " ").split():
        name, _, number = written.rpartition(":")
        entry = name.strip("[]") if name and number == str(port) else written.strip("[]")
        if entry in ("*", host):
            return True
        suffix = entry.removeprefix("*").removeprefix(".")
        if suffix and (host == suffix or host.endswith(f".{suffix}")):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


def certificates_named_by(environ: Mapping[str, str], first: str) -> tuple[str, str]:
    """The variable that names the certificates to trust, and what it says; empty texts where none does."""
    for name in (first, *CA_NAMES):
        if text := environ.get(name, "").strip():
            return name, text
    return "", ""


def completed(environ: Mapping[str, str]) -> dict[str, str]:
    """What to add to an environment, so that libraries which read it themselves keep to the same rules.

    Dagster, gRPC and boto3 take a proxy for calls to this machine too, unless ``NO_PROXY`` names it, and boto3 does
    not know every variable that names certificates.
    """
    added = {}
    proxies = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    if any(environ.get(name) or environ.get(name.upper()) for name in proxies):
        present = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        known = present.replace(",", " ").split()
        hosts = [*_LOOPBACK]
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            endpoint = environ.get(name, "")
            if endpoint and not proxy_named_by({**environ, "http_proxy": "x", "https_proxy": "x"}, endpoint):
                hosts.append(urlsplit(endpoint).hostname or "")
        wanted = [host for host in hosts if host and host not in known] if "*" not in known else []
        if wanted or environ.get("no_proxy") != environ.get("NO_PROXY"):
            added["no_proxy"] = added["NO_PROXY"] = ",".join([*known, *wanted])
    name, path = certificates_named_by(environ, "AWS_CA_BUNDLE")
    if name and name not in ("AWS_CA_BUNDLE", "SSL_CERT_DIR"):
        added["AWS_CA_BUNDLE"] = path
    return added
