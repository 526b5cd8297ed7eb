"""FLOP against torch's own counter on transformers' models, and against the checkpoint's matrices."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.flops import SCAN_CHUNK, forward_flops, layer_flops, update_flops
from igrpo_mcore.policy.packing import pack
from tests.policy.sequences import training_batch
from tests.support.checkpoints import FAMILIES, hf_config

T = 24


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_a_forward_is_what_torch_counts(family: str) -> None:
    config = hf_config(family)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        loss = model(torch.arange(T)[None]).logits.sum()
    a = architecture_of(config, "float32")
    # eager attention computes what causality then throws away: every token with every other
    assert counter.get_total_flops() == forward_flops(a, tokens=T, pairs=T * T, head_rows=T)
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    both = update_flops(a, T, T * T, T)
    assert counter.get_total_flops() == both - forward_flops(a, T, T * T, T)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_the_layers_counts_twice_a_token(family: str) -> None:
    config = hf_config(family)
    a = architecture_of(config, "float32")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and ".layers." in name)
    scan = 0
    if a.mamba is not None:
        inner = a.mamba.heads * a.mamba.head_dim
        state = a.mamba.groups * a.mamba.state_dim
        # inside a chunk: C B^T and its product with x; between chunks: into the state and out of it
        scan = a.pattern.count("M") * (2 * SCAN_CHUNK * (state + inner) + 4 * inner * a.mamba.state_dim)
    assert layer_flops(a) == 2 * matrices + scan


@pytest.mark.parametrize("share", [False, True])
def test_a_row_counts_each_token_once_with_what_it_sees(share: bool) -> None:
    sequences, members = training_batch(), [0, 1, 2, 5, 4, 8]
    row = pack(sequences, members, 8, torch.device("cpu"), share_prompts=share)
    seen = set()
    for member in members:
        ids = (*sequences[member].prompt_ids, *sequences[member].completion_ids)
        for n in range(1, len(ids) + 1):
            shared = share and n <= len(sequences[member].prompt_ids)
            seen.add((ids[:n], None if shared else member))
    assert (row.tokens, row.pairs) == (len(seen), sum(len(prefix) for prefix, _ in seen))
