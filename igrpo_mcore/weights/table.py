"""A family's table with all layers written out: the one source of names for every direction."""

import re
from dataclasses import dataclass, field
from functools import cached_property

from igrpo_mcore.weights.rules import HFTensor, Rule

EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT = "output_layer.weight"
HF_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Table:
    """Every Megatron parameter of a model, in the order that weights are streamed.

    Parameter names carry global layer numbers. ``ignored`` are patterns of checkpoint
    tensors that no parameter holds and that may be left out (multi-token prediction heads, rotary
    tables of old checkpoints, the copy of a tied head).
    """

    rules: tuple[Rule, ...]
    tied: bool = False
    ignored: tuple[str, ...] = field(default=())

    @cached_property
    def by_param(self) -> dict[str, Rule]:
        return {rule.param: rule for rule in self.rules}

    @cached_property
    def tensors(self) -> dict[str, HFTensor]:
        """Hugging Face name -> tensor, in stream order; a tied head appears once, as the embedding."""
        return {tensor.name: tensor for rule in self.rules for tensor in rule.tensors}

    @cached_property
    def tied_embedding(self) -> str | None:
        """Hugging Face name of the embedding that the head multiplies by; None where the head has its own."""
        return self.by_param[OUTPUT].tensors[0].name if self.tied else None

    @cached_property
    def parameters(self) -> int:
        """Numbers in all tensors, each counted once (a tied head with the embedding)."""
        return sum(tensor.numel for tensor in self.tensors.values())

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Tensor names that vLLM reloads as one module, in stream order."""
        groups: dict[str, dict[str, None]] = {}
        seen: set[str] = set()
        for rule in self.rules:
            names = [t.name for t in rule.tensors if t.name not in seen]
            seen.update(names)
            if names:
                groups.setdefault(rule.group, {}).update(dict.fromkeys(names))
        return tuple(tuple(names) for names in groups.values())

    def may_ignore(self, name: str) -> bool:
        """Whether a checkpoint tensor that is not in the table may be left out."""
        return any(re.search(pattern, name) for pattern in self.ignored)
