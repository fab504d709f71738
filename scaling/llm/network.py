"""Servers by their address: which are on this machine, and whether anybody answers there."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import tenacity

PORTS = {"http": 80, "https": 443}
CONNECT_SECONDS = 3.0
PATIENCE_SECONDS = 5.0  # for a server that is started beside the sweep


def is_loopback(url: str) -> bool:
    """Whether an address is one of this machine, as far as it can be told without looking up its name."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def open_directly(url: str | urllib.request.Request, timeout: float) -> Any:
    """As `urllib.request.urlopen`, and never through a proxy."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout)


def why_unreachable(url: str) -> str | None:
    """Why nobody can answer at an address; None where somebody may, or where a proxy stands in between."""
    if urllib.request.getproxies() and not is_loopback(url):
        return None
    parts = urlsplit(url)
    place = (parts.hostname or "", parts.port or PORTS[parts.scheme])
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(ConnectionRefusedError), wait=tenacity.wait_fixed(0.5),
        stop=tenacity.stop_after_delay(PATIENCE_SECONDS), reraise=True,
    )  # fmt: skip
    try:
        retrying(lambda: socket.create_connection(place, timeout=CONNECT_SECONDS).close())
    except socket.gaierror:
        return f"the name {place[0]} is not known"
    except ConnectionRefusedError:
        return f"nothing listens on port {place[1]} of {place[0]}"
    except OSError:  # too slow, or no way there now: the calls are tried again
        return None
    return None
