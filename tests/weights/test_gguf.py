"""GGUF files: what is refused, in one sentence; the real one is converted by the slow tests that use it."""

import gguf
import numpy as np
import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.weights.gguf import PACKAGES, find_gguf, import_gguf


def test_the_packages_file_is_found():
    for name in PACKAGES:
        path = find_gguf(name)
        assert path.suffix == ".gguf"
        assert path.stat().st_size > 50e6


def write_gguf(path, architecture: str, *, tokenizer: bool) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    if tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b", "ab", "<end>"])
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(3)
    writer.add_tensor("token_embd.weight", np.zeros((4, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("architecture", "tokenizer", "said"),
    [
        ("llama", False, "holds no tokenizer"),
        ("llama", True, "holds no chat template"),
        ("no-such-model", True, "no tokenizer that transformers reads"),
    ],
)
def test_a_file_that_lacks_something(tmp_path, architecture, tokenizer, said):
    path = tmp_path / "model.gguf"
    write_gguf(path, architecture, tokenizer=tokenizer)
    with pytest.raises(UserError) as caught:
        import_gguf(str(path), tmp_path / "out")
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_refusals(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        import_gguf(str(tmp_path / "none.gguf"), tmp_path / "out")
    bogus = tmp_path / "bogus.gguf"
    bogus.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is no GGUF file"):
        import_gguf(str(bogus), tmp_path / "out")
    with pytest.raises(UserError, match="is not empty"):
        import_gguf("smollm2-135m", tmp_path)
