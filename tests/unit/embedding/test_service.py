"""How a service is named, and what it refuses before anything is loaded."""

from __future__ import annotations

import sys

import pytest

from memguard_native.embedding.backends.sentence_transformers import SentenceTransformersBackend
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.errors import ModelError
from memguard_native.embedding.service import EmbeddingService, _slices
from memguard_native.errors import ConfigError

from .tiny import config, make_tiny_model, write_json


def test_a_directory_is_served_under_its_name_and_the_aliases(tiny_model):
    service = EmbeddingService(EmbeddingConfig(model=str(tiny_model), aliases=("a", "tiny", "a")))
    assert (service.name, service.names) == ("tiny", ["tiny", "a"])
    assert service.breaker.name == "embed:tiny"


def test_a_served_name_replaces_the_models_own(tiny_model):
    service = EmbeddingService(EmbeddingConfig(model=str(tiny_model), served_name="mine"))
    assert service.names == ["mine"]


def test_a_model_of_another_kind_is_refused_at_construction(tmp_path):
    directory = make_tiny_model(tmp_path)
    write_json(directory / "config.json", {**config(), "model_type": "roberta"})
    with pytest.raises(ModelError, match="--backend sentence-transformers"):
        EmbeddingService(EmbeddingConfig(model=str(directory)))
    EmbeddingService(EmbeddingConfig(model=str(directory), backend="sentence-transformers"))


def test_without_sentence_transformers_its_extra_is_named(monkeypatch, tiny_model):
    for name in ("torch", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'memguard-native\[embed-st\]'"):
        SentenceTransformersBackend(tiny_model)


def test_slices_cover_the_inputs_in_order_and_bound_their_size():
    inputs = ["x" * size for size in [10, 70_000, 5, 60_000, 9_000, *[1] * 200]]
    slices = list(_slices(inputs))
    covered = [i for part in slices for i in range(len(inputs))[part]]
    assert covered == list(range(len(inputs)))
    for part in slices:
        texts = inputs[part]
        assert len(texts) <= 64
        assert len(texts) == 1 or sum(map(len, texts)) <= 65_536
