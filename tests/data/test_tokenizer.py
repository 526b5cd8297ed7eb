"""What is said of a checkpoint that cannot be used as it is."""

import shutil

import pytest

from igrpo_mcore.data.tokenizer import load_tokenizer
from igrpo_mcore.errors import UserError
from igrpo_mcore.policy.architecture import load_hf_config
from tests.support.checkpoints import char_tokenizer, hf_config


def test_a_folder_without_a_tokenizer(tmp_path):
    hf_config("llama").save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="has no tokenizer that transformers can read") as caught:
        load_tokenizer(str(tmp_path / "model"))
    assert "\n" not in str(caught.value)
    char_tokenizer().save_pretrained(tmp_path / "tokenizer")
    shutil.copytree(tmp_path / "tokenizer", tmp_path / "model", dirs_exist_ok=True)
    assert load_tokenizer(str(tmp_path / "model")).vocab_size == char_tokenizer().vocab_size


def test_a_gguf_file_as_a_model():
    with pytest.raises(UserError, match=r"igrpo import-gguf some/model.gguf --out FOLDER"):
        load_hf_config("some/model.gguf")
