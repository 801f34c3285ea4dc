"""Turns texts and token arrays into rows of token ids, cut to what the model sees.

Texts are first cut to `128 * max_length` characters: beyond that nothing can reach the model (but
for words of more than 100 characters or long runs of blanks), while the tokenizer's time and memory
grow with the whole text (huggingface/sentence-transformers#1795, huggingface/tokenizers#1495). An
instance is used by one thread at a time; the GIL is released while it works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memguard_native.embedding.errors import ModelError, invalid

if TYPE_CHECKING:
    from memguard_native.embedding.backends import TokenIds

CHARACTERS_PER_TOKEN = 128
FOREIGN_IDS_HINT = "send text; LangChain: check_embedding_ctx_length=False"


@dataclass(frozen=True)
class Row:
    """The ids of one input, special ones included; `truncated` if the input was longer."""

    ids: TokenIds
    truncated: bool


class Tokenizer:
    """The tokenizer of a model directory.

    Raises ModelError: `tokenizer.json` is missing or damaged, or has more tokens than the model.
    """

    def __init__(
        self, directory: Path, max_length: int, vocabulary_size: int | None = None
    ) -> None:
        from tokenizers import Tokenizer as HuggingFaceTokenizer

        path = directory / "tokenizer.json"
        try:
            self._tokenizer = HuggingFaceTokenizer.from_str(path.read_text("utf-8"))
        except OSError as error:
            raise ModelError(path, f"cannot be read ({error.strerror})") from error
        except Exception as error:
            raise ModelError(path, f"is not a tokenizer ({error})") from error
        # The default model's file says: pad everything to 128 and cut at 128. Left as they are,
        # short texts would cost ten times their time, and long ones get other vectors than
        # sentence-transformers'.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self.max_length = max_length
        self.vocabulary_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        if vocabulary_size is not None and self.vocabulary_size > vocabulary_size:
            problem = f"has {self.vocabulary_size} tokens, the model only {vocabulary_size}"
            raise ModelError(path, problem, "are the files of one model?")
        self._prefix, self._suffix = self._special_ids()
        self._unused: frozenset[int] | None = None

    def _special_ids(self) -> tuple[list[int], list[int]]:
        """Return what the tokenizer puts before and after an input: [CLS] and [SEP] for BERT."""
        encoding = self._tokenizer.encode("a")
        mask = encoding.special_tokens_mask
        first = mask.index(0) if 0 in mask else 0
        last = len(mask) - mask[::-1].index(0) if 0 in mask else len(mask)
        return encoding.ids[:first], encoding.ids[last:]

    def encode_texts(self, texts: Sequence[str]) -> list[Row]:
        """Return the rows of `texts`."""
        limit = CHARACTERS_PER_TOKEN * self.max_length
        encodings = self._tokenizer.encode_batch_fast([text[:limit] for text in texts])
        return [
            Row(np.array(encoding.ids, np.int32), bool(encoding.overflowing) or len(text) > limit)
            for encoding, text in zip(encodings, texts, strict=True)
        ]

    def encode_ids(self, inputs: Sequence[Sequence[int]]) -> list[Row]:
        """Return the rows of inputs that are ids of this tokenizer already.

        Raises ApiError: an id is outside the vocabulary.
        """
        return [self._encode_ids(ids) for ids in inputs]

    def _encode_ids(self, ids: Sequence[int]) -> Row:
        if min(ids) < 0 or max(ids) >= self.vocabulary_size:
            wrong = next(i for i in ids if not 0 <= i < self.vocabulary_size)
            size = self.vocabulary_size
            message = f"Token {wrong} is not in the vocabulary of {size}: {FOREIGN_IDS_HINT}."
            raise invalid(message, param="input")
        prefix, suffix = self._prefix, self._suffix
        if prefix and ids[0] == prefix[0]:  # already complete
            prefix, suffix = [], suffix if list(ids[-len(suffix) :]) == suffix else []
            ids = ids[: len(ids) - len(suffix)]
        room = self.max_length - len(prefix) - len(suffix)
        row = [*prefix, *ids[:room], *suffix]
        return Row(np.array(row, np.int32), len(ids) > room)

    def looks_foreign(self, inputs: Sequence[Sequence[int]]) -> bool:
        """Return whether most ids mean [unusedN]: the sign of another tokenizer's ids."""
        if self._unused is None:
            vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
            self._unused = frozenset(i for t, i in vocabulary.items() if t.startswith("[unused"))
        unused = sum(i in self._unused for ids in inputs for i in ids)
        return 2 * unused > sum(map(len, inputs))
