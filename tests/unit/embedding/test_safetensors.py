"""The safetensors reader: what is right is read without copying, what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memguard_native.embedding.errors import ModelError
from memguard_native.embedding.safetensors import TensorFile, open_tensors, parse_header

from .tiny import write_json, write_safetensors

VALUES = {"one": np.arange(6.0).reshape(2, 3), "two": np.array([0.5, -2.0])}
GOOD = {
    "one": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "two": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
}


def write_raw(path: Path, header: object, data_bytes: int = 32, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    declared = len(raw) if length is None else length
    path.write_bytes(declared.to_bytes(8, "little") + raw + bytes(data_bytes))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_floating_point_tensors_are_read_as_float32(path, dtype):
    write_safetensors(path, VALUES, dtype)
    file = TensorFile(path)
    assert file.names == {"one", "two"}
    for name, values in VALUES.items():
        read = file.read(name)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values)


def test_float32_tensors_are_read_only_views_of_the_file(path):
    header = json.dumps(GOOD).encode()
    padded = header + b" " * (-len(header) % 8)
    write_raw(path, padded)
    values = TensorFile(path).read("one")
    assert not values.flags.owndata
    assert not values.flags.writeable


def test_a_released_file_can_still_be_read(path):
    write_safetensors(path, VALUES)
    file = TensorFile(path)
    file.release()
    np.testing.assert_array_equal(file.read("two"), VALUES["two"])


def test_integers_are_refused_when_read(path):
    write_safetensors(path, {"ids": np.arange(3)}, "I64")
    with pytest.raises(ModelError, match="'ids' is I64, not F32, F16 or BF16"):
        TensorFile(path).read("ids")


def test_an_unknown_name_is_named(path):
    write_safetensors(path, VALUES)
    with pytest.raises(ModelError, match="no tensor 'three'"):
        TensorFile(path).read("three")


def changed(**changes: object) -> dict[str, object]:
    return {**GOOD, "two": {**GOOD["two"], **changes}}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"{", "not valid JSON"),
        (b"[" * 50_000, "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"a": 1, "a": 2}', "a name occurs twice"),
        ([], "not a JSON object"),
        ({"one": 3}, "'one' is not described"),
        ({"one": {"dtype": "F32"}}, "'one' is not described"),
        (changed(dtype="F31"), "unknown type 'F31'"),
        (changed(dtype=[]), "unknown type"),
        (changed(shape=[-2]), "shape that is not a list of sizes"),
        (changed(shape=[True, 2]), "shape that is not a list of sizes"),
        (changed(shape=[2.0]), "shape that is not a list of sizes"),
        (changed(shape="2"), "shape that is not a list of sizes"),
        (changed(shape=[3]), r"has 8 bytes, F32 of shape \[3\] needs 12"),
        (changed(shape=[2**62, 2**62]), "needs"),
        (changed(data_offsets=[32, 24]), "offsets that are not"),
        (changed(data_offsets=[24]), "offsets that are not"),
        (changed(data_offsets=[24, 28, 32]), "offsets that are not"),
        (changed(data_offsets=[16, 24]), "'two' overlaps"),
        (changed(data_offsets=[28, 36]), "'two' leaves a gap"),
        ({"two": GOOD["two"]}, "'two' leaves a gap"),
        ({"one": GOOD["one"]}, "8 bytes that no tensor owns"),
        ({}, "32 bytes that no tensor owns"),
    ],
)
def test_a_header_that_does_not_describe_the_file_is_refused(path, header, problem):
    write_raw(path, header)
    with pytest.raises(ModelError, match=problem):
        TensorFile(path)


@pytest.mark.parametrize("size", [0, 7])
def test_a_file_too_short_for_a_length_is_refused(path, size):
    path.write_bytes(bytes(size))
    with pytest.raises(ModelError, match=f"has {size} bytes, too few"):
        TensorFile(path)


def test_a_file_that_ends_inside_its_header_is_refused(path):
    write_raw(path, b"{}", data_bytes=0, length=100)
    with pytest.raises(ModelError, match="ends inside its header"):
        TensorFile(path)


def test_a_file_that_ends_inside_its_data_is_refused(path):
    write_raw(path, GOOD, data_bytes=20)
    with pytest.raises(ModelError, match="cut short: 12 bytes are missing"):
        TensorFile(path)


def test_an_absurd_header_length_is_refused_before_it_is_read(path):
    write_raw(path, GOOD, length=2**63)
    with pytest.raises(ModelError, match="claims a header of 9223372036854775808 bytes"):
        TensorFile(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read \(No such file"):
        TensorFile(path)


def test_metadata_is_no_tensor(path):
    write_raw(path, {"__metadata__": {"format": "pt"}, **GOOD})
    assert TensorFile(path).names == {"one", "two"}


def test_shards_are_found_by_their_index(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", {"one": VALUES["one"]})
    write_safetensors(tmp_path / "b.safetensors", {"two": VALUES["two"]})
    weight_map = {"one": "a.safetensors", "two": "b.safetensors"}
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": weight_map})
    assert [file.names for file in open_tensors(tmp_path)] == [{"one"}, {"two"}]


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "a.bin", 7])
def test_a_shard_outside_of_the_model_is_refused(tmp_path, name):
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"one": name}})
    with pytest.raises(ModelError, match=r"shard|weight_map"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("index", [{}, [], {"weight_map": 3}, {"weight_map": {"a": []}}])
def test_a_damaged_index_is_refused(tmp_path, index):
    write_json(tmp_path / "model.safetensors.index.json", index)
    with pytest.raises(ModelError, match="no readable weight_map"):
        open_tensors(tmp_path)


HEADER = json.dumps(GOOD).encode()


@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(HEADER) - 1), st.integers(0, 255)), min_size=1, max_size=6
    ),
    cut=st.integers(0, len(HEADER)),
)
def test_a_mutated_header_is_refused_or_describes_the_data_exactly(changes, cut):
    raw = bytearray(HEADER)
    for position, byte in changes:
        raw[position] = byte
    raw = raw[: cut or None]
    try:
        tensors = parse_header(Path("file"), bytes(raw), 32)
    except ModelError:
        return
    assert_exact_cover(tensors, 32)


SIZES = st.integers(-1, 9)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "U8", "I64"]),
        "shape": st.lists(SIZES, max_size=3),
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2),
    }
)


@given(header=st.dictionaries(st.text(max_size=3), ENTRIES, max_size=4), data=st.integers(0, 40))
def test_an_invented_header_is_refused_or_describes_the_data_exactly(header, data):
    try:
        tensors = parse_header(Path("file"), json.dumps(header).encode(), data)
    except ModelError:
        return
    assert_exact_cover(tensors, data)


def assert_exact_cover(tensors, data_bytes: int) -> None:
    owners = [tensor.name for tensor in tensors for _ in range(tensor.begin, tensor.end)]
    assert len(owners) == data_bytes
    position = 0
    for tensor in tensors:
        assert tensor.begin == position
        position = tensor.end
