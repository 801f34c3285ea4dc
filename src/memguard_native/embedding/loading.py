"""Makes a model ready to compute: where it lies, its tokenizer, its backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.models import ModelLocation, read_bert_spec, read_max_length

if TYPE_CHECKING:
    from memguard_native.embedding.backends import Backend
    from memguard_native.embedding.tokenize import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A tokenizer and the backend that computes its ids."""

    tokenizer: Tokenizer
    backend: Backend


def check_model(config: EmbeddingConfig, location: ModelLocation) -> None:
    """Read the model's configuration, without its weights.

    Raises ModelError: the chosen backend cannot compute this model.
    """
    if config.backend == "numpy":
        read_bert_spec(location.directory)
    else:
        read_max_length(location.directory)


def load_model(config: EmbeddingConfig, location: ModelLocation) -> LoadedModel:
    """Load tokenizer and weights.

    Raises ModelError: a file is missing or damaged. ConfigError: the backend is not installed.
    """
    from memguard_native.embedding.tokenize import Tokenizer

    directory = location.directory
    if config.backend == "numpy":
        from memguard_native.embedding.backends.numpy_bert import NumpyBert

        spec = read_bert_spec(directory)
        tokenizer = Tokenizer(directory, spec.max_length, spec.vocabulary_size)
        return LoadedModel(tokenizer, NumpyBert(spec, packed=not config.mapped_weights))

    from memguard_native.embedding.backends.sentence_transformers import (
        SentenceTransformersBackend,
    )

    tokenizer = Tokenizer(directory, read_max_length(directory))
    return LoadedModel(tokenizer, SentenceTransformersBackend(directory, config.compute_threads))
