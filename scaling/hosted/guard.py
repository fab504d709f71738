"""What stands before a task app: the key is looked at before anything is read, and a body has a limit."""

from __future__ import annotations

import hmac

import fastapi
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT = 2**20  # bytes
OPEN_PATH = "/"  # liveness


def refusal(status: int, code: str, message: str) -> fastapi.HTTPException:
    """An error in the form that backends read."""
    return fastapi.HTTPException(status, {"error": {"code": code, "message": message}})


class Guard:
    """ASGI middleware. keys: any of them opens the app; none (an empty set) opens nothing; None asks for no key."""

    def __init__(self, app: ASGIApp, keys: frozenset[str] | None):
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            if scope["path"] != OPEN_PATH:
                self._check_key(headers)
            length = headers.get("content-length", "")
            if length.isdecimal() and int(length) > BODY_LIMIT:
                raise _too_large()
        except fastapi.HTTPException as error:
            await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, send)
            return
        await self.app(scope, _limited(receive), send)

    def _check_key(self, headers: Headers) -> None:
        """Each of three headers may hold a key."""
        if self.keys is None:
            return
        if not self.keys:
            raise refusal(
                503, "missing_environment_api_key", "this task app has no key: ENVIRONMENT_API_KEY is not set"
            )
        given = [headers.get("x-api-key", ""), *headers.get("x-api-keys", "").split(",")]
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given.append(token)
        candidates = [key.strip().encode() for key in given if key.strip()]
        if not any(hmac.compare_digest(given_key, key.encode()) for given_key in candidates for key in self.keys):
            raise refusal(400, "unauthorised", "the key is missing or wrong (X-API-Key, X-API-Keys or Bearer)")


def _limited(receive: Receive) -> Receive:
    """The body without a length is counted as it comes."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > BODY_LIMIT:
            raise _too_large()
        return message

    return counted


def _too_large() -> fastapi.HTTPException:
    return refusal(413, "too_large", f"a request has at most {BODY_LIMIT} bytes")
