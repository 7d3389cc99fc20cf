"""Loading a model folder: what is saved is what is loaded, and what is wrong is named."""

import json
import shutil

import pytest
import torch

from tian.errors import DataError, NoDevice, UnsupportedModel
from tian.hf.loading import SHIPPED, load_model, load_tokenizer, model_folder


@pytest.fixture
def folder(tmp_path, models):
    """A small random model with the shipped tokenizer."""
    models("llama").save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "gpt_neox"])
def test_what_was_saved_is_loaded_bit_by_bit_and_in_eval_mode(tmp_path, models, kind):
    made = models(kind)
    made.save_pretrained(tmp_path)
    shutil.copy(SHIPPED / "tokenizer.json", tmp_path)
    loaded = load_model(str(tmp_path))
    assert not loaded.training
    assert type(loaded) is type(made)
    want = made.state_dict()
    got = loaded.state_dict()
    assert want.keys() == got.keys()
    assert all(torch.equal(want[k], got[k]) for k in want)


def test_the_dtype_it_was_saved_in_is_kept(folder, models):
    import copy

    copy.deepcopy(models("llama")).to(torch.bfloat16).save_pretrained(folder)
    assert {p.dtype for p in load_model(str(folder)).parameters()} == {torch.bfloat16}


def test_without_a_path_it_is_the_shipped_model():
    assert model_folder(None) == SHIPPED
    assert load_tokenizer(None)("", add_special_tokens=True)["input_ids"] == [0]


def test_weights_in_several_files_load_and_a_missing_one_is_named(folder, models):
    (folder / "model.safetensors").unlink()
    models("llama").save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    load_model(str(folder))
    shards[0].unlink()
    with pytest.raises(DataError, match=shards[0].name):
        load_model(str(folder))


def test_pickled_weights_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"no \.safetensors") as caught:
        load_model(str(folder))
    assert "pickled" in caught.value.hint


def test_code_in_a_model_folder_is_not_run(folder):
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Conf"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match="evil"):
        load_model(str(folder))


def test_a_device_that_is_not_there_is_named(folder):
    with pytest.raises(NoDevice, match="'cuda:99'"):
        load_model(str(folder), device="cuda:99")


def test_an_empty_folder_says_what_it_lacks(tmp_path):
    with pytest.raises(DataError, match=r"no config\.json"):
        model_folder(str(tmp_path))
