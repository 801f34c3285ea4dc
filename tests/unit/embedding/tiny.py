"""A tiny BERT with random weights, in the layout of sentence-transformers, made on the spot.

`reference_vectors` computes the same model slowly and obviously, in double precision: the oracle
for the numpy backend.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HIDDEN, HEADS, LAYERS, WIDE, POSITIONS, MAX_LENGTH = 16, 2, 2, 32, 40, 24
WORDS = [
    "a",
    "b",
    "alpha",
    "beta",
    "gamma",
    "delta",
    "hello",
    "world",
    "warm",
    "-",
    "up",
    "!",
    "##s",
]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"[unused{i}]" for i in range(8)), *WORDS]

NUMPY_TYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}


def make_tiny_model(
    directory: Path,
    *,
    pooling: str = "mean",
    normalize: bool = True,
    activation: str = "gelu",
    dtype: str = "F32",
    prefix: str = "",
) -> Path:
    """Write a model to `directory` and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config(activation))
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=False))
    ]
    write_json(directory / "modules.json", modules)
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": MAX_LENGTH})
    modes = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
    flags = {f"pooling_mode_{mode}": name == pooling for name, mode in modes.items()}
    write_json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": 1, **flags})
    tensors = {prefix + name: values for name, values in weights().items()}
    write_safetensors(directory / "model.safetensors", tensors, dtype)
    tokenizer().save(str(directory / "tokenizer.json"))
    return directory


def config(activation: str = "gelu") -> dict[str, object]:
    return {
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": WIDE,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "vocab_size": len(VOCABULARY),
        "hidden_act": activation,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
    }


def tokenizer() -> Tokenizer:
    """With the default model's traps: truncation and fixed padding that nobody should obey."""
    made = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.enable_truncation(12)
    made.enable_padding(length=12)
    return made


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), HIDDEN),
        "embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
    }
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for name, outputs, inputs in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", WIDE, HIDDEN),
            ("output.dense", HIDDEN, WIDE),
        ]:
            shapes[f"{layer}.{name}.weight"] = (outputs, inputs)
            shapes[f"{layer}.{name}.bias"] = (outputs,)
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{layer}.{norm}.weight"] = shapes[f"{layer}.{norm}.bias"] = (HIDDEN,)
    return {name: random.normal(0, 0.3, shape) for name, shape in shapes.items()}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32") -> None:
    header, data = {}, b""
    for name, values in tensors.items():
        if dtype == "BF16":
            raw = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            raw = values.astype(NUMPY_TYPES[dtype]).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        data += raw
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


def reference_vector(
    ids: list[int], *, pooling: str = "mean", normalize: bool = True, activation: str = "gelu"
) -> np.ndarray:
    """The vector of one input, computed alone, without padding, in double precision."""
    w = {name: values.astype("f4").astype("f8") for name, values in weights().items()}
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = _norm(x + w["embeddings.token_type_embeddings.weight"][0], w, "embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        query, key, value = (
            _dense(x, w, f"{layer}.attention.self.{part}") for part in ("query", "key", "value")
        )
        heads, size = [], HIDDEN // HEADS
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = np.exp(query[:, part] @ key[:, part].T / math.sqrt(size))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ value[:, part])
        attended = _dense(np.concatenate(heads, axis=1), w, f"{layer}.attention.output.dense")
        x = _norm(x + attended, w, f"{layer}.attention.output.LayerNorm")
        wide = _dense(x, w, f"{layer}.intermediate.dense")
        wide = np.maximum(wide, 0) if activation == "relu" else _gelu(wide)
        x = _norm(x + _dense(wide, w, f"{layer}.output.dense"), w, f"{layer}.output.LayerNorm")
    vector = {"mean": x.mean(axis=0), "cls": x[0], "max": x.max(axis=0)}[pooling]
    return vector / np.linalg.norm(vector) if normalize else vector


def _dense(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
