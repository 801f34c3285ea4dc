"""The numpy backend against a slow computation in double precision of the same tiny model."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from memguard_native.embedding.backends.numpy_bert import NumpyBert
from memguard_native.embedding.errors import ModelError
from memguard_native.embedding.models import read_bert_spec

from .tiny import HIDDEN, MAX_LENGTH, make_tiny_model, reference_vector, weights, write_safetensors

IDS = [[2, 12, 3], [2, 13, 14, 15, 16, 3], [2, 3], [2, *range(4, 24), 3]]
ROWS = [np.array(ids, np.int32) for ids in IDS]


def open_model(directory, **options) -> NumpyBert:
    backend = NumpyBert(read_bert_spec(directory), **options)
    backend.prepare(256)
    return backend


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_vectors_equal_the_reference(tmp_path, pooling, normalize, activation):
    kind = {"pooling": pooling, "normalize": normalize, "activation": activation}
    vectors = open_model(make_tiny_model(tmp_path, **kind)).encode(ROWS, MAX_LENGTH)
    expected = [reference_vector(ids, **kind) for ids in IDS]
    np.testing.assert_allclose(vectors, expected, atol=2e-6)


def test_mapped_weights_give_the_same_vectors(tiny_model):
    packed = open_model(tiny_model).encode(ROWS, MAX_LENGTH)
    mapped = open_model(tiny_model, packed=False).encode(ROWS, MAX_LENGTH)
    np.testing.assert_allclose(mapped, packed, atol=1e-6)


def test_company_and_bucket_do_not_change_a_vector(tiny_model):
    backend = open_model(tiny_model)
    together = backend.encode(ROWS, MAX_LENGTH)
    for row, vector in zip(ROWS, together, strict=True):
        np.testing.assert_allclose(backend.encode([row], len(row))[0], vector, atol=1e-6)


def test_vectors_outlive_the_next_batch(tiny_model):
    backend = open_model(tiny_model)
    vectors = backend.encode(ROWS[:1], MAX_LENGTH)
    kept = vectors.copy()
    backend.encode(ROWS[1:2], MAX_LENGTH)
    np.testing.assert_array_equal(vectors, kept)


@pytest.mark.parametrize(("dtype", "tolerance"), [("F16", 2e-3), ("BF16", 2e-2)])
def test_half_precision_weights_are_widened(tmp_path, dtype, tolerance):
    vectors = open_model(make_tiny_model(tmp_path, dtype=dtype)).encode(ROWS, MAX_LENGTH)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [reference_vector(ids) for ids in IDS], atol=tolerance)


def test_weights_saved_with_a_head_around_them_are_found(tmp_path):
    vectors = open_model(make_tiny_model(tmp_path, prefix="bert.")).encode(ROWS, MAX_LENGTH)
    np.testing.assert_allclose(vectors, [reference_vector(ids) for ids in IDS], atol=2e-6)


def test_a_batch_allocates_no_activations(tiny_model):
    backend = open_model(tiny_model)
    backend.prepare(8192)
    batch = [ROWS[3]] * (8192 // len(ROWS[3]))
    backend.encode(batch, MAX_LENGTH)
    tracemalloc.start()
    try:
        backend.encode(batch, MAX_LENGTH)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # numpy's iterators use some 100 kB whatever the size; the smallest activation is 5 times that.
    smallest_activation = len(batch) * len(ROWS[3]) * HIDDEN * 4
    assert smallest_activation > 500_000
    assert peak_bytes < smallest_activation / 2


def test_a_missing_tensor_is_named(tmp_path):
    directory = make_tiny_model(tmp_path)
    tensors = weights()
    del tensors["encoder.layer.1.output.dense.bias"]
    write_safetensors(directory / "model.safetensors", tensors)
    with pytest.raises(ModelError, match=r"no tensor 'encoder\.layer\.1\.output\.dense\.bias'"):
        open_model(directory)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path):
    directory = make_tiny_model(tmp_path)
    tensors = weights()
    tensors["embeddings.LayerNorm.bias"] = np.zeros(HIDDEN + 1)
    write_safetensors(directory / "model.safetensors", tensors)
    with pytest.raises(
        ModelError, match=r"'embeddings\.LayerNorm\.bias' has shape \(17,\).*\(16,\)"
    ):
        open_model(directory)
