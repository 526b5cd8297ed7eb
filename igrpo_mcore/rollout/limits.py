"""What a rollout engine cannot do, told before it is started."""

from transformers import PretrainedConfig

from igrpo_mcore.config.schema import RolloutConfig
from igrpo_mcore.device import has_cuda
from igrpo_mcore.errors import UserError

CPU_HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on the CPU (``CPUAttentionBackend.get_supported_head_sizes``, 0.32)."""


def check_engine(hf_config: PretrainedConfig, rollout: RolloutConfig) -> None:
    """Refuse budgets and head sizes that vLLM would refuse after all ranks have started.

    Raises:
        UserError: naming the option or the checkpoint's field.
    """
    budget = rollout.max_prompt_tokens + rollout.max_completion_tokens
    limit = hf_config.max_position_embeddings
    if budget > limit:
        raise UserError(
            f"rollout.max_prompt_tokens + rollout.max_completion_tokens = {budget} exceeds the checkpoint's "
            f"max_position_embeddings {limit}; lower one of them."
        )
    head_dim = getattr(hf_config, "head_dim", None) or hf_config.hidden_size // hf_config.num_attention_heads
    if not has_cuda() and head_dim not in CPU_HEAD_DIMS:
        raise UserError(
            f"vLLM has no attention kernel for head_dim {head_dim} on a machine without a GPU; take a "
            f"checkpoint with one of {', '.join(map(str, CPU_HEAD_DIMS))}."
        )
