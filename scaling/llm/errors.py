"""What a failed call means: whether it was billed, whether to try again, and whether any other call can succeed."""

from __future__ import annotations

import tenacity
from dspy.utils import exceptions as lm_errors

# Statuses of a provider that refuses a request, and so cannot have billed it.
FREE_STATUSES = (400, 401, 403, 404, 413, 422, 429)
# The wrong key, model or account: retrying cannot help, and no other call of the model can succeed.
FATAL_ERRORS = (
    lm_errors.LMAuthError,
    lm_errors.LMBillingError,
    lm_errors.LMConfigurationError,
    lm_errors.LMUnsupportedModelError,
    lm_errors.LMUnsupportedFeatureError,
)
FATAL_STATUSES = (401, 403, 404)
RETRYABLE_ERRORS = (
    lm_errors.LMRateLimitError,
    lm_errors.LMServerError,
    lm_errors.LMTimeoutError,
    lm_errors.LMTransportError,
    lm_errors.LMUnexpectedError,
)
TOO_LONG = ("context size", "context length", "context window")


class CallFailed(Exception):
    """A call that failed for good: an infrastructure error, which is not a score."""


def is_too_long(error: BaseException) -> bool:
    """Whether the prompt does not fit the model. Servers say it in their own words; not all give OpenAI's code."""
    refused = isinstance(error, lm_errors.LMInvalidRequestError) and any(words in str(error) for words in TOO_LONG)
    return refused or isinstance(error, lm_errors.ContextWindowExceededError)


def never_billed(error: BaseException | None) -> bool:
    """The provider refused the request, or was never reached. A 5xx may come from a proxy after the model answered."""
    status = getattr(error, "status", None)
    if status is not None:
        return status in FREE_STATUSES
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
    # An HTTP 200 whose body is no JSON is a proxy's page, not the model's answer.
    is_garbage = isinstance(error, lm_errors.LMProviderError) and error.status == 200
    return is_garbage or isinstance(error, RETRYABLE_ERRORS)


def backoff_seconds(state: tenacity.RetryCallState) -> float:
    """0 where the provider gave a Retry-After (the limiter pauses for it), else jittered exponential, 30 s at most."""
    error = state.outcome.exception() if state.outcome else None
    if getattr(error, "retry_after", None) is not None:
        return 0.0
    return tenacity.wait_random_exponential(multiplier=0.5, max=30)(state)
