"""The embedding server with a model that fails in one process: the one that a file names."""

from __future__ import annotations

import os
from pathlib import Path

from memguard_native.embedding.app import create_app
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.tokenize import Tokenizer

from ..unit.embedding.fakes import FakeBackend, loaded
from ..unit.embedding.tiny import MAX_LENGTH, tokenizer


def fail_where_told(rows):
    broken = Path(os.environ["APP_BROKEN_IF"])
    if broken.exists() and broken.read_text() == str(os.getpid()):
        raise RuntimeError("out of order")


def create():
    """For `recycling.run(factory=True)`."""
    directory = Path(os.environ["APP_TOKENIZER"])
    tokenizer().save(str(directory / "tokenizer.json"))
    model = loaded(FakeBackend(fail_where_told), Tokenizer(directory, MAX_LENGTH))
    return create_app(EmbeddingConfig(served_name="tiny"), load=model)
