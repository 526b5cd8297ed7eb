"""Build the policy's model chunks from an architecture: TransformerConfig, then HybridModel."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from megatron.core import parallel_state, tensor_parallel
from megatron.core.activations import squared_relu
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.models.hybrid.hybrid_model import HybridModel
from megatron.core.ssm.mamba_mixer import MAMBA_HAS_STATE_DTYPE
from megatron.core.tensor_parallel.layers import linear_with_grad_accumulation_and_async_allreduce
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from igrpo_mcore.config.schema import ModelConfig, ParallelConfig
from igrpo_mcore.dtypes import torch_dtype
from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.policy.architecture import padded_vocab_size, pipeline_pattern
from igrpo_mcore.policy.layer_spec import RowParams, has_transformer_engine, hybrid_spec, layer_paths
from igrpo_mcore.policy.packing import PackedRow


def transformer_config(
    architecture: Architecture, parallel: ParallelConfig, model: ModelConfig
) -> TransformerConfig:
    """Megatron's configuration of the architecture under a parallel layout."""
    dtype = torch_dtype(model.dtype)
    mamba = architecture.mamba
    return TransformerConfig(
        num_layers=architecture.layers,
        hidden_size=architecture.hidden,
        ffn_hidden_size=architecture.ffn_hidden,
        num_attention_heads=architecture.heads,
        num_query_groups=architecture.kv_heads,
        kv_channels=architecture.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=architecture.norm_eps,
        add_bias_linear=False,
        add_qkv_bias=architecture.qkv_bias,
        qk_layernorm=architecture.qk_norm,
        gated_linear_unit=architecture.gated_mlp,
        activation_func=F.silu if architecture.gated_mlp else squared_relu,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        is_hybrid_model=True,
        **(
            dict(
                mamba_num_heads=mamba.heads,
                mamba_head_dim=mamba.head_dim,
                mamba_state_dim=mamba.state_dim,
                mamba_num_groups=mamba.groups,
                # vLLM keeps them in fp32; mamba_ssm up to 2.3.1 cannot, and its difference grows with length
                mamba_training_ssm_states_dtype=torch.float32 if MAMBA_HAS_STATE_DTYPE else None,
            )
            if mamba
            else {}
        ),
        tensor_model_parallel_size=parallel.tp,
        pipeline_model_parallel_size=parallel.pp,
        virtual_pipeline_model_parallel_size=parallel.vpp if parallel.vpp > 1 else None,
        sequence_parallel=parallel.sp,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        # made on the device, each rank's part alone; real weights come from the checkpoint
        use_cpu_initialization=False,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
        # Megatron has a fused kernel of SwiGLU; its fused rotary embedding is Transformer Engine's, and the
        # plain one waits for the device at each sequence of a packed row
        bias_activation_fusion=architecture.gated_mlp and has_transformer_engine(),
        apply_rope_fusion=architecture.rope_theta is not None and has_transformer_engine(),
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        # packed rows differ in length from micro-batch to micro-batch
        variable_seq_lengths=parallel.pp > 1,
        moe_token_dispatcher_type="alltoall",
        # the interleaved schedule is silently wrong over batched p2p without CUDA streams
        batch_p2p_comm=parallel.vpp == 1,
        overlap_p2p_comm=parallel.vpp > 1,
        recompute_granularity="full" if model.recompute == "full" else None,
        recompute_method="uniform" if model.recompute == "full" else None,
        recompute_num_layers=1 if model.recompute == "full" else None,
    )


class PolicyModel(HybridModel):
    """HybridModel whose last stage gives logits of chosen rows only."""

    fused_head = False
    """``model.fused_head``: the last stage gives the rows' hidden states; the loss has the LM head."""

    def forward(self, row: PackedRow) -> Tensor:  # type: ignore[override]
        """Hidden states [T(/tp under SP), 1, H], or on the last stage logits [R, V / tp] (``fused_head``:
        hidden states [R, H], whose gradient is then whole on every tensor-parallel rank).

        Only the response rows reach the LM head: in stage 2 the prompt carries a whole draft, so
        most rows need no logits.
        """
        packed = RowParams(
            qkv_format="thd",
            cu_seqlens_q=row.cu_seqlens,
            cu_seqlens_kv=row.cu_seqlens,
            max_seqlen_q=row.longest,
            max_seqlen_kv=row.longest,
            seq_idx=row.sequence_T[None],  # for Mamba; Megatron's own way to it waits for the device
            view=row.view,
        )
        last = bool(self.post_process)  # type: ignore[has-type]
        self.post_process = False  # the decoder keeps its own: final norm runs
        try:
            with self._rotary_of(row):
                hidden = super().forward(
                    row.tokens_T[None], row.positions_T[None], None, packed_seq_params=packed
                )
        finally:
            self.post_process = last
        return self._head(hidden, row.rows_R) if last else hidden

    @contextmanager
    def _rotary_of(self, row: PackedRow) -> Iterator[None]:
        """Where prompts are shared, rotary angles by ``positions_T``; Megatron counts from each boundary."""
        if row.view is None or self.position_embedding_type == "none":
            yield
            return
        hook = self.rotary_pos_emb.register_forward_hook(lambda *call: call[-1][row.positions_T])
        try:
            yield
        finally:
            hook.remove()

    @property
    def head_weight(self) -> Tensor:
        """This rank's rows of the LM head, [V / tp, H]."""
        tied = self.share_embeddings_and_output_weights
        return self.shared_embedding_or_output_weight() if tied else self.output_layer.weight

    def _head(self, hidden: Tensor, rows_R: Tensor) -> Tensor:
        group = self.pg_collection.tp
        if self.config.sequence_parallel:
            # the linear layer's backward leaves a part of the sum on each rank, to be reduce-scattered; a
            # fused head has summed it already
            hidden = tensor_parallel.gather_from_sequence_parallel_region(
                hidden, tensor_parallel_output_grad=not self.fused_head, group=group
            )
        hidden_RH = hidden[:, 0].index_select(0, rows_R)
        if self.fused_head:
            return hidden_RH
        return linear_with_grad_accumulation_and_async_allreduce(
            input=hidden_RH[:, None],
            weight=self.head_weight,
            bias=None,
            gradient_accumulation_fusion=False,
            allreduce_dgrad=group.size() > 1 and not self.config.sequence_parallel,
            sequence_parallel=False,
            tp_group=group,
        )[:, 0]


def _llama3_rope(architecture: Architecture) -> RotaryEmbedding:
    """Llama 3's scaled frequencies; HybridModel builds only the plain ones."""
    scaling = architecture.rope_scaling or {}
    rope = RotaryEmbedding(architecture.head_dim, 1.0, rotary_base=int(architecture.rope_theta or 0))
    rope.inv_freq = rope._apply_scaling(
        rope.inv_freq,
        factor=scaling["factor"],
        low_freq_factor=scaling["low_freq_factor"],
        high_freq_factor=scaling["high_freq_factor"],
        original_max_position_embeddings=scaling["original_max_position_embeddings"],
    )
    return rope


def build_model(
    architecture: Architecture, parallel: ParallelConfig, model: ModelConfig, max_sequence: int
) -> list[PolicyModel]:
    """This rank's model chunks (one; several with virtual pipeline stages), uninitialised, on its device.

    Args:
        max_sequence: longest sequence, tokens (Megatron sizes position tables by it).

    Raises:
        UserError: there is CUDA, and a package that the layers need there does not import.
    """
    layer_paths(mamba=architecture.mamba is not None)
    config = transformer_config(architecture, parallel, model)
    pattern = pipeline_pattern(architecture, parallel.pp * parallel.vpp)
    chunks = []
    for stage in range(parallel.vpp):
        vp_stage = stage if parallel.vpp > 1 else None
        where = dict(ignore_virtual=parallel.vpp == 1, vp_stage=vp_stage)
        chunk = PolicyModel(
            config,
            hybrid_spec(architecture.qk_norm),
            padded_vocab_size(architecture, parallel.tp),
            max_sequence,
            hybrid_layer_pattern=pattern,
            pre_process=parallel_state.is_pipeline_first_stage(**where),
            post_process=parallel_state.is_pipeline_last_stage(**where),
            position_embedding_type="none" if architecture.rope_theta is None else "rope",
            rotary_base=int(architecture.rope_theta or 10000),
            share_embeddings_and_output_weights=architecture.tied_embeddings,
            parallel_output=True,
            vp_stage=vp_stage,
        )
        if architecture.rope_scaling is not None:
            chunk.rotary_pos_emb = _llama3_rope(architecture)
        chunk.fused_head = model.fused_head
        chunks.append(chunk)
    return chunks
