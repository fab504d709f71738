"""How fast calls are sent: limits that nobody knows are learnt, those that headers or models.toml state are kept.

The provider is a token bucket on a simulated clock: nothing sleeps.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from scaling.llm.limits import ConcurrencyLimiter
from scaling.llm.pace import Pace
from scaling.llm.rate_headers import BucketState, bucket_states, reset_seconds
from scaling.models import Model
from scaling.types import CellStopped

ANY = Model("toy/x", "openai/scripted")


@dataclass
class Provider:
    """A token bucket: `rate` calls a second, `burst` at once. It refuses what finds it empty."""

    rate: float
    burst: float
    states_limits: bool = False
    level: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.burst

    def takes(self, now: float) -> bool:
        self.level = min(self.burst, self.level + self.rate * (now - self.at))
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True

    def headers(self) -> dict[str, str]:
        if not self.states_limits:
            return {}
        missing = self.burst - self.level
        return {
            "x-ratelimit-limit-requests": f"{self.burst:.0f}",
            "x-ratelimit-remaining-requests": f"{int(self.level)}",
            "x-ratelimit-reset-requests": f"{missing / self.rate:.3f}s",
        }


@dataclass
class Outcome:
    """What came of the calls of a sweep that always has more to ask."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    @property
    def refused_share(self) -> float:
        return len(self.refused) / (len(self.refused) + len(self.answered))

    def rate(self, start: float, end: float) -> float:
        return sum(start <= at < end for at in self.answered) / (end - start)


def ask_on(
    pace: Pace, provider: Provider, seconds: float, latency: float, seed: int = 0, start: float = 0.0
) -> Outcome:
    """Send calls as fast as the pace allows; what becomes of one is heard of about `latency` seconds later."""
    rng, outcome, under_way, numbers, now = random.Random(seed), Outcome(), [], itertools.count(), start
    while now < start + seconds:
        next_call = now + pace.seconds_until(100.0, now)
        if under_way and under_way[0][0] <= next_call:
            now, _, call, takes, headers = heapq.heappop(under_way)
            if takes:
                pace.answered(call, 100, 50, now)
            else:
                pace.refused(call, now)
            pace.hear(headers, now)
            continue
        now = next_call + rng.uniform(0, 0.001)
        call = pace.take(100.0, now)
        takes = provider.takes(now)
        (outcome.answered if takes else outcome.refused).append(now)
        heard = now + latency * rng.uniform(0.5, 1.5)
        heapq.heappush(under_way, (heard, next(numbers), call, takes, provider.headers()))
    return outcome


LIMITS = [(2.0, 20.0), (5.0, 300.0), (10.0, 100.0), (10.0, 600.0), (50.0, 50.0), (50.0, 3000.0), (100.0, 1000.0)]


@pytest.mark.parametrize(("rate", "burst"), LIMITS)
@pytest.mark.parametrize("latency", [0.1, 0.3])
def test_a_limit_that_nobody_knows_is_learnt(rate: float, burst: float, latency: float) -> None:
    outcome = ask_on(Pace(ANY, 0.0), Provider(rate, burst), 600.0, latency, seed=int(rate))
    assert outcome.rate(60.0, 600.0) >= 0.9 * rate
    assert outcome.refused_share < 0.01


def test_a_limit_of_one_call_at_a_time_is_learnt_as_well() -> None:
    outcome = ask_on(Pace(ANY, 0.0), Provider(10.0, 1.0), 600.0, 0.1)
    assert outcome.rate(60.0, 600.0) >= 0.9 * 10.0
    assert outcome.refused_share < 0.01


def test_a_limit_that_rises_or_falls_is_learnt_anew() -> None:
    pace, provider = Pace(ANY, 0.0), Provider(10.0, 50.0)
    ask_on(pace, provider, 120.0, 0.2)
    provider.rate = 40.0
    assert ask_on(pace, provider, 240.0, 0.2, start=120.0).rate(300.0, 360.0) >= 0.9 * 40.0
    provider.rate = 5.0
    fallen = ask_on(pace, provider, 240.0, 0.2, start=360.0)
    assert fallen.rate(480.0, 600.0) >= 0.9 * 5.0 and fallen.refused_share < 0.05


def test_time_in_which_nobody_asked_teaches_nothing() -> None:
    pace, provider = Pace(ANY, 0.0), Provider(10.0, 50.0)
    ask_on(pace, provider, 200.0, 0.2)
    assert ask_on(pace, provider, 240.0, 0.2, start=3800.0).rate(3800.0, 4040.0) >= 0.9 * 10.0  # after an hour


def test_calls_that_come_slowly_make_nothing_faster() -> None:
    pace = Pace(ANY, 0.0)
    for second in range(3600):
        pace.take(100.0, float(second))
    assert ask_on(pace, Provider(1e9, 1e9), 2.0, 0.3, start=3600.0).rate(3600.0, 3602.0) <= 6.0


def test_a_provider_that_refuses_nothing_is_asked_ever_faster() -> None:
    outcome = ask_on(Pace(ANY, 0.0), Provider(1e9, 1e9), 60.0, 0.3)
    assert outcome.rate(0.0, 2.0) <= 6.0
    assert outcome.rate(50.0, 60.0) >= 300.0


@pytest.mark.parametrize(("rate", "burst"), [(1.0, 60.0), (10.0, 600.0), (100.0, 6000.0)])
def test_what_headers_state_is_kept_from_the_first_answer_on(rate: float, burst: float) -> None:
    outcome = ask_on(Pace(ANY, 0.0), Provider(rate, burst, states_limits=True), 180.0, 0.3)
    assert outcome.rate(60.0, 180.0) >= 0.9 * rate
    assert outcome.refused_share < 0.01


def test_a_daily_limit_in_headers_holds_nobody_back_while_much_of_it_is_left() -> None:
    pace = Pace(ANY, 0.0)
    for number in range(20):
        pace.hear(
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": str(14400 - 1 - number),
                "x-ratelimit-reset-requests": f"{6 * (number + 1)}s",
            },
            0.0,
        )
    assert ask_on(pace, Provider(1e9, 1e9), 60.0, 0.3).rate(0.0, 60.0) > 10.0


def test_the_requests_a_minute_of_an_entry_are_kept() -> None:
    pace = Pace(Model("toy/x", "openai/scripted", requests_per_minute=120.0), 0.0)
    outcome = ask_on(pace, Provider(2.0, 5.0), 600.0, 0.3)
    assert not outcome.refused
    assert outcome.rate(60.0, 600.0) == pytest.approx(2.0, rel=0.01)


def test_the_tokens_a_minute_of_an_entry_are_kept_by_what_answers_really_used() -> None:
    pace = Pace(Model("toy/x", "openai/scripted", tokens_per_minute=9000.0), 0.0)
    outcome = ask_on(pace, Provider(1e9, 1e9), 600.0, 0.3)
    assert outcome.rate(60.0, 600.0) == pytest.approx(1.0, rel=0.02)  # 150 tokens a call, of 150 a second


def test_refusals_of_calls_that_were_sent_together_count_once() -> None:
    one, many = Pace(ANY, 0.0), Pace(ANY, 0.0)
    for pace, refusals in ((one, 1), (many, 8)):
        calls = [pace.take(1.0, 0.25 * i) for i in range(20)]
        for call in calls[10 : 10 + refusals]:
            pace.refused(call, 5.0)
    # Together they tell that fewer passed, and not that each was a new limit.
    assert many.seconds_until(1.0, 5.0) <= 2 * one.seconds_until(1.0, 5.0)


RESETS = {
    "1s": 1.0, "6m0s": 360.0, "12ms": 0.012, "2m59.56s": 179.56, "1h2m3s": 3723.0, "1d": 86400.0, "60": 60.0,
    "0.5": 0.5, "0s": 0.0, "2026-11-27T10:00:30Z": 30.0, "2026-11-27T09:59:00+00:00": 0.0,
}  # fmt: skip
NO_RESETS = ["", "soon", "-3s", "nan", "inf", "1e9s", "6m0", "1735689600000", "s"]


@pytest.mark.parametrize(("text", "seconds"), RESETS.items())
def test_resets_are_read_in_all_their_forms(text: str, seconds: float) -> None:
    assert reset_seconds(text, datetime(2026, 11, 27, 10, tzinfo=UTC)) == pytest.approx(seconds)


@pytest.mark.parametrize("text", NO_RESETS)
def test_a_reset_that_is_none_says_nothing(text: str) -> None:
    assert reset_seconds(text) is None


def test_headers_of_openai_and_anthropic_say_the_same() -> None:
    openai = {
        "x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "400", "x-ratelimit-reset-tokens": "6s",
    }  # fmt: skip
    anthropic = {
        "anthropic-ratelimit-tokens-limit": "1000", "anthropic-ratelimit-tokens-remaining": "400",
        "anthropic-ratelimit-tokens-reset": "2026-11-27T10:00:06Z",
    }  # fmt: skip
    now = datetime(2026, 11, 27, 10, tzinfo=UTC)
    assert bucket_states(openai, now) == bucket_states(anthropic, now) == {"tokens": BucketState(1000, 400, 6)}


@pytest.mark.parametrize("remaining", ["-1", "1001", "many", "", "1e400"])
def test_impossible_headers_say_nothing(remaining: str) -> None:
    headers = {"x-ratelimit-limit-tokens": "1000", "x-ratelimit-reset-tokens": "6s"}
    assert bucket_states(headers | {"x-ratelimit-remaining-tokens": remaining}) == {}


def test_a_call_that_comes_later_with_a_better_rank_goes_first() -> None:
    clock = [0.0]
    limiter = ConcurrencyLimiter(1, Pace(ANY, 0.0), clock=lambda: clock[0])
    went: list[str] = []

    def late_arrival(seconds: float) -> None:
        """While the first call waits for its turn, a better one comes."""
        if not went:
            with limiter.slot(0, lambda: None, pass_time):
                went.append("better")
        else:
            pass_time(seconds)

    def pass_time(seconds: float) -> None:
        clock[0] += seconds

    with limiter.slot(5, lambda: None, pass_time):
        pass
    with limiter.slot(5, lambda: None, late_arrival):
        went.append("first to come")
    assert went == ["better", "first to come"]


def test_a_sweep_that_ends_lets_everybody_out_of_the_queue() -> None:
    limiter = ConcurrencyLimiter(1, Pace(ANY, 0.0), clock=lambda: 0.0)

    def stopped() -> None:
        raise CellStopped("interrupted", "it has ended")

    with limiter.slot(0, lambda: None, lambda seconds: None):
        pass
    for _ in range(3):
        with pytest.raises(CellStopped), limiter.slot(0, stopped, lambda seconds: None):
            raise AssertionError("it was to end")
    assert limiter.waiting == 0
