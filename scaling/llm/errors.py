"""What a failed call means: whether it was billed, whether to try again, and whether any other call can succeed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import tenacity
from dspy.utils import exceptions as lm_errors

# Statuses of a provider that refuses a request, and so cannot have billed it.
FREE_STATUSES = (400, 401, 403, 404, 413, 422, 429)
# A filter has read the prompt, or the answer, before it refuses: providers may bill that.
FILTERED = ("content_filter", "content filter", "content management policy", "responsibleai")
# The wrong key, model or account: retrying cannot help, and no other call of the model can succeed.
FATAL_ERRORS = (
    lm_errors.LMAuthError,
    lm_errors.LMBillingError,
    lm_errors.LMConfigurationError,
    lm_errors.LMUnsupportedModelError,
    lm_errors.LMUnsupportedFeatureError,
)
FATAL_STATUSES = (301, 302, 303, 307, 308, 401, 403, 404)
RETRYABLE_ERRORS = (
    lm_errors.LMRateLimitError,
    lm_errors.LMServerError,
    lm_errors.LMTimeoutError,
    lm_errors.LMTransportError,
    lm_errors.LMUnexpectedError,
)
# 529 is Anthropic's for overloaded.
TOO_MANY_STATUSES = (429, 503, 529)
TOO_LONG = ("context size", "context length", "context window", "output limit was reached")
LONGEST_PAUSE_SECONDS = 300.0
# Eight attempts wait for half a minute together at least, whatever the server says, and for a minute at most.
backoff_seconds = tenacity.wait_exponential(multiplier=0.25, max=15) + tenacity.wait_random_exponential(0.25, max=15)
# What a user can do about a refusal that lasts, by its status.
_MOVED = "give the address that answers itself, with --api-base or as api_base in a --models-file"
_WRONG = "the model may not take a setting (temperature, max_output_tokens, adapter) or its name: see its --models-file"
ADVICE = {
    **dict.fromkeys((301, 302, 303, 307, 308), _MOVED),
    **dict.fromkeys((400, 422), _WRONG),
    413: "the prompt is larger than the server or your account allows: use another model, or raise that limit",
    451: "the provider may not answer this where you are: use another model or provider",
}


class CallFailed(Exception):
    """A call that failed for good: an infrastructure error, which is not a score.

    maybe_billed: an attempt may have been billed, and nobody knows how much.
    """

    maybe_billed = False


def is_too_long(error: BaseException) -> bool:
    """Whether prompt or answer do not fit the model. Servers say it in their own words; not all give OpenAI's code."""
    refused = isinstance(error, lm_errors.LMInvalidRequestError) and any(words in str(error) for words in TOO_LONG)
    return refused or isinstance(error, lm_errors.ContextWindowExceededError)


def never_billed(error: BaseException | None) -> bool:
    """The provider refused the request, or was never reached. A 5xx may come from a proxy after the model answered."""
    status = getattr(error, "status", None)
    if status is not None:
        return status in FREE_STATUSES and not _is_filtered(error)
    while error is not None:
        # The native engine's and httpx's names for a connection that was not made.
        if type(error).__name__ in ("ConnectError", "ConnectTimeout"):
            return True
        error = error.__cause__
    return False


def is_fatal(error: BaseException) -> bool:
    """Whether every call of the model will fail as this one did."""
    return isinstance(error, FATAL_ERRORS) or getattr(error, "status", None) in FATAL_STATUSES


def is_worth_retrying(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if is_fatal(error):
        return False
    # A success whose body is no answer is a proxy's page, not the model's.
    is_garbage = isinstance(error, lm_errors.LMProviderError) and 200 <= (error.status or 0) < 300
    return is_garbage or isinstance(error, RETRYABLE_ERRORS)


def is_too_many(error: BaseException) -> bool:
    """Whether the provider refused the request because it gets too many, or is overloaded."""
    return isinstance(error, lm_errors.LMRateLimitError) or getattr(error, "status", None) in TOO_MANY_STATUSES


def headers_of(error: BaseException) -> dict[str, str]:
    """What the headers of a refusal say of the provider's limits."""
    return first_values(getattr(error, "rate_limit_headers", None) or {})


def first_values(headers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Headers with several values, as DSPy keeps them, with their first."""
    return {name: values[0] for name, values in headers.items() if values}


def pause_seconds(error: BaseException) -> float:
    """For how long a provider asks to be left alone (Retry-After): from 0, also for nonsense, to the longest pause."""
    asked = getattr(error, "retry_after", None)
    if not isinstance(asked, int | float) or not is_worth_retrying(error) or math.isnan(asked):
        return 0.0
    return min(max(float(asked), 0.0), LONGEST_PAUSE_SECONDS)


def advice(error: BaseException) -> str:
    """What to do about a refusal that lasts, as the end of a message; "" where there is nothing to say."""
    text = ADVICE.get(getattr(error, "status", None) or 0)
    return f"; {text}" if text else ""


def _is_filtered(error: BaseException | None) -> bool:
    said = f"{getattr(error, 'provider_code', '')} {error}".lower()
    return any(words in said for words in FILTERED)
