"""Reads safetensors files without copying: the header is checked in full, the data is mapped.

A file is a little-endian 64-bit length, a JSON header of that length, and the tensors' bytes. Every
claim of the header is checked against the file before an array is made from it, so that a damaged
or hostile file gives a `ModelError` and never a wrong view of memory: the header's size, duplicate
names, types, shapes, the size that type and shape imply, and that the tensors cover the data
without overlap or gap. F32 tensors are views of the map; F16 and BF16 are widened to float32, which
copies them.

The map stays valid as long as the file is not cut short underneath; nothing can protect against
that.
"""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memguard_native.embedding.errors import ModelError

MAX_HEADER_BYTES = 100_000_000  # the limit of the format's reference implementation
_LENGTH_BYTES = 8
_CURE = "fetch the model again"

_ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it; `begin` and `end` count bytes from the start of the
    data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The checked header: the tensors in the order of their bytes, and where the data starts."""

    tensors: tuple[TensorInfo, ...]
    data_start: int


def read_header(path: Path) -> Header:
    """Read and check the header of `path`.

    Raises ModelError: the file is missing, cut short, or its header does not describe it.
    """
    try:
        with path.open("rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            length = _read_length(path, file.read(_LENGTH_BYTES), file_bytes)
            raw = file.read(length)
    except OSError as error:
        raise ModelError(path, f"cannot be read ({error.strerror})", _CURE) from error
    data_start = _LENGTH_BYTES + length
    tensors = parse_header(path, raw, file_bytes - data_start)
    return Header(tensors, data_start)


def _read_length(path: Path, prefix: bytes, file_bytes: int) -> int:
    if len(prefix) < _LENGTH_BYTES:
        raise ModelError(path, f"has {file_bytes} bytes, too few for a safetensors file", _CURE)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise ModelError(
            path, f"claims a header of {length} bytes; it is no safetensors file", _CURE
        )
    if _LENGTH_BYTES + length > file_bytes:
        raise ModelError(path, "is cut short: it ends inside its header", _CURE)
    return length


def parse_header(path: Path, raw: bytes, data_bytes: int) -> tuple[TensorInfo, ...]:
    """Check the header `raw` against `data_bytes` of data; return the tensors in the order of their
    bytes.

    Raises ModelError: some claim of the header is wrong.
    """
    try:
        entries = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ModelError(path, f"has a header that is not valid JSON ({error})", _CURE) from error
    if not isinstance(entries, dict):
        raise ModelError(path, "has a header that is not a JSON object", _CURE)
    entries.pop("__metadata__", None)
    tensors = sorted(
        (_parse_tensor(path, name, entry) for name, entry in entries.items()),
        key=lambda tensor: (tensor.begin, tensor.end),
    )
    _check_cover(path, tensors, data_bytes)
    return tuple(tensors)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _parse_tensor(path: Path, name: str, entry: object) -> TensorInfo:
    def damaged(problem: str) -> ModelError:
        return ModelError(path, f"tensor {name!r} {problem}", _CURE)

    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise damaged("is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise damaged(f"has the unknown type {dtype!r}")
    if not _is_sizes(shape):
        raise damaged("has a shape that is not a list of sizes")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise damaged("has offsets that are not [begin, end]")
    expected = _ITEM_BYTES[dtype]
    for size in shape:
        expected *= size
    if offsets[1] - offsets[0] != expected:
        raise damaged(
            f"has {offsets[1] - offsets[0]} bytes, {dtype} of shape {shape} needs {expected}"
        )
    return TensorInfo(name, dtype, tuple(shape), offsets[0], offsets[1])


def _is_sizes(value: object) -> bool:
    # bool is an int to isinstance; floats such as 1e3 are no sizes either.
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_cover(path: Path, tensors: list[TensorInfo], data_bytes: int) -> None:
    position = 0
    for tensor in tensors:
        if tensor.begin != position:
            what = "overlaps the tensor before it" if tensor.begin < position else "leaves a gap"
            raise ModelError(path, f"tensor {tensor.name!r} {what}", _CURE)
        position = tensor.end
    if position > data_bytes:
        raise ModelError(path, f"is cut short: {position - data_bytes} bytes are missing", _CURE)
    if position < data_bytes:
        raise ModelError(path, f"has {data_bytes - position} bytes that no tensor owns", _CURE)


class TensorFile:
    """The tensors of one file. `read(name)` gives float32 arrays; F32 ones are read-only views of
    the map.

    Raises ModelError: see `read_header`.
    """

    def __init__(self, path: Path) -> None:
        header = read_header(path)
        self._path = path
        self._tensors = {tensor.name: tensor for tensor in header.tensors}
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._data = np.frombuffer(self._map, np.uint8, offset=header.data_start)

    @property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._tensors)

    def release(self) -> None:
        """Hand the mapped pages back to the page cache; reading them again brings them back."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Return a tensor as float32.

        Raises ModelError: there is no such tensor, or it holds no floating-point numbers.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(self._path, f"has no tensor {name!r}")
        raw = self._data[tensor.begin : tensor.end]
        if tensor.dtype == "F32":
            values = _as_type(raw, np.dtype("<f4"))
        elif tensor.dtype == "F16":
            values = _as_type(raw, np.dtype("<f2")).astype(np.float32)
        elif tensor.dtype == "BF16":
            # bfloat16 is the upper half of a float32.
            values = (_as_type(raw, np.dtype("<u2")).astype(np.uint32) << 16).view(np.float32)
        else:
            raise ModelError(self._path, f"tensor {name!r} is {tensor.dtype}, not F32, F16 or BF16")
        return values.reshape(tensor.shape)


def _as_type(raw: npt.NDArray[np.uint8], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """View `raw` as `dtype`; a header of odd length leaves the data unaligned, which a copy
    repairs.
    """
    values = raw.view(dtype)
    return values if values.flags.aligned else values.copy()


def open_tensors(directory: Path) -> list[TensorFile]:
    """Open `model.safetensors` in `directory`, or the shards that `model.safetensors.index.json`
    names.

    Raises ModelError: neither is there, or one of them is damaged.
    """
    single = directory / "model.safetensors"
    index = directory / "model.safetensors.index.json"
    if single.exists() or not index.exists():
        return [TensorFile(single)]
    return [TensorFile(directory / name) for name in _shard_names(index)]


def _shard_names(index: Path) -> list[str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = sorted(set(weight_map.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(index, "has no readable weight_map", _CURE) from error
    for name in names:
        # A name with a directory in it could leave the model's own.
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or not name.endswith(".safetensors")
        ):
            raise ModelError(
                index, f"names the shard {name!r}, which is no safetensors file beside it"
            )
    return names
