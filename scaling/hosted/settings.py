"""Where hosted jobs are sent, under which keys, and where task apps listen. Needs no web server and no HTTP client."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from scaling.types import UsageError

KEY_NAME, URL_NAME = "SYNTH_API_KEY", "SYNTH_BACKEND_URL"
REMOTE, LOCAL = "https://api.usesynth.ai", "http://localhost:8000"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
DEFAULT_PORT = 8015
APP_KEY_NAMES = ("ENVIRONMENT_API_KEY", "DEV_ENVIRONMENT_API_KEY")


@dataclass(frozen=True)
class HostedSettings:
    """Where hosted jobs are sent and how patiently they are followed; no key in it. Times in seconds.

    task_app_url: an address that leads to `task_app_port` here, None where there is none. since: an older job of
    the same cell is not used (seconds since 1970).
    """

    backend: str
    task_app_url: str | None = None
    task_app_port: int = DEFAULT_PORT
    job_timeout: float = 3600.0
    timeout: float = 120.0
    since: float = 0.0

    @property
    def is_local(self) -> bool:
        return is_loopback(self.backend)

    @property
    def host(self) -> str:
        """The backend without anything that could be private in its address."""
        return urlsplit(self.backend).hostname or "?"


def backend_of(local: bool) -> str:
    """The backend's address: SYNTH_BACKEND_URL, else Synth's; with `local` one on this machine."""
    named = os.environ.get(URL_NAME, "").rstrip("/").removesuffix("/api")
    if named and not named.startswith(("http://", "https://")):
        raise UsageError(f"{URL_NAME} is no http address. Type: export {URL_NAME}={LOCAL}, for example.")
    if local:
        return named if named and is_loopback(named) else LOCAL
    return named or REMOTE


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK


def missing(settings: HostedSettings) -> str | None:
    """Why hosted cells cannot run here: the key that is not set; a backend on this machine may do without."""
    if settings.is_local or os.environ.get(KEY_NAME):
        return None
    return f"{KEY_NAME} is not set. Type: export {KEY_NAME}=... (or put it into .env), or use --local."


def app_keys() -> frozenset[str]:
    """The keys that open a task app here: ENVIRONMENT_API_KEY, its older names, and its aliases."""
    names = [*APP_KEY_NAMES, *(name.lower() for name in APP_KEY_NAMES)]
    own = next((os.environ[name] for name in names if os.environ.get(name)), "")
    aliases = os.environ.get("ENVIRONMENT_API_KEY_ALIASES", "").split(",")
    return frozenset(key.strip() for key in [own, *aliases] if key.strip())
