"""What can go wrong in the embedding server: with the model, with the backend, with a request.

`ApiError` becomes the answer to one request, in the shape that OpenAI's clients read. `ModelError`
keeps the server from starting. `BackendError` is the model's failure on valid input: the only one
that the breaker counts.
"""

from __future__ import annotations

import random

from memguard_native.errors import MemguardError

# openai-python sleeps a wait of up to 120 s and gives up beyond it, so a large value is never sent.
# Within these bounds a fresh worker or a drained queue is there in time.
MIN_RETRY_AFTER_MS = 25.0
MAX_RETRY_AFTER_MS = 2000.0
_JITTER = 0.2


class ModelError(MemguardError):
    """A model cannot be used: its files are missing, damaged, or of a kind that is not supported.

    `path` names the file or directory, `problem` what is wrong, `cure` what to do about it.
    """

    def __init__(self, path: object, problem: str, cure: str = "") -> None:
        super().__init__(str(path), problem, cure)
        self.path = str(path)
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        text = f"{self.path}: {self.problem}"
        return f"{text}; {self.cure}" if self.cure else text


class BackendError(MemguardError):
    """The backend failed on input that is valid: an exception, or vectors that are not finite."""


class BatchTimeoutError(BackendError):
    """A batch took longer than `batch_timeout`; its vectors are not used."""


class ApiError(MemguardError):
    """The answer to one request that cannot be served.

    `status` is the HTTP status, `code` is what surfaces as `exception.code` in OpenAI's clients,
    `param` the argument at fault. `retry_after_ms`, if given, is sent in the header
    `retry-after-ms`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return self.message

    @property
    def type(self) -> str:
        """OpenAI's coarse class of the error."""
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"


def invalid(message: str, *, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """Return the answer to a request that can never succeed as it is."""
    return ApiError(400, code, message, param=param)


def too_large(message: str, *, param: str | None = None) -> ApiError:
    """Return the answer to a request that succeeds once it is split."""
    return ApiError(413, "request_too_large", message, param=param)


def overloaded(message: str, wait: float) -> ApiError:
    """Return the answer to a request for which there is no room now; `wait`: seconds until there
    is.
    """
    return ApiError(429, "overloaded", message, retry_after_ms=retry_after_ms(wait))


def unavailable(message: str, wait: float) -> ApiError:
    """Return the answer while nothing can be served; `wait`: seconds until that may change."""
    return ApiError(503, "unavailable", message, retry_after_ms=retry_after_ms(wait))


def retry_after_ms(wait: float) -> int:
    """Return `wait` seconds as milliseconds in 25..2000, spread by 20 % so that clients come back
    apart.
    """
    # The bounds are narrowed first: clipping after the spread would gather clients on the bound
    # itself.
    low, high = MIN_RETRY_AFTER_MS / (1 - _JITTER), MAX_RETRY_AFTER_MS / (1 + _JITTER)
    spread = random.uniform(1 - _JITTER, 1 + _JITTER)
    return round(min(max(wait * 1000, low), high) * spread)
