"""Where hosted jobs are sent, under which keys, and where task apps listen. Needs no web server and no HTTP client."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from scaling.llm.network import is_loopback
from scaling.schema import is_address
from scaling.types import HostedSettings, UsageError

KEY_NAME, URL_NAME = "SYNTH_API_KEY", "SYNTH_BACKEND_URL"
REMOTE, LOCAL = "https://api.usesynth.ai", "http://localhost:8000"
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # hosts that may serve without a key
APP_KEY_NAMES = ("ENVIRONMENT_API_KEY", "DEV_ENVIRONMENT_API_KEY")


def backend_of(local: bool) -> str:
    """The backend's address: SYNTH_BACKEND_URL, else Synth's; with `local` one on this machine."""
    given = os.environ.get(URL_NAME)
    if given is not None and not is_address(given):
        raise UsageError(f"{URL_NAME} is not an http address. Type: export {URL_NAME}={LOCAL}, or unset {URL_NAME}.")
    named = (given or "").rstrip("/").removesuffix("/api")
    if local:
        return named if named and is_loopback(named) else LOCAL
    return named or REMOTE


def is_local(settings: HostedSettings) -> bool:
    return is_loopback(settings.backend)


def host_of(settings: HostedSettings) -> str:
    """The backend without anything that could be private in its address."""
    return urlsplit(settings.backend).hostname or "?"


def missing(settings: HostedSettings) -> str | None:
    """Why hosted cells cannot run here: the key that is not set; a backend on this machine may do without."""
    if is_local(settings) or os.environ.get(KEY_NAME):
        return None
    return f"{KEY_NAME} is not set. Type: export {KEY_NAME}=... (or put it into .env), or use --local."


def app_keys() -> frozenset[str]:
    """The keys that open a task app here: ENVIRONMENT_API_KEY, its older names, and its aliases."""
    names = [*APP_KEY_NAMES, *(name.lower() for name in APP_KEY_NAMES)]
    own = next((os.environ[name] for name in names if os.environ.get(name)), "")
    aliases = os.environ.get("ENVIRONMENT_API_KEY_ALIASES", "").split(",")
    return frozenset(key.strip() for key in [own, *aliases] if key.strip())
