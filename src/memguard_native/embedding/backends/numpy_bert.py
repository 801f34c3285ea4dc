"""BERT sentence encoders in numpy: no torch; MiniLM in about 100 MiB of private memory.

The forward pass of `BertModel` (absolute positions, gelu or relu), then mean, CLS or max pooling
and, if the model asks for it, the L2 norm. Vectors agree with sentence-transformers to about 2e-7.

All activations live in scratch buffers that are allocated once, so that steady state allocates
nothing that depends on the batch: memory is flat by construction. That makes an instance unusable
from two threads at a time. Embeddings are read from the mapped file; the layers' weights are packed
by default (contiguous, transposed, Q, K and V side by side), which costs their size in private
memory and makes single short texts 1.15 times as fast as computing on the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from memguard_native.embedding.errors import ModelError
from memguard_native.embedding.models import BertSpec
from memguard_native.embedding.safetensors import TensorFile, open_tensors

if TYPE_CHECKING:
    from memguard_native.embedding.backends import TokenIds, Vectors

Array = npt.NDArray[np.float32]

# Added to the scores of padding: large enough that exp() gives 0, small enough to stay finite.
_MASKED = np.float32(-1e9)
# Elements of a block of the activation function: its few temporaries stay in the second-level
# cache.
_BLOCK_ELEMENTS = 32_768


@dataclass(frozen=True)
class _Linear:
    """A dense layer: `x @ weight + bias`, into the columns `columns` of its output."""

    weight: Array
    bias: Array
    columns: slice

    def apply(self, x: Array, out: Array) -> None:
        target = out[:, self.columns]
        np.matmul(x, self.weight, out=target)
        np.add(target, self.bias, out=target)


@dataclass(frozen=True)
class _Norm:
    weight: Array
    bias: Array


@dataclass(frozen=True)
class _Layer:
    query_key_value: tuple[_Linear, ...]
    attention_output: _Linear
    attention_norm: _Norm
    intermediate: _Linear
    output: _Linear
    output_norm: _Norm


class NumpyBert:
    """A BERT sentence encoder. `packed=False` computes on the mapped weights instead of copies.

    Raises ModelError: the weights are missing, damaged, or not those that the configuration
    describes.
    """

    default_batch_tokens = 512

    def __init__(self, spec: BertSpec, *, packed: bool = True) -> None:
        files = open_tensors(spec.directory)
        weights = _Weights(spec, files, packed)
        hidden = spec.hidden_size
        self.dimensions = hidden
        self._spec = spec
        self._words = weights.read(
            "embeddings.word_embeddings.weight", (spec.vocabulary_size, hidden)
        )
        positions = weights.read(
            "embeddings.position_embeddings.weight", (spec.max_positions, hidden)
        )
        types = weights.read("embeddings.token_type_embeddings.weight", (spec.type_count, hidden))
        self._positions = positions[: spec.max_length] + types[0]
        self._norm = weights.norm("embeddings.LayerNorm")
        self._layers = [weights.layer(index) for index in range(spec.layer_count)]
        self._activate = _gelu if spec.activation == "gelu" else _relu
        if packed:
            # The layers were copied: their 40 MiB of mapped pages would only look like ours.
            for file in files:
                file.release()

    def prepare(self, max_batch_tokens: int) -> None:
        """Allocate the scratch buffers for batches of up to `max_batch_tokens`."""
        spec, tokens = self._spec, max_batch_tokens
        hidden = tokens * spec.hidden_size
        # Q, K and V are done with before the intermediate layer starts: they share one buffer.
        wide = tokens * max(3 * spec.hidden_size, spec.intermediate_size)
        self._ids = np.zeros(tokens, np.intp)
        self._x, self._attended, self._projected = (np.zeros(hidden, np.float32) for _ in range(3))
        self._wide = np.zeros(wide, np.float32)
        self._scores = np.zeros(tokens * spec.head_count * spec.max_length, np.float32)
        self._row_max = np.zeros(tokens * spec.head_count, np.float32)
        self._row_sum = np.zeros(tokens * spec.head_count, np.float32)
        self._mean, self._deviation = (np.zeros((tokens, 1), np.float32) for _ in range(2))
        self._blocks = np.zeros((3, max(_BLOCK_ELEMENTS, spec.intermediate_size)), np.float32)

    def encode(self, rows: Sequence[TokenIds], bucket: int) -> Vectors:
        """Return one vector per row; computed at the longest row's length, not at `bucket`."""
        lengths = np.array([len(row) for row in rows], np.intp)
        count, length = len(rows), int(lengths.max())
        tokens, hidden = count * length, self._spec.hidden_size
        x = self._x[: tokens * hidden].reshape(tokens, hidden)
        self._embed(rows, length, x)
        padding = None
        if int(lengths.min()) < length:
            is_padding = np.arange(length) >= lengths[:, None]
            padding = np.where(is_padding, _MASKED, np.float32(0))[:, None, None, :]
        for layer in self._layers:
            self._attend(layer, x, count, length, padding)
            self._feed_forward(layer, x)
        return self._pool(x.reshape(count, length, hidden), lengths)

    def _embed(self, rows: Sequence[TokenIds], length: int, x: Array) -> None:
        ids = self._ids[: len(rows) * length].reshape(len(rows), length)
        ids.fill(self._spec.pad_id)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        # mode="clip" writes straight into `out`; the default buffers it. Ids are checked long
        # before.
        np.take(self._words, ids.reshape(-1), axis=0, out=x, mode="clip")
        by_row = x.reshape(len(rows), length, -1)
        np.add(by_row, self._positions[:length], out=by_row)
        self._normalize(x, self._norm)

    def _attend(
        self, layer: _Layer, x: Array, count: int, length: int, padding: Array | None
    ) -> None:
        spec, tokens = self._spec, count * length
        heads, size = spec.head_count, spec.hidden_size // spec.head_count
        fused = self._wide[: tokens * 3 * spec.hidden_size].reshape(tokens, 3 * spec.hidden_size)
        for linear in layer.query_key_value:
            linear.apply(x, fused)
        # (rows, heads, length, size), as views: BLAS takes the strides as they are.
        query, key, value = fused.reshape(count, length, 3, heads, size).transpose(2, 0, 3, 1, 4)
        np.multiply(query, np.float32(size**-0.5), out=query)
        shape = (count, heads, length, length)
        scores = self._scores[: tokens * heads * length].reshape(shape)
        np.matmul(query, key.swapaxes(2, 3), out=scores)
        if padding is not None:
            np.add(scores, padding, out=scores)
        row_max = self._row_max[: tokens * heads].reshape(count, heads, length, 1)
        row_sum = self._row_sum[: tokens * heads].reshape(count, heads, length, 1)
        np.amax(scores, axis=3, keepdims=True, out=row_max)
        np.subtract(scores, row_max, out=scores)
        np.exp(scores, out=scores)
        np.sum(scores, axis=3, keepdims=True, out=row_sum)
        attended = self._attended[: x.size].reshape(x.shape)
        by_head = attended.reshape(count, length, heads, size).transpose(0, 2, 1, 3)
        np.matmul(scores, value, out=by_head)
        # Softmax divides here: the context has fewer elements than the scores.
        np.divide(by_head, row_sum, out=by_head)
        self._add(x, layer.attention_output, attended, layer.attention_norm)

    def _feed_forward(self, layer: _Layer, x: Array) -> None:
        size = self._spec.intermediate_size
        wide = self._wide[: len(x) * size].reshape(len(x), size)
        layer.intermediate.apply(x, wide)
        rows = max(1, _BLOCK_ELEMENTS // size)
        for start in range(0, len(wide), rows):
            self._activate(wide[start : start + rows].reshape(-1), self._blocks)
        self._add(x, layer.output, wide, layer.output_norm)

    def _add(self, x: Array, linear: _Linear, inner: Array, norm: _Norm) -> None:
        projected = self._projected[: x.size].reshape(x.shape)
        linear.apply(inner, projected)
        np.add(x, projected, out=x)
        self._normalize(x, norm)

    def _normalize(self, x: Array, norm: _Norm) -> None:
        mean, deviation = self._mean[: len(x)], self._deviation[: len(x)]
        np.mean(x, axis=1, keepdims=True, out=mean)
        np.subtract(x, mean, out=x)
        np.einsum("ij,ij->i", x, x, out=deviation[:, 0])
        np.divide(deviation, np.float32(x.shape[1]), out=deviation)
        np.add(deviation, np.float32(self._spec.norm_epsilon), out=deviation)
        np.sqrt(deviation, out=deviation)
        np.divide(x, deviation, out=x)
        np.multiply(x, norm.weight, out=x)
        np.add(x, norm.bias, out=x)

    def _pool(self, x: Array, lengths: npt.NDArray[np.intp]) -> Vectors:
        vectors = np.empty((len(x), self.dimensions), np.float32)
        for vector, states, length in zip(vectors, x, lengths, strict=True):
            if self._spec.pooling == "cls":
                vector[:] = states[0]
            elif self._spec.pooling == "max":
                np.amax(states[:length], axis=0, out=vector)
            else:
                np.mean(states[:length], axis=0, out=vector)
        if self._spec.normalize:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            np.divide(vectors, np.maximum(norms, np.float32(1e-12)), out=vectors)
        return vectors


def _relu(x: Array, blocks: Array) -> None:
    np.maximum(x, np.float32(0), out=x)


# erf(z) = 1 - (a1 t + ... + a5 t^5) exp(-z^2), t = 1 / (1 + p z), z >= 0: Abramowitz and Stegun
# 7.1.26, off by at most 1.5e-7. The coefficients are halved, for gelu(x) = max(x, 0) - |x| (1 -
# erf(|x| / sqrt 2)) / 2.
_ERF_P = np.float32(0.3275911 / 2**0.5)
_ERF_HALVES = tuple(
    np.float32(a / 2) for a in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
)


def _gelu(x: Array, blocks: Array) -> None:
    magnitude, t, tail = blocks[:, : x.size]
    np.abs(x, out=magnitude)
    np.multiply(magnitude, _ERF_P, out=t)
    np.add(t, np.float32(1), out=t)
    np.reciprocal(t, out=t)
    np.multiply(t, _ERF_HALVES[0], out=tail)
    for coefficient in _ERF_HALVES[1:]:
        np.add(tail, coefficient, out=tail)
        np.multiply(tail, t, out=tail)
    np.multiply(tail, magnitude, out=tail)
    np.multiply(magnitude, magnitude, out=magnitude)
    np.multiply(magnitude, np.float32(-0.5), out=magnitude)
    np.exp(magnitude, out=magnitude)
    np.multiply(tail, magnitude, out=tail)
    np.maximum(x, np.float32(0), out=x)
    np.subtract(x, tail, out=x)


class _Weights:
    """Reads the layers from the tensor files, checking every shape against the configuration."""

    def __init__(self, spec: BertSpec, files: list[TensorFile], packed: bool) -> None:
        self._spec = spec
        self._packed = packed
        self._files = {name: file for file in files for name in file.names}
        # Saved as a BertModel, or as a model with a head around one.
        known = "embeddings.word_embeddings.weight"
        self._prefix = (
            "bert." if known not in self._files and "bert." + known in self._files else ""
        )

    def read(self, name: str, shape: tuple[int, ...]) -> Array:
        name = self._prefix + name
        if name not in self._files:
            raise ModelError(
                self._spec.directory, f"has no tensor {name!r}; it is not a BERT model"
            )
        values = self._files[name].read(name)
        if values.shape != shape:
            problem = f"tensor {name!r} has shape {values.shape}, config.json implies {shape}"
            raise ModelError(self._spec.directory, problem)
        return values

    def norm(self, name: str) -> _Norm:
        shape = (self._spec.hidden_size,)
        return _Norm(self.read(f"{name}.weight", shape), self.read(f"{name}.bias", shape))

    def layer(self, index: int) -> _Layer:
        prefix = f"encoder.layer.{index}"
        hidden, wide = self._spec.hidden_size, self._spec.intermediate_size
        return _Layer(
            self._query_key_value(f"{prefix}.attention.self"),
            self._linear(f"{prefix}.attention.output.dense", hidden, hidden),
            self.norm(f"{prefix}.attention.output.LayerNorm"),
            self._linear(f"{prefix}.intermediate.dense", hidden, wide),
            self._linear(f"{prefix}.output.dense", wide, hidden),
            self.norm(f"{prefix}.output.LayerNorm"),
        )

    def _linear(self, name: str, inputs: int, outputs: int, start: int = 0) -> _Linear:
        weight = self.read(f"{name}.weight", (outputs, inputs)).T
        bias = self.read(f"{name}.bias", (outputs,))
        if self._packed:
            weight = np.ascontiguousarray(weight)
        return _Linear(weight, bias, slice(start, start + outputs))

    def _query_key_value(self, name: str) -> tuple[_Linear, ...]:
        size = self._spec.hidden_size
        if not self._packed:
            parts = enumerate(("query", "key", "value"))
            return tuple(self._linear(f"{name}.{part}", size, size, i * size) for i, part in parts)
        weight, bias = np.empty((size, 3 * size), np.float32), np.empty(3 * size, np.float32)
        for index, part in enumerate(("query", "key", "value")):
            columns = slice(index * size, (index + 1) * size)
            weight[:, columns] = self.read(f"{name}.{part}.weight", (size, size)).T
            bias[columns] = self.read(f"{name}.{part}.bias", (size,))
        return (_Linear(weight, bias, slice(0, 3 * size)),)
