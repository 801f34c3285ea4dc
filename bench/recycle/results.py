"""What the requests of a load came to, and why its connections were made.

Times are those of `time.monotonic`, and latencies are in seconds.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple


class Failure(StrEnum):
    """What a request came to that was not answered as it should."""

    refused = "refused"  # no connection was made
    reset = "reset"
    empty = "empty"  # closed without a byte of an answer
    cut = "cut"  # closed within an answer
    timeout = "timeout"
    status = "status"  # any but 200
    wrong = "wrong"  # not the answer to this request


class Cause(StrEnum):
    """Why a connection was made."""

    first = "first"
    chosen = "chosen"  # by `new_connections`
    silent = "silent"  # the server had closed the idle one
    told = "told"  # the last answer said `connection: close`
    failed = "failed"  # the last request failed


class Answer(NamedTuple):
    """A request that was answered: when, after how long, by whom."""

    at: float
    latency: float
    pid: int


class Failed(NamedTuple):
    """A request that was not; `port` is the client's own, of the connection that it went over."""

    at: float
    kind: Failure
    port: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """What all requests came to; answers and failures in the order of time."""

    started_at: float
    ended_at: float
    answers: tuple[Answer, ...]
    failures: tuple[Failed, ...]
    connections: Mapping[Cause, int]

    @property
    def requests(self) -> int:
        return len(self.answers) + len(self.failures)

    @property
    def failed(self) -> int:
        return len(self.failures)

    @property
    def failed_by_kind(self) -> Counter[Failure]:
        return Counter(failed.kind for failed in self.failures)

    @property
    def answered_by_pid(self) -> Counter[int]:
        return Counter(answer.pid for answer in self.answers)

    @property
    def connects(self) -> int:
        return sum(self.connections.values())

    @property
    def extra_connects(self) -> int:
        """Those that clients with kept connections would not have made by themselves."""
        return self.connects - self.connections[Cause.first] - self.connections[Cause.chosen]

    @property
    def silent_reconnects(self) -> int:
        return self.connections[Cause.silent]

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.answers) / (self.ended_at - self.started_at)

    @property
    def p50(self) -> float:
        return self.latency(0.5)

    @property
    def p99(self) -> float:
        return self.latency(0.99)

    @property
    def p999(self) -> float:
        return self.latency(0.999)

    @property
    def max(self) -> float:
        return self.latency(1.0)

    def latency(self, share: float) -> float:
        """What this share of the answers did not exceed; not a number where there is none."""
        if not self._latencies:
            return math.nan
        return self._latencies[max(0, math.ceil(share * len(self._latencies)) - 1)]

    @property
    def longest_silence(self) -> float:
        """The longest time without any answer, though requests waited for one."""
        times = [self.started_at, *(answer.at for answer in self.answers), self.ended_at]
        return max(after - before for before, after in itertools.pairwise(times))

    @cached_property
    def _latencies(self) -> list[float]:
        return sorted(answer.latency for answer in self.answers)
