"""Secrets and control sequences leave the text that this program writes, shows or packs.

`redact` is for messages: errors, log lines, tracebacks, anything that a provider may have had a hand in. `hide_known`
is for data, such as the answers of a model: there only the secrets of this process are hidden, and nothing else is
changed. A secret is the value of an environment variable whose name says so, or one given to `remember`.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import threading
from collections.abc import Mapping
from typing import TextIO
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "[hidden]"
# A shorter value is a word such as `none`, and would be hidden wherever that word stands.
SHORTEST_SECRET = 8
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)S?$", re.IGNORECASE)

# CSI and OSC sequences of ECMA-48, other escapes, then every control character but tab and line feed.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x9b[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
_NAMED = r"(?:api[-_ ]?key|access[-_]?token|auth[-_]?token|token|secret|password|passwd|pwd|key|signature|sig)"
_PATTERNS = (
    # user:password@ of a URL
    (re.compile(r"(?<=://)[^\s/?#\"'<>]+@"), f"{HIDDEN}@"),
    # Authorization headers
    (re.compile(r"\b(Bearer|Basic)[ :=]+[\"']?[\w.~+/-]{6,}=*", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # keys in query strings
    (re.compile(rf"(?<=[?&;])({_NAMED})=[^&\s\"'#<>]+", re.IGNORECASE), rf"\1={HIDDEN}"),
    # x-api-key: ...; "api_key": "..."
    (
        re.compile(
            r"\b((?:x-)?(?:goog-)?api[-_]?key|access[-_]token|client[-_]secret|password)([\"']?\s*[:=]\s*[\"']?)"
            r"[^\s\"'&,;)}]{6,}",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
    # keys as providers make them
    (re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf|pplx|nvapi|fw|csk|r8)[-_][\w-]{12,}"), HIDDEN),
    (re.compile(r"\bAIza[\w-]{20,}"), HIDDEN),
)


def redact(text: str) -> str:
    """A message without the secrets of this process, without what looks like one, and without control sequences."""
    text = hide_known(printable(text))
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def printable(text: str) -> str:
    """The text without terminal sequences and other control characters; tabs and line feeds stay."""
    return _CONTROL.sub("", text)


def hide_known(text: str) -> str:
    """Data without the secrets of this process; nothing else is changed."""
    for secret in _known(os.environ):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def remember(*secrets: str | None) -> None:
    """Hide these values from now on, in all their spellings. None and values under 8 characters are passed over."""
    spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
    with _LOCK:
        _REMEMBERED.update(spellings)


def remember_url(url: str | None) -> None:
    """Hide the password that a URL carries, also as a Basic authorization header spells it."""
    authority = urlsplit(url).netloc if url else ""
    credentials, at, _ = authority.rpartition("@")
    if at:
        user, _, password = credentials.partition(":")
        token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        remember(unquote(password or user), password or user, token)


def secret_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables whose names say that their values are secret, and whose values are long enough to be."""
    return {
        name: value for name, value in variables.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET
    }


class RedactingStream(io.TextIOBase):
    """A text stream that redacts what is written to it, and hands it on."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def flush(self) -> None:
        if not self._stream.closed:  # when it is collected after the stream that it writes to
            self._stream.flush()

    def writable(self) -> bool:
        return True


def _known(environment: Mapping[str, str]) -> list[str]:
    """All secrets, longest first, so that one that holds another goes as a whole."""
    found = {spelling for value in secret_variables(environment).values() for spelling in _spellings(value)}
    with _LOCK:
        found |= _REMEMBERED
    return sorted(found, key=len, reverse=True)


def _spellings(secret: str | None) -> set[str]:
    """A secret as it stands, in JSON and in a URL."""
    if secret is None or len(secret) < SHORTEST_SECRET:
        return set()
    return {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret, safe="")}


_REMEMBERED: set[str] = set()
_LOCK = threading.Lock()
