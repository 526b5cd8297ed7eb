"""Published runs, as plans of them: NVIDIA's NeMo-RL on H100 and the paper's 7B."""

from unittest.mock import patch

from transformers import LlamaConfig, Qwen3Config

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config, Recompute, Schedule, Selection
from igrpo_mcore.planning import plan
from igrpo_mcore.planning.plan import PlannedStep, changed, planned_step
from igrpo_mcore.planning.workload import Lengths
from tests.planning.support import planned
from tests.planning.test_plan import RECIPES

_LLAMA = dict(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=False,
)
LLAMA_8B = LlamaConfig(**_LLAMA)
LLAMA_70B = LlamaConfig(
    **_LLAMA | dict(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64)
)
QWEN3_32B = Qwen3Config(
    vocab_size=151936,
    hidden_size=5120,
    intermediate_size=25600,
    num_hidden_layers=64,
    num_attention_heads=64,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=False,
)


def nemo_rl(hf_config, lengths: Lengths, world: int, **changes) -> PlannedStep:
    """A NeMo-RL GRPO step (examples/configs/recipes/llm/performance of NVIDIA-NeMo/RL): 64 prompts x 32
    samples, 4 updates, sequences of 4,096 at most, KL 0.01, offloaded optimizer, packed rows of 4,096.

    Mean prompts follow from its tokens a second and GPU less the completions (127 and 104 tokens).
    """
    config = changed(
        Config(),
        {
            "model.path": "published",
            "model.offload_optimizer": True,
            "rollout.selection": Selection.none,
            "rollout.num_drafts": 0,
            "rollout.num_refinements": 32,
            "rollout.max_prompt_tokens": lengths.prompt,
            "rollout.max_completion_tokens": 4096 - lengths.prompt,
            "rollout.memory_fraction": 0.6,
            "rollout.max_concurrent_sequences": 1024,
            "train.prompts_per_step": 64,
            "train.mini_batches": 4,
            "train.micro_batch_tokens": 4096,
            "objective.kl_coef": 0.01,
            **changes,
        },
    )
    with patch.object(plan, "planned_model", lambda *_: planned(hf_config)):
        return planned_step(config, gpu="h100-80g", world=world, lengths=lengths, exact_refit=False)


def paper_gpu_hours(selection: Selection) -> float:
    """GPU-hours of the paper's epoch over MATH with R1-Distill-Qwen-7B at completions of 3,500 tokens.

    Two nodes of 8 A100, one of which only samples: a step is one on 8 GPUs and 16 are paid. Prompts, q'
    too, end at 1,024 tokens (Table S.2; GRPO and iGRPO have the same peak memory in its table of costs).
    """
    config = changed(
        load_config(RECIPES / "igrpo_7b.yaml"),
        {
            "model.recompute": Recompute.full,
            "parallel.tp": 1,
            "parallel.sp": False,
            "rollout.tp": 1,
            "rollout.memory_fraction": 0.6,
            "rollout.selection": selection,
            "rollout.schedule": Schedule.barrier,
            "rollout.max_refinement_prompt_tokens": 1024,
        },
    )
    step = planned_step(config, gpu="a100-80g", world=8, lengths=Lengths(256, 3500), exact_refit=False)
    return step.time.with_saves * 7500 / config.train.prompts_per_step * 16 / 3600
