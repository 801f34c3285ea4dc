"""`EmbeddingConfig`: everything that decides how the embedding server behaves, checked once.

Frozen and keyword-only. Times are seconds; tokens are padded tokens (rows times the length that
they are computed at), for that is what costs time and memory. Where the server listens is not part
of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from memguard_native.errors import ConfigError, is_finite_number

BACKENDS = ("numpy", "sentence-transformers")
MAX_NAME_BYTES = 114  # a breaker's name is at most 120 bytes, and "embed:" comes before


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """How to serve one embedding model.

    Raises ConfigError: a value is of the wrong type or out of range.
    """

    model: str | None = None
    """Directory or Hugging Face id; None: the default model, if it is installed."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face id."""
    backend: str = "numpy"
    """"numpy", or "sentence-transformers" for models that numpy does not know."""
    served_name: str | None = None
    """The model's name on the wire; None: made from `model`."""
    aliases: tuple[str, ...] = ()
    """Further names that clients may use."""
    truncate: bool = True
    """Cut inputs that are too long for the model, as sentence-transformers does, or refuse them."""
    mapped_weights: bool = False
    """numpy: compute on the mapped file. 40 MiB less private memory with MiniLM; single short texts
    take 1.15 times as long, batches the same.
    """
    compute_threads: int = 1
    """Threads of the compute library, where it can be told at run time (sentence-transformers)."""
    max_batch_tokens: int | None = None
    """Padded tokens computed at once; None: the backend's own choice."""
    max_queue_tokens: int | None = None
    """Padded tokens that may wait; None: four seconds' worth, as measured at start."""
    max_request_tokens: int = 524_288
    """Padded tokens of one request."""
    max_inputs: int = 2048
    """Inputs of one request (OpenAI's own limit)."""
    max_body_bytes: int = 8 * 1024 * 1024
    """Bytes of a request body."""
    max_concurrent_requests: int = 512
    """Requests that are read, waiting or computed at the same time."""
    read_timeout: float = 30.0
    """Seconds in which a request body must have arrived."""
    queue_timeout: float = 10.0
    """Seconds without any progress after which a waiting request is given up."""
    batch_timeout: float = 30.0
    """Seconds after which a batch counts as failed, and its thread as stuck."""
    drain_timeout: float = 30.0
    """Seconds that waiting requests are given at shutdown."""

    def __post_init__(self) -> None:
        _validate(self)


def _validate(config: EmbeddingConfig) -> None:
    if config.backend not in BACKENDS:
        raise ConfigError("backend", config.backend, f"must be one of {', '.join(BACKENDS)}")
    for name in ("model", "revision", "served_name"):
        value = getattr(config, name)
        if value is not None and not (isinstance(value, str) and value):
            raise ConfigError(name, value, "must be non-empty text or None")
    if config.revision is not None and config.model is None:
        raise ConfigError("revision", config.revision, "needs a Hugging Face id as model")
    if not isinstance(config.aliases, tuple):
        raise ConfigError("aliases", config.aliases, "must be a tuple of names")
    for alias in config.aliases:
        check_name("aliases", alias)
    if config.served_name is not None:
        check_name("served_name", config.served_name)
    for name in ("truncate", "mapped_weights"):
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(name, getattr(config, name), "must be True or False")
    for name in ("max_batch_tokens", "max_queue_tokens"):
        if getattr(config, name) is not None:
            _check_whole(config, name)
    for name in _COUNTS:
        _check_whole(config, name)
    for name in ("read_timeout", "queue_timeout", "batch_timeout", "drain_timeout"):
        value = getattr(config, name)
        if not is_finite_number(value) or value <= 0:
            raise ConfigError(name, value, "must be a number of seconds > 0")


_COUNTS = (
    "compute_threads",
    "max_request_tokens",
    "max_inputs",
    "max_body_bytes",
    "max_concurrent_requests",
)


def _check_whole(config: EmbeddingConfig, name: str) -> None:
    value = getattr(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(name, value, "must be a whole number >= 1")


def check_name(field: str, name: object) -> None:
    """Raise ConfigError unless `name` can name a model on the wire, in a log line and in a metric
    label.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ConfigError(field, name, "must be non-empty printable text")
    if len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        raise ConfigError(field, name, f"must be at most {MAX_NAME_BYTES} bytes of UTF-8")
