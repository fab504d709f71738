"""A thin client of Synth's hosted jobs: every call of the interface, and what is checked before the first.

What is known of the interface was gathered from its public client and demos; where versions differ, both ways are
accepted.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from typing import Any

import httpx
import tenacity
from dspy.clients._http import retry_after_seconds

from scaling.hosted.http import BoundedHttp
from scaling.hosted.prompts import Json
from scaling.hosted.settings import KEY_NAME, URL_NAME, app_keys, is_local
from scaling.models import Model
from scaling.types import HostedSettings, UsageError

ROUTES = ("policy-optimization/online", "prompt-learning/online")
PROVIDERS = ("openai", "groq", "google")
MAX_ATTEMPTS = 6
MOST_LISTED = 20  # of the newest jobs, among which one whose id never came is looked for
LONGEST_PAUSE = 60.0  # seconds, whatever the backend asks for


class SynthError(Exception):
    """The hosted job gave no program; the message is one line."""


class NotThere(SynthError):
    """Every route that was tried answered 404."""


class MaybeTaken(SynthError):
    """A job was sent, and nobody knows whether the backend took it."""


def check(hosted: HostedSettings, models: list[Model], mode: str) -> None:
    """Raise UsageError for what would fail after money is spent: addresses, providers, tunnel, backend, key.

    A task app that has no key yet gets one, in the environment of this process.
    """
    if hosted.task_app_url and mode == "online":
        raise UsageError("--task-app-url: in online mode nobody has to reach the task app. Leave it out.")
    for model in models:
        if not is_local(hosted) and provider_of(model) not in PROVIDERS:
            raise UsageError(
                f"synth_mipro: Synth calls models of {', '.join(PROVIDERS)}; '{model.id}' is none of them. "
                f"Type --models groq/openai/gpt-oss-20b, for example, or leave synth_mipro out."
            )
    if mode == "offline" and not is_local(hosted) and not hosted.task_app_url and not shutil.which("cloudflared"):
        raise UsageError(
            "synth_mipro: Synth must reach the task app on this machine, and `cloudflared` is not installed. "
            f"Install it, or type --task-app-url URL with an address that leads to port {hosted.task_app_port} here."
        )
    if not app_keys():  # one for all cells and their processes: a backend keeps one for a user
        os.environ["ENVIRONMENT_API_KEY"] = secrets.token_hex(32)
    with SynthClient(hosted) as client:
        try:
            client.call("GET", ["/api/v1/me"])
        except NotThere:
            pass  # a backend without that route says at the submission what it thinks of the key
        except SynthError as error:
            raise UsageError(f"{error}. Fix {KEY_NAME} or {URL_NAME}, or leave synth_mipro out.") from None


def provider_of(model: Model) -> str:
    return model.route.partition("/")[0]


class SynthClient:
    """The calls of a backend; retried where that is safe. Raises SynthError in one line, without any key."""

    def __init__(self, hosted: HostedSettings, sleep: Callable[[float], None] = time.sleep):
        key = os.environ.get(KEY_NAME) or "local"
        headers = {"X-API-Key": key, "Authorization": f"Bearer {key}"}
        self.backend, self.sleep, self.secrets = hosted.backend, sleep, {key}
        connections = BoundedHttp(hosted.timeout, trust_env=not is_local(hosted))
        self._http = httpx.Client(base_url=hosted.backend, headers=headers, transport=connections)

    def __enter__(self) -> SynthClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(self, body: Json, name: str) -> str:
        """Start a job; gives its id. name: ours, which is in the body and finds a job whose id was lost on the way."""
        try:
            state = self.call("POST", [f"/api/{route}/jobs" for route in ROUTES], body, repeatable=False)
        except MaybeTaken:
            if (found := self.find(name)) is None:
                raise
            return found
        job_id = state.get("job_id") or state.get("id")
        if not job_id:
            raise SynthError("the backend took the job and gave no job_id")
        return str(job_id)

    def find(self, name: str) -> str | None:
        """The id of the job that was sent under our name; None where no job of those that are listed holds it.

        The list is not in the client's contract: it is what the service's own console reads.
        """
        paths = [f"/api/{route}/jobs?limit={MOST_LISTED}" for route in ROUTES[::-1]]
        try:
            listed = _list_of(self._response("GET", [*paths, f"/api/jobs?limit={MOST_LISTED}"]))
            ids = [str(job.get("job_id") or job.get("id")) for job in listed][:MOST_LISTED]
            return next((job_id for job_id in ids if name in json.dumps(self.job(job_id))), None)
        except SynthError:
            return None

    def job(self, job_id: str) -> Json:
        routes = [f"/api/{route}/jobs/{job_id}" for route in ROUTES]
        return self.call("GET", [*routes, f"/api/jobs/{job_id}"])

    def results(self, job_id: str) -> Json:
        return self.call("GET", [f"/api/{route}/jobs/{job_id}/results" for route in ROUTES])

    def cancel(self, job_id: str, reason: str) -> None:
        routes = [f"/api/{route}/jobs/{job_id}/cancel" for route in ROUTES]
        self.call("POST", [*routes, f"/api/jobs/{job_id}/cancel"], {"reason": reason})

    def system(self, system_id: str) -> Json:
        return self.call("GET", [f"/api/{route}/mipro/systems/{system_id}/state" for route in ROUTES[::-1]])

    def rollout_status(self, system_id: str, body: Json) -> Json:
        return self.call("POST", [f"/api/{route}/mipro/systems/{system_id}/status" for route in ROUTES[::-1]], body)

    def upload_task_app_key(self, key: str) -> bool:
        """Give the backend the task app's key, sealed for it; whether it took it."""
        from nacl.public import PublicKey, SealedBox

        try:
            public = base64.b64decode(self.call("GET", ["/api/v1/crypto/public-key"])["public_key"])
            sealed = base64.b64encode(SealedBox(PublicKey(public)).encrypt(key.encode())).decode()
            self.call("POST", ["/api/v1/env-keys"], {"name": "ENVIRONMENT_API_KEY", "ciphertext_b64": sealed})
        except (SynthError, KeyError, ValueError, TypeError):
            return False
        return True

    def call(self, method: str, paths: list[str], body: Json | None = None, repeatable: bool = True) -> Json:
        """The JSON object of the first path that is there; 429, 5xx and lost connections are tried again.

        repeatable=False: only what surely was not taken in is sent again, as a second job would cost twice.
        """
        return _object_of(self._response(method, paths, body, repeatable), self.backend)

    def _response(
        self, method: str, paths: list[str], body: Json | None = None, repeatable: bool = True
    ) -> httpx.Response:
        for path in paths:
            retrying = tenacity.Retrying(
                stop=tenacity.stop_after_attempt(MAX_ATTEMPTS),
                wait=pause,
                retry=tenacity.retry_if_exception(lambda error: _worth_retrying(error, repeatable)),
                sleep=self.sleep,
                reraise=True,
            )
            try:
                return retrying(self._once, method, path, body)
            except httpx.HTTPStatusError as error:
                if error.response.status_code == 404:
                    continue
                raise self._refused(error.response) from None
            except httpx.HTTPError as error:
                why = f"the backend {self.backend} cannot be reached ({type(error).__name__})"
                if repeatable or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    raise SynthError(why) from None
                raise MaybeTaken(f"{why}; it may have taken the job: look there before the next try") from None
        raise NotThere(f"the backend {self.backend} has none of {', '.join(paths)}")

    def _once(self, method: str, path: str, body: Json | None) -> httpx.Response:
        return self._http.request(method, path, json=body).raise_for_status()

    def _refused(self, response: httpx.Response) -> SynthError:
        if response.status_code in (401, 403):
            return SynthError(f"the backend {self.backend} refused {KEY_NAME} ({response.status_code})")
        return SynthError(f"the backend {self.backend} answered {response.status_code}: {self.one_line(response.text)}")

    def one_line(self, error: Any) -> str:
        """An error of the backend's in one line, without any key that it may repeat."""
        text = error if isinstance(error, str) else json.dumps(error, default=str) if error else "no reason given"
        for secret in self.secrets:
            text = text.replace(secret, "...")
        return " ".join(text.split())[:300]


def _object_of(response: httpx.Response, backend: str) -> Json:
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise SynthError(f"the backend {backend} answered no JSON object")
    return answer


def _list_of(response: httpx.Response) -> list[Json]:
    """The jobs of a list, which may stand in a field; none of anything else."""
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return []
    listed = answer.get("jobs") or answer.get("data") if isinstance(answer, dict) else answer
    return [job for job in listed if isinstance(job, dict)] if isinstance(listed, list) else []


def _worth_retrying(error: BaseException, repeatable: bool) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status == 429 or (status >= 500 and (repeatable or status == 503))
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) or (
        repeatable and isinstance(error, httpx.TransportError)
    )


def pause(state: tenacity.RetryCallState) -> float:
    """Jittered exponential, or as long as the backend asks for (Retry-After) where that is longer."""
    error = state.outcome.exception() if state.outcome else None
    own = tenacity.wait_random_exponential(multiplier=0.2, max=10)(state)
    header = error.response.headers.get("Retry-After") if isinstance(error, httpx.HTTPStatusError) else None
    return max(own, min(retry_after_seconds(header) or 0.0, LONGEST_PAUSE))
