"""From texts and token arrays to rows of ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memguard_native.embedding.errors import ApiError, ModelError
from memguard_native.embedding.tokenize import CHARACTERS_PER_TOKEN, Tokenizer

from .tiny import MAX_LENGTH, VOCABULARY

CLS, SEP = 2, 3
ALPHA = VOCABULARY.index("alpha")


def ids_of(tokenizer, *inputs):
    return [row.ids.tolist() for row in tokenizer.encode_ids(inputs)]


def test_a_short_text_is_not_padded(tokenizer):
    (row,) = tokenizer.encode_texts(["Hello alpha"])
    assert row.ids.dtype == np.int32
    assert row.ids.tolist() == [CLS, VOCABULARY.index("hello"), ALPHA, SEP]
    assert not row.truncated


def test_a_long_text_is_cut_at_the_models_length_not_the_tokenizers(tokenizer):
    fits, too_long = tokenizer.encode_texts(["alpha " * (MAX_LENGTH - 2), "alpha " * MAX_LENGTH])
    assert fits.ids.tolist() == too_long.ids.tolist() == [CLS, *[ALPHA] * (MAX_LENGTH - 2), SEP]
    assert not fits.truncated
    assert too_long.truncated


def test_a_text_cut_before_tokenising_counts_as_truncated(tokenizer):
    limit = CHARACTERS_PER_TOKEN * MAX_LENGTH
    one_word, cut = tokenizer.encode_texts(["a" * limit, "a" * (limit + 1)])
    assert not one_word.truncated
    assert cut.truncated
    assert cut.ids.tolist() == [CLS, 1, SEP]


@given(
    st.lists(st.sampled_from(["alpha", "beta", "warmup", "ünknown", "世界", "!"]), max_size=200),
    st.sampled_from([" ", "  ", "\n"]),
)
def test_cutting_before_tokenising_changes_no_row(tokenizer, words, separator):
    text = separator.join(word * 8 for word in words)
    (row,) = tokenizer.encode_texts([text])
    whole = tokenizer._tokenizer.encode(text)
    assert row.ids.tolist() == whole.ids


def test_a_token_array_gets_the_special_tokens_that_a_text_gets(tokenizer):
    (text,) = tokenizer.encode_texts(["alpha beta"])
    inner = text.ids.tolist()[1:-1]
    assert ids_of(tokenizer, inner) == [text.ids.tolist()]


def test_a_token_array_that_starts_with_cls_is_taken_as_it_is(tokenizer):
    assert ids_of(tokenizer, [CLS, ALPHA, SEP], [CLS, ALPHA]) == [[CLS, ALPHA, SEP], [CLS, ALPHA]]


def test_a_long_token_array_is_cut_and_keeps_its_end_token(tokenizer):
    rows = tokenizer.encode_ids(
        [[ALPHA] * MAX_LENGTH, [CLS, *[ALPHA] * MAX_LENGTH, SEP], [CLS, *[ALPHA] * MAX_LENGTH]]
    )
    cut = [CLS, *[ALPHA] * (MAX_LENGTH - 2), SEP]
    without_end = [CLS, *[ALPHA] * (MAX_LENGTH - 1)]
    assert [row.ids.tolist() for row in rows] == [cut, cut, without_end]
    assert all(row.truncated for row in rows)


@pytest.mark.parametrize("wrong", [-1, len(VOCABULARY), 100_000, 2**80])
def test_an_id_outside_of_the_vocabulary_is_refused_with_a_hint(tokenizer, wrong):
    with pytest.raises(
        ApiError, match=f"Token {wrong} .*check_embedding_ctx_length=False"
    ) as caught:
        tokenizer.encode_ids([[ALPHA], [ALPHA, wrong]])
    assert (caught.value.status, caught.value.param) == (400, "input")


def test_ids_that_mean_unused_tokens_look_foreign(tokenizer):
    unused = [VOCABULARY.index(f"[unused{i}]") for i in range(3)]
    assert tokenizer.looks_foreign([[*unused, ALPHA]])
    assert not tokenizer.looks_foreign([[*unused, ALPHA, ALPHA, ALPHA]])


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.json: cannot be read"):
        Tokenizer(tmp_path, MAX_LENGTH)


@pytest.mark.parametrize("content", ["", "{}", '{"model": 3}'])
def test_a_damaged_tokenizer_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json: is not a tokenizer"):
        Tokenizer(tmp_path, MAX_LENGTH)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tiny_model):
    with pytest.raises(ModelError, match=f"has {len(VOCABULARY)} tokens, the model only 5"):
        Tokenizer(tiny_model, MAX_LENGTH, vocabulary_size=5)
