"""Expert models that the policy does not build yet: small checkpoints, and HybridModels with ``E`` layers."""

from pathlib import Path

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.activations import squared_relu
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt.moe_module_specs import get_moe_module_spec
from megatron.core.models.hybrid.hybrid_model import HybridModel
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import MoETransformerLayer, TransformerLayerSubmodules
from transformers import AutoModelForCausalLM, NemotronHConfig, PretrainedConfig, Qwen3MoeConfig

from igrpo_mcore import device
from igrpo_mcore.policy.layer_spec import TorchRMSNorm, hybrid_spec

EXPERTS = 4
_COMMON = dict(
    vocab_size=128,
    hidden_size=64,
    intermediate_size=128,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=32,
    moe_intermediate_size=48,
    num_experts_per_tok=2,
    tie_word_embeddings=False,
)


def moe_config(family: str) -> PretrainedConfig:
    if family == "qwen3_moe":
        return Qwen3MoeConfig(
            **_COMMON, num_hidden_layers=3, num_experts=EXPERTS, mlp_only_layers=[1], norm_topk_prob=True
        )
    return NemotronHConfig(
        **_COMMON,
        mamba_num_heads=4,
        mamba_head_dim=32,
        ssm_state_size=16,
        n_groups=4,
        n_routed_experts=EXPERTS,
        moe_shared_expert_intermediate_size=96,
        layers_block_type=["mamba", "moe", "attention", "moe"],
    )


def make_moe_checkpoint(folder: Path, config: PretrainedConfig) -> Path:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("e_score_correction_bias"):
                buffer.uniform_(-1, 1)
    model.save_pretrained(folder)
    return folder


def build_moe_policy(config: PretrainedConfig, tp: int, pp: int, ep: int) -> list[HybridModel]:
    """Megatron's own sequential experts in our hybrid stack, parameters filled with NaN."""
    nemotron = config.model_type == "nemotron_h"
    pattern = "ME*E" if nemotron else "*E*-*E"
    if pp == 2:
        pattern = "ME|*E" if nemotron else "*E|*-*E"
    extra = (
        dict(
            mamba_num_heads=4,
            mamba_head_dim=32,
            mamba_state_dim=16,
            mamba_num_groups=4,
            moe_shared_expert_intermediate_size=96,
            moe_router_score_function="sigmoid",
            moe_router_enable_expert_bias=True,
        )
        if nemotron
        else dict(qk_layernorm=True)
    )
    megatron = TransformerConfig(
        num_layers=len(pattern.replace("|", "")),
        hidden_size=64,
        ffn_hidden_size=128,
        num_attention_heads=4,
        num_query_groups=4,
        kv_channels=32,
        normalization="RMSNorm",
        layernorm_epsilon=config.layer_norm_epsilon if nemotron else config.rms_norm_eps,
        add_bias_linear=False,
        gated_linear_unit=not nemotron,
        activation_func=squared_relu if nemotron else F.silu,
        is_hybrid_model=True,
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        expert_model_parallel_size=ep,
        sequence_parallel=tp > 1,
        pipeline_dtype=torch.float32,
        use_cpu_initialization=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
        num_moe_experts=EXPERTS,
        moe_ffn_hidden_size=48,
        moe_router_topk=2,
        moe_token_dispatcher_type="alltoall",
        **extra,
    )
    spec = hybrid_spec(qk_norm=not nemotron)
    spec.submodules.moe_layer = ModuleSpec(
        module=MoETransformerLayer,
        submodules=TransformerLayerSubmodules(
            pre_mlp_layernorm=TorchRMSNorm,
            mlp=get_moe_module_spec(use_te=False, num_experts=EXPERTS, moe_grouped_gemm=False),
            mlp_bda=get_bias_dropout_add,
        ),
    )
    with device.megatron_on_cpu():
        model = HybridModel(
            megatron,
            spec,
            128,
            256,
            hybrid_layer_pattern=pattern,
            pre_process=parallel_state.is_pipeline_first_stage(),
            post_process=parallel_state.is_pipeline_last_stage(),
            position_embedding_type="none" if nemotron else "rope",
            share_embeddings_and_output_weights=False,
            parallel_output=True,
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    return [model]
