"""What adapters take in the place of Megatron's optimizer (``igrpo_mcore.policy.lora``)."""

from dataclasses import replace

from igrpo_mcore.config.schema import LoRAConfig
from igrpo_mcore.planning.catalogue import PlannedModel
from igrpo_mcore.planning.layout import Layout, Stage
from igrpo_mcore.planning.parameters import TrainerBytes, held_by_stage, trainer_bytes

FACTOR_BYTES = 16
"""A, B, their gradients and two moments, all fp32; every data-parallel rank holds them whole."""


def trained_bytes(model: PlannedModel, layout: Layout, stage: Stage, lora: LoRAConfig) -> TrainerBytes:
    """``trainer_bytes`` of a rank; with ``lora.rank`` the optimizer is that of the adapters. The base weights
    are on the host."""
    found = trainer_bytes(model, layout, stage)
    return replace(found, optimizer=adapter_bytes(model, layout, stage, lora)) if lora.rank else found


def adapter_bytes(model: PlannedModel, layout: Layout, stage: Stage, lora: LoRAConfig) -> int:
    """Bytes of a rank's adapters with all that belongs to them."""
    elements = 0
    for rule in held_by_stage(model, layout, stage):
        for tensor in rule.tensors:
            if rule.dim is not None and lora.adapts(tensor.name):
                divided, whole = tensor.shape[tensor.dim], tensor.shape[1 - tensor.dim]
                elements += lora.rank * (divided // layout.tp + whole)
    return FACTOR_BYTES * elements
