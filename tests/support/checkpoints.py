"""Small random Hugging Face checkpoints of every family, for tests that compare with transformers."""

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from igrpo_mcore.families import families

FAMILIES = tuple(families())
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] + ':' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


def char_tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable character; ids 0..3 are <pad>, <bos>, <eos>, <unk>."""
    specials = ["<pad>", "<bos>", "<eos>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate(specials + list(string.printable))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def hf_config(family: str, *, vocab_size: int = 128, hidden: int = 128, layers: int = 4, **overrides: Any):
    """The transformers config of a small model; ``overrides`` reach it unchanged."""
    common: dict[str, Any] = dict(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    if family == "nemotron_h":
        del common["num_hidden_layers"]
        common |= dict(
            head_dim=32,
            mamba_num_heads=8,
            mamba_head_dim=32,
            ssm_state_size=16,
            n_groups=2,
            conv_kernel=4,
            layers_block_type=(["mamba", "mlp", "attention", "mlp"] * layers)[:layers],
            use_mamba_kernels=False,
        )
    elif family != "qwen2":  # which has no such field
        common["head_dim"] = 32
    return AutoConfig.for_model(family, **(common | overrides))


def make_checkpoint(
    folder: Path, family: str, *, seed: int = 0, sharpen: float = 4.0, **overrides: Any
) -> Path:
    """Write config, fp32 safetensors and tokenizer to ``folder``; returns it.

    Matrices are scaled by ``sharpen`` and biases drawn, so that next-token distributions are far
    from uniform and a tensor in the wrong place shows.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(hf_config(family, **overrides), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "conv" not in name and "norm" not in name:
                parameter.mul_(sharpen)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif "norm" in name or name.endswith(".D"):
                parameter.uniform_(0.5, 1.5)
        # transformers zeroes the padding token's row, where RMSNorm's gradient is a thousandfold; a
        # sampler that draws that token then drowns every other gradient
        embedding = model.get_input_embeddings().weight
        embedding[0].normal_(0, float(embedding[1:].std()))
    model.save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return Path(folder)
