"""What turns token ids into vectors. One interface; each backend is imported only when it is
chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    TokenIds = npt.NDArray[np.int32]
    Vectors = npt.NDArray[np.float32]


class Backend(Protocol):
    """Computes vectors. Used by one thread at a time; keeps nothing of a finished batch."""

    dimensions: int
    """Length of a vector."""

    default_batch_tokens: int
    """Padded tokens per batch that are fastest for this backend."""

    def prepare(self, max_batch_tokens: int) -> None:
        """Allocate what batches of up to so many padded tokens need. Called once, before use."""

    def encode(self, rows: Sequence[TokenIds], bucket: int) -> Vectors:
        """Return one vector per row. No row is empty or longer than `bucket`."""
        raise NotImplementedError
