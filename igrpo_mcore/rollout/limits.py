"""What a rollout engine cannot do, told before it is started."""

from transformers import PretrainedConfig

from igrpo_mcore.config.schema import RolloutConfig, Selection
from igrpo_mcore.device import has_cuda
from igrpo_mcore.errors import UserError

CPU_HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on the CPU (``CPUAttentionBackend.get_supported_head_sizes``, 0.32)."""


def check_engine(hf_config: PretrainedConfig, rollout: RolloutConfig) -> None:
    """Refuse budgets and head sizes that vLLM would refuse after all ranks have started.

    Raises:
        UserError: naming the option or the checkpoint's field.
    """
    limit = hf_config.max_position_embeddings
    if rollout.longest_sequence > limit:
        two_stages = rollout.selection != Selection.none
        prompt = "rollout.max_refinement_prompt_tokens" if two_stages else "rollout.max_prompt_tokens"
        raise UserError(
            f"the longest prompt ({rollout.longest_prompt} tokens) + rollout.max_completion_tokens = "
            f"{rollout.longest_sequence} exceeds the checkpoint's max_position_embeddings {limit}; lower "
            f"rollout.max_completion_tokens or set {prompt}, so that both fit."
        )
    head_dim = getattr(hf_config, "head_dim", None) or hf_config.hidden_size // hf_config.num_attention_heads
    if not has_cuda() and head_dim not in CPU_HEAD_DIMS:
        raise UserError(
            f"vLLM has no attention kernel for head_dim {head_dim} on a machine without a GPU; take a "
            f"checkpoint with one of {', '.join(map(str, CPU_HEAD_DIMS))}."
        )
