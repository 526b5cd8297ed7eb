"""Tokenizer, configs and supervised rows: what loads them later (transformers, vLLM, Megatron) asks for."""

import random
import string

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from igrpo_mcore.config.schema import DataConfig, RolloutConfig
from igrpo_mcore.data.templates import PromptRenderer
from igrpo_mcore.errors import UserError
from igrpo_mcore.tiny.demonstrations import Demonstrations, DraftKind, DraftShares
from igrpo_mcore.tiny.model import model_config
from igrpo_mcore.tiny.task import demonstration, problems
from igrpo_mcore.tiny.tokenizer import VOCAB_SIZE, make_tokenizer
from tests.support.checkpoints import FAMILIES


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def demonstrations(tokenizer):
    return Demonstrations(tokenizer, PromptRenderer(tokenizer, DataConfig(), RolloutConfig()))


def test_saved_tokenizer_round_trips_text_and_tags(tokenizer):
    text = string.printable + demonstration(problems(1, seed=0)[0])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert max(ids) < len(tokenizer) <= VOCAB_SIZE
    assert tokenizer.unk_token_id not in ids


def test_tags_are_one_token_each(tokenizer):
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert len(tokenizer(tag, add_special_tokens=False)["input_ids"]) == 1


def test_eos_and_pad_are_the_configs(tokenizer):
    for family in FAMILIES:
        config = model_config(family)
        assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


@pytest.mark.parametrize("family", FAMILIES)
def test_model_is_small_splits_in_two_and_survives_a_save(family, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(model_config(family), dtype=torch.float32)
    assert sum(parameter.numel() for parameter in model.parameters()) < 3_000_000
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    config = loaded.config
    assert config.head_dim == 32
    for count in (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads):
        assert count % 2 == 0
    assert config.vocab_size % 128 == 0
    if family == "nemotron_h":
        assert config.mamba_num_heads % 2 == config.n_groups % 2 == 0
        half = config.num_hidden_layers // 2
        assert config.layers_block_type[:half] == config.layers_block_type[half:]
    input_ids = torch.arange(12)[None]
    assert torch.equal(model(input_ids).logits, loaded(input_ids).logits)


def test_unknown_family_is_refused():
    with pytest.raises(UserError, match="one of llama, mistral, nemotron_h, qwen2, qwen3"):
        model_config("gpt2")


def test_rows_hold_the_training_prompts_and_the_right_completion(tokenizer, demonstrations):
    problem = problems(1, seed=5)[0]
    single = demonstrations.row(problem, DraftKind.none, random.Random(0))
    assert tokenizer.decode(single.prompt_ids) == f"<|user|>{problem.problem}<|assistant|>"
    for kind in DraftKind:
        row = demonstrations.row(problem, kind, random.Random(0))
        assert tokenizer.decode(row.completion_ids) == demonstration(problem) + "<eos>"
        assert (demonstration(problem) in tokenizer.decode(row.prompt_ids)) == (kind is DraftKind.right)
        assert ("Prior draft:" in tokenizer.decode(row.prompt_ids)) == (kind is not DraftKind.none)


def test_rows_keep_to_the_lengths_the_recipes_plan_for(demonstrations):
    batches = demonstrations.batches(problems(500, seed=0), 200, DraftShares(right=0.3, wrong=0.3), seed=0)
    for row in next(batches):
        assert len(row.prompt_ids) <= 64
        assert len(row.completion_ids) <= 40


def test_batches_are_deterministic_and_mixed(demonstrations):
    def first(seed):
        source = demonstrations.batches(problems(50, seed=0), 200, DraftShares(right=0.2, wrong=0.3), seed)
        return next(source)

    rows = first(0)
    assert rows == first(0)
    assert rows != first(1)
    single_shot = sum(len(row.prompt_ids) < 20 for row in rows)
    assert 0.4 < single_shot / len(rows) < 0.6
