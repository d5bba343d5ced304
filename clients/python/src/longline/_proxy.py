"""Which proxy leads to a host: what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say, read as curl reads them."""

from __future__ import annotations

import base64
import ipaddress
import os
from dataclasses import dataclass
from typing import Mapping, Optional
from urllib.parse import unquote, urlsplit

DEFAULT_PORT = 1080


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    #: The value of Proxy-Authorization; None if it wants none.
    authorization: Optional[str]


def parse_proxy(url: str) -> Proxy:
    """Raises ValueError if it is not the address of an HTTP proxy."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("a proxy's address begins with http:// and a host")
    if parts.username is None:
        return Proxy(parts.hostname, parts.port or DEFAULT_PORT, None)
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return Proxy(parts.hostname, parts.port or DEFAULT_PORT, f"Basic {base64.b64encode(user).decode()}")


def find_proxy(tls: bool, host: str, environment: Mapping[str, str] = os.environ) -> Optional[Proxy]:
    """The proxy that the environment names for a host. Raises ValueError if it is not an HTTP proxy."""
    names = ["https_proxy", "HTTPS_PROXY"] if tls else ["http_proxy", "HTTP_PROXY"]
    if "REQUEST_METHOD" in environment:
        # In a CGI program this one is the Proxy header of whoever sent the request.
        names = [name for name in names if name != "HTTP_PROXY"]
    url = next(filter(None, (environment.get(name) for name in names)), "")
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    return parse_proxy(url) if url and not is_exempt(host, exempt) else None


def is_exempt(host: str, exempt: str) -> bool:
    """Whether NO_PROXY names the host: by itself, a domain above it, a network around it, or "*"."""
    entries = exempt.replace(",", " ").lower().split()
    host = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domains = [entry.strip(".") for entry in entries]
        return entries == ["*"] or any(domain and f".{host}".endswith(f".{domain}") for domain in domains)
    return entries == ["*"] or any(is_in(address, entry.strip("[]")) for entry in entries)


def is_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
