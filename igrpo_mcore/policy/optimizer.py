"""DDP, the distributed AdamW and the learning-rate schedule, all Megatron's own."""

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from igrpo_mcore.config.schema import OptimizerConfig
from igrpo_mcore.policy.model import PolicyModel


def wrap_data_parallel(
    chunks: list[PolicyModel], *, distributed_optimizer: bool = True
) -> list[DistributedDataParallel]:
    """Wrap each chunk in Megatron's DDP; gradients are reduce-scattered in fp32, without a distributed
    optimizer all-reduced."""
    config = DistributedDataParallelConfig(
        use_distributed_optimizer=distributed_optimizer, grad_reduce_in_fp32=True
    )
    # only the first virtual chunk's buckets are ordered for overlap; without overlap all are alike
    return [
        DistributedDataParallel(chunk.config, config, chunk, disable_bucketing=i > 0)
        for i, chunk in enumerate(chunks)
    ]


def build_optimizer(ddp: list[DistributedDataParallel], options: OptimizerConfig) -> MegatronOptimizer:
    """AdamW over the distributed optimizer, hooked into the model's config for the schedules."""
    model_config = ddp[0].config
    optimizer = get_megatron_optimizer(
        MegatronOptimizerConfig(
            optimizer="adam",
            lr=options.lr,
            min_lr=options.lr * options.min_lr_ratio,
            weight_decay=options.weight_decay,
            adam_beta1=options.beta1,
            adam_beta2=options.beta2,
            adam_eps=options.eps,
            clip_grad=options.grad_clip,
            bf16=model_config.params_dtype is torch.bfloat16,
            params_dtype=model_config.params_dtype,
            use_distributed_optimizer=True,
        ),
        ddp,
    )
    model_config.finalize_model_grads_func = finalize_model_grads
    model_config.grad_scale_func = optimizer.scale_loss
    return optimizer


def build_schedule(
    optimizer: MegatronOptimizer, options: OptimizerConfig, updates: int
) -> OptimizerParamScheduler:
    """Linear warm-up from 0, then a cosine to ``min_lr_ratio`` of the peak after ``updates`` steps.

    It is stepped before each update, so that the first update has a learning rate above 0.
    """
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=options.lr,
        min_lr=options.lr * options.min_lr_ratio,
        lr_warmup_steps=min(int(options.warmup_ratio * updates), updates - 1),
        lr_decay_steps=updates,
        lr_decay_style="cosine",
        start_wd=options.weight_decay,
        end_wd=options.weight_decay,
        wd_incr_steps=updates,
        wd_incr_style="constant",
        use_checkpoint_opt_param_scheduler=True,
        override_opt_param_scheduler=False,
    )
