"""sentence-transformers as the backend: every model that it knows, at the price of torch.

Token ids go in and vectors come out, as with the other backends: the model's own modules run after
our tokenizer, one batch of ours at a time, in our one inference thread. Code that comes with a
model is never run. Loading takes 5 to 10 s and about 500 MiB.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memguard_native.embedding.errors import ModelError
from memguard_native.errors import ConfigError

if TYPE_CHECKING:
    from memguard_native.embedding.backends import TokenIds, Vectors


class SentenceTransformersBackend:
    """The model in `directory`, computed by torch on the CPU with `threads` threads.

    Raises ConfigError: sentence-transformers is not installed. ModelError: it cannot load the
    model.
    """

    default_batch_tokens = 4096

    def __init__(self, directory: Path, threads: int = 1) -> None:
        try:
            self._torch: Any = importlib.import_module("torch")
            library: Any = importlib.import_module("sentence_transformers")
        except ImportError as error:
            allowed = "needs `pip install 'memguard-native[embed-st]'`"
            raise ConfigError("backend", "sentence-transformers", allowed) from error
        importlib.import_module("transformers.utils.logging").disable_progress_bar()
        self._torch.set_num_threads(threads)
        try:
            self._model = library.SentenceTransformer(
                str(directory), device="cpu", trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # anything at all: it depends on the model's own modules
            raise ModelError(
                directory, f"cannot be loaded by sentence-transformers ({error})"
            ) from error
        self._model.eval()
        self.dimensions = self._dimensions()

    def _dimensions(self) -> int:
        vector = self.encode([np.zeros(1, np.int32)], 1)
        return int(vector.shape[1])

    def prepare(self, max_batch_tokens: int) -> None:
        """torch allocates as it goes; there is nothing to prepare."""

    def encode(self, rows: Sequence[TokenIds], bucket: int) -> Vectors:
        """Return one vector per row; computed at `bucket`, so that torch sees few shapes."""
        ids = np.zeros((len(rows), bucket), np.int64)
        mask = np.zeros((len(rows), bucket), np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        torch = self._torch
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        with torch.inference_mode():
            vectors = self._model(features)["sentence_embedding"]
        return np.asarray(vectors.float().numpy())
