"""How fast a model's calls may be sent: what its entry says, what its provider says, and what refusals teach.

Providers count requests and tokens in buckets that are filled again all the time. Where an answer's headers tell how
full they are, the same buckets are kept here. Where nobody tells, the rate is learnt: `LearnedRate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scaling.llm.rate_headers import BucketState, bucket_states
from scaling.models import Model

# Calls a second at first, where nobody says how many may be sent.
FIRST_RATE = 4.0
# How fast the rate rises until the first refusal: by this share a second, and by no more than this share a call.
RISE_A_SECOND, RISE_A_CALL = 0.1, 0.02
# Between two refusals so many calls must have passed to tell the limit.
CALLS_TO_TELL = 10
# After a refusal the rate is this share of the limit; so many calls later it is where it was refused.
BACK_TO, CALLS_TO_RISE = 0.95, 400
# So far beyond the rate that was refused the limit must have changed: the rate rises fast again.
LIMIT_CHANGED = 1.1
LOWEST_RATE = 1 / 300
# A call that starts late is made up for, within this time.
CREDIT_SECONDS = 0.05
# A limit of models.toml is a rate: what may be sent at once is the share of so many seconds.
STATED_SECONDS = 2.0
# A provider's bucket that takes longer to fill is not waited for: the provider refuses by itself.
LONGEST_RESET_SECONDS = 300.0
# Tokens of an answer, until there is one; and how much each answer moves their mean.
FIRST_OUTPUT, WEIGHT_OF_ONE = 100.0, 0.1
TOO_SMALL = 1e-9  # of what is missing in a bucket, to be waited for


@dataclass(frozen=True)
class Start:
    """A call as it was sent: the how manyth of its model, when, and its tokens.

    at: seconds since the first. busy: those of them in which calls waited for their turn.
    """

    number: int
    at: float
    tokens: float
    busy: float = 0.0


@dataclass
class Bucket:
    """Requests or tokens: `rate` a second are added, up to `capacity`, and a call takes its own. `at`: of `level`."""

    rate: float
    capacity: float
    level: float
    at: float

    def seconds_until(self, amount: float, now: float) -> float:
        """Seconds until so much is there. What is more than the bucket can hold waits until it is full."""
        missing = min(amount, self.capacity) - self._filled(now)
        return missing / self.rate if missing > TOO_SMALL else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take so much; a negative amount is given back."""
        self.level, self.at = min(self.capacity, self._filled(now) - amount), now

    def correct(self, state: BucketState, now: float) -> None:
        """What the provider says of it. Calls under way are not counted there yet, so the lower level holds."""
        self.rate, self.capacity = _rate(state) or self.rate, state.limit
        self.level, self.at = min(self._filled(now), state.remaining), now

    def _filled(self, now: float) -> float:
        return min(self.capacity, self.level + self.rate * (now - self.at))


class LearnedRate:
    """Calls a second that a provider takes, learnt from its refusals.

    The rate rises until the first refusal. A refused call found the provider's bucket empty. So what passed between
    two refusals is what was added in that time: the limit itself, however large the bucket is. From then on the rate
    goes to and fro around it. Calls that were sent before a refusal was heard of teach nothing new, and neither does
    time in which nobody asked.
    """

    def __init__(self, rate: float = FIRST_RATE):
        self.rate = rate
        self._next = self._idle = 0.0
        self._sent = self._refused_since = self._known_until = 0
        self._mark: Start | None = None  # the refused call since which is counted; None until the first refusal
        self._refused_at = math.inf  # the rate at which the limit was last met
        self._rise = RISE_A_CALL

    def seconds_until(self, now: float) -> float:
        """Seconds until the next call may be sent."""
        return max(0.0, self._next - now)

    def take(self, now: float, tokens: float) -> Start:
        """A call is sent. Where it had to wait for its turn, the rate rises a little."""
        idle = max(0.0, now - self._next - CREDIT_SECONDS)
        self._next, self._idle = max(self._next, now - CREDIT_SECONDS) + 1 / self.rate, self._idle + idle
        if not idle:
            near_limit = self.rate < LIMIT_CHANGED * self._refused_at
            rise = self._rise if near_limit else RISE_A_CALL
            self.rate *= 1 + min(rise, RISE_A_CALL, RISE_A_SECOND / self.rate)
        self._sent += 1
        return Start(self._sent, now, tokens, now - self._idle)

    def reach(self, rate: float) -> None:
        """The provider says that it takes so many: there is nothing to learn below."""
        if self._mark is None:
            self.rate = max(self.rate, rate)

    def refused(self, start: Start, now: float) -> None:
        """A call was refused."""
        self._refused_since += 1
        if start.number <= self._known_until:
            return
        since = self._mark or Start(0, 0.0, 0.0)
        passed = start.number - since.number - self._refused_since
        seconds = start.busy - since.busy
        if self._mark is None:  # the bucket was full at the beginning: no more than what has passed was added
            self._fall(min(self.rate / 2, passed / seconds if seconds > 0 else math.inf), start)
        elif seconds < (start.at - since.at) / 2:
            self._fall(self.rate / 2, start)
        elif passed >= CALLS_TO_TELL and seconds > 0:
            refused_at, limit = self.rate, passed / seconds
            self._fall(BACK_TO * limit, start)
            self._refused_at = max(refused_at, limit)
            self._rise = math.log(self._refused_at / self.rate) / CALLS_TO_RISE
        else:
            self._fall(self.rate / 2, self._mark)
        self._next = now + 1 / self.rate
        self._known_until = self._sent

    def _fall(self, rate: float, mark: Start) -> None:
        if mark is not self._mark:
            self._mark, self._refused_since = mark, 0
        self.rate, self._refused_at, self._rise = max(rate, LOWEST_RATE), math.inf, RISE_A_CALL


class Pace:
    """What the next call of a model has to wait for. Times are seconds of the caller's clock, which also locks."""

    def __init__(self, model: Model, now: float):
        self._stated = {
            name: _stated_bucket(per_minute / 60, now)
            for name, per_minute in (("requests", model.requests_per_minute), ("tokens", model.tokens_per_minute))
            if per_minute is not None
        }
        self._heard: dict[str, Bucket] = {}
        self._learned = LearnedRate()
        self._started, self._output = now, FIRST_OUTPUT
        if "requests" in self._stated:
            self._learned.reach(self._stated["requests"].rate)

    def seconds_until(self, prompt_tokens: float, now: float) -> float:
        """Seconds until a call with such a prompt may be sent."""
        tokens = prompt_tokens + self._output
        waits = [bucket.seconds_until(1.0 if name == "requests" else tokens, now) for name, bucket in self._buckets()]
        return max([self._learned.seconds_until(now - self._started), *waits])

    def take(self, prompt_tokens: float, now: float) -> Start:
        """A call is sent."""
        tokens = prompt_tokens + self._output
        for name, bucket in self._buckets():
            bucket.take(1.0 if name == "requests" else tokens, now)
        return self._learned.take(now - self._started, tokens)

    def answered(self, start: Start, prompt: int | None, output: int | None, now: float) -> None:
        """A call was answered: the tokens of its prompt and of its answer; None where nobody knows."""
        if prompt is None or output is None:
            return
        self._output += WEIGHT_OF_ONE * (output - self._output)
        for name, bucket in self._buckets():
            if name == "tokens":
                bucket.take(prompt + output - start.tokens, now)

    def refused(self, start: Start, now: float) -> None:
        """A call was refused because there were too many: it used nothing."""
        for name, bucket in self._buckets():
            bucket.take(-1.0 if name == "requests" else -start.tokens, now)
        self._learned.refused(start, now - self._started)

    def hear(self, headers: Mapping[str, str], now: float) -> None:
        """What an answer's headers say of the provider's limits."""
        for name, state in bucket_states(headers).items():
            rate = _rate(state)
            if name in self._heard:
                self._heard[name].correct(state, now)
            elif rate is not None:
                self._heard[name] = Bucket(rate, state.limit, state.remaining, now)
            if name == "requests" and rate is not None:
                self._learned.reach(rate)

    def _buckets(self) -> list[tuple[str, Bucket]]:
        return [*self._stated.items(), *self._heard.items()]


def _stated_bucket(rate: float, now: float) -> Bucket:
    capacity = max(1.0, STATED_SECONDS * rate)
    return Bucket(rate, capacity, capacity, now)


def _rate(state: BucketState) -> float | None:
    """How much is added to a bucket a second: what is missing, over the time until it is full again."""
    used = state.limit - state.remaining
    if used <= 0 or state.reset_seconds <= 0:
        return None
    return used / min(state.reset_seconds, LONGEST_RESET_SECONDS)
