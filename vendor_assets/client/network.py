"""How a host is reached: proxy, trusted certificates, client certificate.

The usual environment variables count: ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` (in either case),
``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE``, ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``; a netrc does not. Calls to loopback
addresses never take a proxy that the environment names.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import certifi

from vendor_assets.errors import ConfigurationError
from vendor_assets.secret import Secret

_CA_NAMES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1", "[::1]")


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, name: str) -> Proxy:
        """Read ``http://user:password@host:port``, of which only the host is required.

        Args:
            text: It appears in no message, since it may hold a password.

        Raises:
            ConfigurationError: It is no such address.
        """
        example = "give one like http://proxy.example.com:3128 or http://user:password@proxy.example.com:3128"
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname or "", parts.port
            host.encode("idna")
        except ValueError as error:  # UnicodeError among them
            raise ConfigurationError(f"{name} is not the address of a proxy; {example}") from error
        if parts.scheme != "http":
            known = parts.scheme in ("https", "socks4", "socks4a", "socks5", "socks5h")
            kind = f"a proxy of kind {parts.scheme}" if known else "not the address of a proxy"
            raise ConfigurationError(f"{name} names {kind}; only HTTP proxies can be used: {example}")
        bad = not host or any(not "!" <= character <= "~" for character in host)
        if bad or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ConfigurationError(f"{name} is not the address of a proxy; {example}")
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        basic = f"Basic {b64encode(login.encode()).decode()}" if login != ":" else ""
        return cls(host, 80 if port is None else port, basic)

    def __str__(self) -> str:
        return f"the proxy {self.host}:{self.port}"


@dataclass(frozen=True)
class Network:
    """How the vendor is reached.

    Attributes:
        proxy: The proxy's address; its name is the setting's or the variable's; not set for none.
        ca_bundle: Path of the certificates to trust, a file or a folder; empty for certifi's.
        client_key: Path of its key; empty if the certificate's file holds it.
    """

    proxy: Secret = field(default_factory=lambda: Secret("VENDOR_PROXY"))
    ca_bundle: str = ""
    ca_name: str = "VENDOR_CA_BUNDLE"
    client_cert: str = ""
    client_key: str = ""

    def current_proxy(self) -> Proxy | None:
        """The proxy to use now.

        Raises:
            ConfigurationError: Its address is invalid.
        """
        text = self.proxy.read()
        return Proxy.parse(text, self.proxy.name) if text else None

    def __str__(self) -> str:
        """A description without the proxy's user and password."""
        said = []
        if proxy := self.current_proxy():
            said.append(f"through {proxy} ({self.proxy.name})")
        if self.ca_bundle:
            said.append(f"trusting {self.ca_bundle} ({self.ca_name})")
        if self.client_cert:
            said.append(f"showing the certificate {self.client_cert}")
        return ", ".join(said) or "directly, trusting the public certificates"

    def tls(self) -> ssl.SSLContext:
        """The TLS context: trusted certificates and our own.

        Raises:
            ConfigurationError: A certificate or a key cannot be used.
        """
        context = self._trusting()
        context.set_alpn_protocols(["http/1.1"])
        try:
            # OpenSSL does not say which file is missing or not permitted.
            for path in filter(None, (self.client_cert, self.client_key)):
                Path(path).read_bytes()
            if self.client_cert:
                context.load_cert_chain(self.client_cert, self.client_key or None, password=_no_passphrase)
        except (OSError, ValueError) as error:
            name = f"VENDOR_CLIENT_CERT={self.client_cert!r}"
            if self.client_key:
                name += f" with VENDOR_CLIENT_KEY={self.client_key!r}"
            raise ConfigurationError(
                f"{name} cannot be used ({_reason(error)}); give a certificate and the key that belongs to it as files "
                "in PEM form, the key without a passphrase"
            ) from error
        return context

    def _trusting(self) -> ssl.SSLContext:
        path = Path(self.ca_bundle or certifi.where())
        try:
            if not path.is_dir():
                return ssl.create_default_context(cafile=path)
            files = [entry.read_bytes() for entry in sorted(path.iterdir()) if entry.is_file()]
            found = [data for data in files if b"-----BEGIN CERTIFICATE-----" in data]
            if not found:
                raise ValueError("no file in it holds a certificate")
            return ssl.create_default_context(cadata=b"\n".join(found).decode("ascii", "replace"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{self.ca_name}={str(path)!r} cannot be used ({_reason(error)}); give a file of certificates in PEM "
                "form, or a folder of such files"
            ) from error


def _no_passphrase() -> str:
    # Else OpenSSL would ask on the terminal.
    raise ValueError("the key needs a passphrase")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "not in PEM form").replace("_", " ").lower()
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return " ".join(str(error).split())[:200]


def check_url(url: str) -> str:
    """The vendor's URL without the slash at its end, if it has scheme, host and path only.

    Raises:
        ConfigurationError: It has not; the message holds nothing that may be a secret.
    """
    # What comes before an @, after a ? or after a # may be one.
    shown = "" if re.search("[@?#]", url) else f"={url!r}"
    refused = f"VENDOR_URL{shown} is not an address; give one like https://api.newrelic.com"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            ipaddress.IPv6Address(host.partition("%")[0])
        else:
            host.encode("idna")
    except ValueError as error:  # UnicodeError among them
        raise ConfigurationError(refused) from error
    odd = any(not character.isprintable() or character in ' \\^|`{}<>"' for character in url)
    if odd or not host or parts.scheme not in ("http", "https") or parts.netloc.endswith(":") or port == 0:
        raise ConfigurationError(refused)
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ConfigurationError(
            f"VENDOR_URL ({parts.scheme}://…{host[:100]}) has credentials, a query or a fragment; give scheme, host "
            "and path only, and what the vendor wants as VENDOR_API_KEY, VENDOR_USER or VENDOR_HEADERS"
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is a loopback one."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def proxy_named_by(environ: Mapping[str, str], url: str) -> str:
    """The variable that names the proxy for a URL; empty for none."""
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
    """Whether ``NO_PROXY`` names a host: its name, a domain above it, its address, its network, or ``*``."""
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
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
    return False


def certificates_named_by(environ: Mapping[str, str], first: str) -> tuple[str, str]:
    """The first variable set that names the certificates to trust, and its value; empty texts for none."""
    for name in (first, *_CA_NAMES):
        if text := environ.get(name, "").strip():
            return name, text
    return "", ""


def variables_for_libraries(environ: Mapping[str, str]) -> dict[str, str]:
    """What to add to an environment so that Dagster, gRPC and boto3, which read it themselves, follow the same rules.

    They take a proxy for loopback addresses too unless ``NO_PROXY`` names them, and boto3 does not know every variable
    that names certificates.
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
