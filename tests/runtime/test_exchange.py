"""Weights go to files of others and come back bit for bit; what does not fit is named, and nothing is half written."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles.hugging_face import theirs
from partita.runtime import checkpoint, exchange
from partita.runtime.checkpoint import Scalars
from partita.runtime.exchange import export_weights, import_weights
from partita.runtime.fault import RuntimeFault
from partita.runtime.safetensors_files import open_files
from partita.runtime.weights import WeightMap, fitted, from_plain, tensor
from safetensors.torch import load_file, save_file
from samples.weight_maps import MAPPED, drawn, map_of

GPT2 = ("gpt2", "GPT2")
Tensors = dict[str, torch.Tensor]


def named(weights: WeightMap, ours: Tensors, tied: bool = False) -> Tensors:
    """Ours under their names."""
    return {one.name: tensor(one, ours.__getitem__) for one in weights.tensors if tied or not one.tied}


def stored(weights: WeightMap, ours: Tensors, folder: Path) -> Path:
    """A checkpoint of ours."""
    scalars = Scalars(weights.model, 0, 0, {name: list(one.shape) for name, one in ours.items()}, anew=[])
    return checkpoint.save_parts(folder, scalars, [ours])


def read(path: Path, weights: WeightMap, dtype: torch.dtype = torch.float32) -> Tensors:
    """What a checkpoint holds."""
    found = {name: torch.empty(shape, dtype=dtype) for name, shape in weights.shapes.items()}
    checkpoint.read_tensors(path, found)
    return found


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refused(code: str, work: Callable[[], Any]) -> str:
    with pytest.raises(RuntimeFault) as fault:
        work()
    assert fault.value.code == code, str(fault.value)
    return str(fault.value)


@pytest.mark.parametrize(("file", "model", "size"), MAPPED)
def test_every_map_is_exact_both_ways(file: str, model: str, size: str | None, tmp_path: Path) -> None:
    weights = map_of(file, model, size)
    ours = drawn(weights)
    made = named(weights, ours)
    assert [list(one.shape) for one in made.values()] == [list(one.shape) for one in weights.tensors if not one.tied]
    save_file(made, tmp_path / "model.safetensors")
    source = fitted(open_files(tmp_path), weights)
    assert same({name: source.parameter(name, torch.float32) for name in source.parameters}, ours)


def test_map_survives_json() -> None:
    weights = map_of("mixtral", "Mixtral")
    from dataclasses import asdict

    assert from_plain(json.loads(json.dumps(asdict(weights)))) == weights


def test_through_the_folders_in_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PART_BYTES", 500)
    monkeypatch.setattr(exchange, "FILE_BYTES", 700)
    weights = map_of("mixtral", "Mixtral")
    ours = drawn(weights)
    out = export_weights(weights, stored(weights, ours, tmp_path / "a"), tmp_path / "hf")
    files = sorted(out.path.glob("*.safetensors"))
    index = json.loads((out.path / "model.safetensors.index.json").read_text())
    assert len(files) > 3
    assert index["weight_map"] == {name: file.name for file in files for name in load_file(file)}
    made = import_weights(weights, out.path, tmp_path / "b")
    assert len(list(made.path.glob("*.safetensors"))) > 3
    assert same(read(made.path, weights), ours)
    assert (made.elements, made.remarks) == (sum(one.numel() for one in ours.values()), ())
    assert not list(tmp_path.glob("*/.partial*")) + list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize("kind", ["bf16", "f16", "f64"])
def test_types_are_kept_and_changed(kind: str, tmp_path: Path) -> None:
    weights = map_of(*GPT2)
    narrow = exchange.DTYPES[kind]
    ours = drawn(weights, narrow)
    save_file(named(weights, ours), tmp_path / "model.safetensors")
    made = import_weights(weights, tmp_path / "model.safetensors", tmp_path / "ck", "f64")
    assert same(read(made.path, weights, torch.float64), {name: one.double() for name, one in ours.items()})
    back = export_weights(weights, tmp_path / "ck", tmp_path / "hf", kind)
    assert same(load_file(back.path / "model.safetensors"), named(weights, ours))


def test_their_class_loads_it_and_computes_the_same(tmp_path: Path) -> None:
    import transformers

    other = theirs("GPT2", torch.float32)
    path = stored(other.weights_map, other.weights(), tmp_path / "ck")
    out = export_weights(other.weights_map, path, tmp_path / "hf").path
    found: Any = transformers.AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    ids = torch.arange(6)[None]
    assert type(found) is type(other.net)
    assert torch.equal(found.eval()(ids).logits, other.net(ids).logits)
    assert found.lm_head.weight is found.transformer.wte.weight  # a tie stays a tie


def test_states_go_with_the_parameters(tmp_path: Path) -> None:
    import transformers

    other = theirs("DeepSeek.V3", torch.float32)
    weights = other.weights_map
    assert list(weights.states.values()) == [(32,), (32,)]
    path = stored(weights, other.weights(), tmp_path / "ck")
    out = export_weights(weights, path, tmp_path / "hf").path
    found: Any = transformers.AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    leans = [name for name in load_file(out / "model.safetensors") if name.endswith("e_score_correction_bias")]
    assert len(leans) == 2
    assert all(torch.equal(found.state_dict()[name], other.net.state_dict()[name]) for name in leans)
    assert all(found.state_dict()[name].abs().max() > 0.1 for name in leans)
    made = import_weights(weights, out, tmp_path / "b")
    assert same(read(made.path, weights), other.weights())
    assert made.elements == sum(one.numel() for name, one in other.weights().items() if name in weights.parameters)


def test_a_checkpoint_without_a_state_of_the_map_is_of_another_model(tmp_path: Path) -> None:
    weights = map_of("deepseek", "DeepSeek", "V3")
    ours = {name: one for name, one in drawn(weights).items() if name not in weights.states}
    path = stored(weights, ours, tmp_path / "ck")
    text = refused("E0511", lambda: export_weights(weights, path, tmp_path / "hf"))
    assert "rest.0.moe.lean is not there and [32] here" in text


def test_other_prefixes_and_old_names(tmp_path: Path) -> None:
    weights = map_of(*GPT2)
    ours = drawn(weights)
    below = {f"transformer.{name}": one for name, one in named(weights, ours).items()}
    save_file({**below, "lm_head.weight": below["transformer.wte.weight"].clone()}, tmp_path / "a.safetensors")
    bert = map_of("bert", "BERT")
    mine = drawn(bert)
    old = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): one
           for name, one in named(bert, mine).items()}  # fmt: skip
    save_file({**old, "bert.pooler.dense.weight": torch.zeros(2)}, tmp_path / "b.safetensors")
    for name, one, parameters in (("a", weights, ours), ("b", bert, mine)):
        source = fitted(open_files(tmp_path / f"{name}.safetensors"), one)
        assert same({key: source.parameter(key, torch.float32) for key in source.parameters}, parameters)


def test_faults_are_named_with_both_shapes(tmp_path: Path) -> None:
    weights = map_of(*GPT2)
    made = named(weights, drawn(weights))
    del made["ln_f.bias"]
    made["h.0.attn.c_attn.weight"] = torch.zeros(8, 30)
    made["h.1.ln_1.bias"] = torch.zeros(8, dtype=torch.int8)
    made["h.2.ln_1.bias"] = torch.zeros(8)
    save_file(made, tmp_path / "model.safetensors")
    text = refused("E0551", lambda: import_weights(weights, tmp_path, tmp_path / "ck"))
    assert "ln_f.bias [8] is not in the file" in text
    assert "h.0.attn.c_attn.weight is [8, 30] in the file and [8, 24] by the map" in text
    assert "h.1.ln_1.bias is of type I8" in text
    assert "h.2.ln_1.bias [8] is in the file, and the map knows nothing of it" in text
    assert not (tmp_path / "ck").exists()


def test_weights_of_eight_bits_are_refused_with_a_way_out(tmp_path: Path) -> None:
    """Their scales are tensors of their own, which every publisher lays out otherwise."""
    weights = map_of(*GPT2)
    made = named(weights, drawn(weights))
    name = "h.0.attn.c_attn.weight"
    made[name], made[f"{name}_scale_inv"] = made[name].to(torch.float8_e4m3fn), torch.ones(1, 1)
    save_file(made, tmp_path / "model.safetensors")
    text = refused("E0551", lambda: import_weights(weights, tmp_path, tmp_path / "ck"))
    assert f"{name} is of type F8_E4M3" in text
    assert "convert the weights to BF16" in text


def test_a_second_name_must_agree(tmp_path: Path) -> None:
    weights = map_of(*GPT2)
    made = named(weights, drawn(weights), tied=True)
    save_file(made, tmp_path / "model.safetensors")
    fitted(open_files(tmp_path), weights)
    made["lm_head.weight"][3, 2] += 1
    save_file(made, tmp_path / "model.safetensors")
    text = refused("E0551", lambda: fitted(open_files(tmp_path), weights))
    assert "lm_head.weight is tied to wte.table by the map and has other values" in text


def test_their_configuration_is_compared(tmp_path: Path) -> None:
    weights = map_of("llama3", "Llama3")
    save_file(named(weights, drawn(weights)), tmp_path / "model.safetensors")
    config = {**weights.config, "rope_theta": 10000.0, "hidden_act": None, "other": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = import_weights(weights, tmp_path, tmp_path / "ck")
    assert made.remarks == ("their configuration says rope_theta = 10000.0, the spec 500000.0",)


# ---- what is not trusted


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", "..", "", "a\\b"]
)
def test_an_index_names_files_of_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "in/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    refused("E0504", lambda: open_files(tmp_path / "in"))


@pytest.mark.parametrize(
    "text",
    [
        "[1]", "{}", "{", "[" * 100_000, "\0", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "b.safetensors"}}',
    ],
)  # fmt: skip
def test_damaged_indexes(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    refused("E0550", lambda: open_files(tmp_path))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        struct.pack("<Q", 1 << 62),
        struct.pack("<Q", 200_000_000) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'.ljust(64),
        struct.pack("<Q", 80)
        + b'{"a":{"dtype":"F32","shape":[99999999999,99999999999],"data_offsets":[0,16]}}'.ljust(80),
    ],
)
def test_damaged_files(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    refused("E0550", lambda: open_files(tmp_path))


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "is a pickle" in refused("E0550", lambda: open_files(tmp_path))
    assert "is a pickle" in refused("E0550", lambda: open_files(tmp_path / "pytorch_model.bin"))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "pytorch_model.bin"}}')
    assert "is a pickle" in refused("E0550", lambda: open_files(tmp_path))
    refused("E0550", lambda: open_files(tmp_path / "nothing"))


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = map_of(*GPT2)
    ours = drawn(weights)
    path = stored(weights, ours, tmp_path / "ck")
    save_file(named(weights, ours), tmp_path / "model.safetensors")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exchange, "save_file", full)
    monkeypatch.setattr(checkpoint, "save_file", full)
    refused("E0552", lambda: export_weights(weights, path, tmp_path / "hf"))
    refused("E0512", lambda: import_weights(weights, tmp_path / "model.safetensors", tmp_path / "new"))
    assert not (tmp_path / "hf").exists()
    assert not checkpoint.checkpoints(tmp_path / "new")
    assert not [item for item in tmp_path.rglob("*") if item.name.startswith(".partial")]


def test_what_is_there_stays(tmp_path: Path) -> None:
    weights = map_of(*GPT2)
    path = stored(weights, drawn(weights), tmp_path / "ck")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/notes").write_text("mine")
    refused("E0552", lambda: export_weights(weights, path, tmp_path / "hf"))
    other = map_of("gpt2", "GPT2", D=16)
    text = refused("E0511", lambda: export_weights(other, path, tmp_path / "out"))
    assert "wte.table is [13, 8] there and [13, 16] here" in text


def test_adapters_begin_anew_and_are_not_exported(tmp_path: Path) -> None:
    base, adapted = map_of("llama3", "Llama3"), map_of("lora", "LlamaLoRA")
    assert adapted.anew
    assert all(".adapter." in name for name in adapted.anew)
    save_file(named(base, drawn(base)), tmp_path / "model.safetensors")
    made = import_weights(adapted, tmp_path, tmp_path / "ck")
    assert checkpoint.read_scalars(made.path).anew == list(adapted.anew)
    assert "adapter" in refused("E0552", lambda: export_weights(adapted, made.path, tmp_path / "hf"))
