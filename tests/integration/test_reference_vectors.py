"""Our vectors against sentence-transformers': the same texts, each through its own tokenizer.

The reference is computed in a process of its own. It needs torch, which `make test` installs.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from memguard_native.embedding.models import locate_model

from .servers import embed_process

NAME = "all-MiniLM-L6-v2"
INSTALL = "make .venv/.stamps/reference"

TEXTS = [
    " ",
    ".",
    "a",
    "\n\t\r\n",
    "\u200b",
    "\x00control\x07",
    "hello world",
    "Hello, World!",
    "HELLO WORLD",
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France?",
    "Paris is the capital of France.",
    "naïve café résumé Ångström",
    "Straße und Überführung",
    "ﬁne ligatures and ½ fractions ①②③",
    "你好世界",
    "日本語のテキストを埋め込みます。",
    "한국어 문장입니다.",
    "Привет, мир! Как дела?",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "ภาษาไทยไม่มีช่องว่าง",
    "😀😃😄 emoji 👨‍👩‍👧‍👦 family 🇫🇷",
    "x" * 200,
    "pneumonoultramicroscopicsilicovolcanoconiosis " * 3,
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101,
    "word " * 254,
    "word " * 255,
    "word " * 300,
    "The model sees 256 tokens and no more. " * 60,
    "漢字" * 400,
    "1234567890 3.14159 -42 1e10 0xFF",
    "user@example.com https://example.com/path?query=1#fragment",
    "def f(x):\n    return x ** 2  # square",
    '{"key": [1, 2, {"nested": null}]}',
    "SELECT * FROM users WHERE id = 1; DROP TABLE users;",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "##ing ##ed @@ ++ -- __ ~~",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "Short one." + " " * 500 + "Long gap.",
    "e\u0301 decomposed and é composed",
]

REFERENCE = """
import json, sys, warnings
import numpy as np
warnings.simplefilter("ignore")
import torch
from sentence_transformers import SentenceTransformer
torch.set_num_threads(2)
model = SentenceTransformer(sys.argv[1], device="cpu")
np.save(sys.argv[3], model.encode(json.load(open(sys.argv[2])), show_progress_bar=False))
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> np.ndarray:
    directory = tmp_path_factory.mktemp("reference")
    texts, vectors = directory / "texts.json", directory / "vectors.npy"
    texts.write_text(json.dumps(TEXTS))
    model = str(locate_model(None).directory)
    command = [sys.executable, "-c", REFERENCE, model, str(texts), str(vectors)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if "ModuleNotFoundError" in done.stderr:
        pytest.fail(f"sentence-transformers is missing; run `{INSTALL}`")
    assert done.returncode == 0, done.stderr
    return np.load(vectors)


def assert_equal_vectors(found: np.ndarray, reference: np.ndarray) -> None:
    assert found.shape == reference.shape == (len(TEXTS), 384)
    cosines = (found * reference).sum(axis=1) / np.linalg.norm(found, axis=1)
    cosines /= np.linalg.norm(reference, axis=1)
    difference = abs(found - reference).max()
    print(f"smallest cosine {cosines.min():.9f}, largest difference {difference:.2e}")  # pytest -rP
    worst = TEXTS[int(cosines.argmin())]
    assert cosines.min() >= 0.9999, f"{worst!r:.60} differs"
    assert difference <= 1e-6


@pytest.mark.parametrize("arguments", [(), ("--mapped-weights",)], ids=["packed", "mapped"])
def test_vectors_equal_sentence_transformers(tmp_path, reference, arguments: tuple[str, ...]):
    with embed_process(tmp_path, *arguments) as server, server.client() as client:
        together = client.embeddings.create(model=NAME, input=TEXTS)
        alone = [client.embeddings.create(model=NAME, input=text).data[0] for text in TEXTS]
    for entries in (together.data, alone):
        found = np.array([entry.embedding for entry in entries])
        assert_equal_vectors(found, reference)


def test_the_sentence_transformers_backend_gives_its_own_vectors(tmp_path, reference):
    arguments = ("--backend", "sentence-transformers")
    with embed_process(tmp_path, *arguments) as server, server.client() as client:
        response = client.embeddings.create(model=NAME, input=TEXTS)
    found = np.array([entry.embedding for entry in response.data])
    assert_equal_vectors(found, reference)
