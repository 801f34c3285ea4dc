"""The wire format: what is accepted, what is refused and how, and the bytes of the answers."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from memguard_native.embedding.errors import ApiError
from memguard_native.embedding.schema import (
    MAX_JSON_DEPTH,
    encode_error,
    encode_models,
    encode_response,
    parse_request,
    shorten,
)

VECTORS = np.array([[0.5, -1.5, 3e-8], [1.0, 2.0, 3.4028235e38]], np.float32)


def parse(body, max_inputs=8):
    return parse_request(body if isinstance(body, bytes) else json.dumps(body).encode(), max_inputs)


def refused(body, **options) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(body, **options)
    return caught.value


@pytest.mark.parametrize(
    ("value", "texts", "token_ids"),
    [
        ("a", ["a"], []),
        (["a", "b"], ["a", "b"], []),
        ([1, 2], [], [[1, 2]]),
        ([[1], [2, 3]], [], [[1], [2, 3]]),
        ([0], [], [[0]]),
    ],
)
def test_the_four_forms_of_input(value, texts, token_ids):
    request = parse({"model": "m", "input": value})
    assert (request.texts, request.token_ids) == (texts, token_ids)


def test_a_list_of_numbers_is_the_default_and_base64_is_by_request():
    assert not parse({"model": "m", "input": "a"}).as_base64
    assert not parse({"model": "m", "input": "a", "encoding_format": None}).as_base64
    assert parse({"model": "m", "input": "a", "encoding_format": "base64"}).as_base64


def test_unknown_keys_are_ignored():
    assert parse({"model": "m", "input": "a", "user": 7, "x": {"y": [None]}}).texts == ["a"]


@pytest.mark.parametrize("value", ["", [], [""], ["a", ""], [[]], [[1], []]])
def test_empty_input_has_a_code_of_its_own(value):
    error = refused({"model": "m", "input": value})
    assert (error.status, error.code, error.param) == (400, "empty_input", "input")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 7}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": ["a", 7]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [[["a"]]]}, "input"),
        ({"model": 7}, "model"),
        ({"model": None}, "model"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": "7"}, "dimensions"),
        ({"dimensions": 1.5}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
    ],
)
def test_a_wrong_type_names_its_parameter(changes, param):
    error = refused({"model": "m", "input": "a", **changes})
    assert (error.status, error.code, error.param) == (400, "invalid_value", param)
    assert f"'{param}' must be" in error.message


@pytest.mark.parametrize("missing", ["model", "input"])
def test_a_missing_parameter_is_named(missing):
    body = {"model": "m", "input": "a"}
    del body[missing]
    assert refused(body).param == missing


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"nul", b'{"input": "\\ud800", "model": "m"}', b"[" * 5000]
)
def test_bad_json_is_refused(body):
    error = refused(body)
    assert (error.status, error.code) == (400, "invalid_value")
    assert "not valid JSON" in error.message


@pytest.mark.parametrize("body", [[], "a", 7, None])
def test_a_body_that_is_no_object_is_refused(body):
    assert "must be a JSON object" in refused(body).message


def nested(levels: int) -> object:
    value: object = 1
    for level in range(levels):
        value = {"x": value} if level % 2 else [value]
    return value


def test_ignored_keys_may_be_nested_to_a_depth():
    parse({"model": "m", "input": "a", "x": nested(MAX_JSON_DEPTH - 1)})
    error = refused({"model": "m", "input": "a", "x": nested(MAX_JSON_DEPTH)})
    assert "nested deeper than 32 levels" in error.message


def test_too_many_inputs_are_told_the_limit():
    parse({"model": "m", "input": ["a"] * 8})
    error = refused({"model": "m", "input": ["a"] * 9})
    assert (error.status, error.code) == (413, "request_too_large")
    assert "at most 8" in error.message


def test_base64_is_little_endian_float32():
    answer = json.loads(encode_response(VECTORS, "m", 5, as_base64=True))
    decoded = [np.frombuffer(base64.b64decode(e["embedding"]), "<f4") for e in answer["data"]]
    np.testing.assert_array_equal(decoded, VECTORS)


def test_numbers_survive_the_list_exactly():
    answer = json.loads(encode_response(VECTORS, "m", 5, as_base64=False))
    decoded = [np.array(entry["embedding"], np.float32) for entry in answer["data"]]
    np.testing.assert_array_equal(decoded, VECTORS)


def test_the_answer_has_openais_shape():
    answer = json.loads(encode_response(VECTORS, 'm"\\', 5, as_base64=False))
    assert answer["object"] == "list"
    assert answer["model"] == 'm"\\'
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert [(e["object"], e["index"]) for e in answer["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]


def test_shortened_vectors_have_length_one_again():
    short = shorten(np.array([[3.0, 4.0, 12.0], [0.0, 0.0, 1.0]], np.float32), 2)
    np.testing.assert_allclose(short, [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)
    assert encode_response(short, "m", 1, as_base64=True)


def test_an_error_has_openais_shape():
    body = json.loads(encode_error(ApiError(404, "model_not_found", "No.", param="model")))
    error = {
        "message": "No.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert body == {"error": error}


def test_models_have_openais_shape():
    body = json.loads(encode_models(["a", "b"], 7))
    assert body["object"] == "list"
    entry = {"id": "a", "object": "model", "created": 7, "owned_by": "memguard-native"}
    assert body["data"][0] == entry
