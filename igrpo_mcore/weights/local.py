"""What this rank holds: its Megatron parameters under their global names, each with its rule."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron.core import parallel_state
from torch import Tensor, nn

from igrpo_mcore.collective import gather_objects, raise_everywhere
from igrpo_mcore.errors import UserError
from igrpo_mcore.weights.rules import Rule, Segment
from igrpo_mcore.weights.table import OUTPUT, Table

_LAYER = re.compile(r"^decoder\.layers\.(\d+)\.(.*)$")
_SEQUENTIAL_EXPERT = re.compile(r"^(.*\.experts\.local_experts)\.(\d+)\.(.*)$")
_GROUPED_EXPERT = re.compile(r"^(.*\.experts)\.(linear_fc[12])\.weight(\d+)$")


@dataclass(frozen=True)
class LocalShard:
    """One parameter (or persistent buffer) of this rank and where Hugging Face runs lie in it."""

    tensor: Tensor
    rule: Rule
    segments: tuple[Segment, ...]

    def view(self, segment: Segment) -> Tensor:
        """The part of the parameter that ``segment`` describes (no copy)."""
        return self.tensor.narrow(segment.dim, segment.offset, segment.run.length)


def bare_chunks(chunks: Sequence[nn.Module]) -> list[nn.Module]:
    """The models inside data-parallel or precision wrappers."""
    bare = []
    for chunk in chunks:
        while not hasattr(chunk, "decoder"):
            chunk = chunk.get_submodule("module")
        bare.append(chunk)
    return bare


def _named_tensors(chunk: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in chunk.named_parameters():
        yield name, parameter.detach()
    for name, buffer in chunk.named_buffers():
        if name.endswith("router.expert_bias"):
            yield name, buffer


def _global_name(name: str, chunk: nn.Module, experts_per_rank: int) -> str:
    """Layer and expert numbers as the table has them (whole model, sequential experts)."""
    layer = _LAYER.match(name)
    if layer:
        number = chunk.decoder.layers[int(layer[1])].layer_number - 1  # type: ignore[union-attr,index]
        name = f"decoder.layers.{number}.{layer[2]}"
    grouped = _GROUPED_EXPERT.match(name)
    if grouped:
        name = f"{grouped[1]}.local_experts.{grouped[3]}.{grouped[2]}.weight"
    expert = _SEQUENTIAL_EXPERT.match(name)
    if expert:
        first = parallel_state.get_expert_model_parallel_rank() * experts_per_rank
        name = f"{expert[1]}.{first + int(expert[2])}.{expert[3]}"
    return name


def _locate(chunks: Sequence[nn.Module], table: Table) -> dict[str, LocalShard]:
    shards: dict[str, LocalShard] = {}
    for chunk in bare_chunks(chunks):
        config = chunk.config
        experts = (getattr(config, "num_moe_experts", None) or 0) // (
            getattr(config, "expert_model_parallel_size", None) or 1
        )
        for name, tensor in _named_tensors(chunk):
            param = _global_name(name, chunk, experts)
            rule = table.by_param.get(param)
            if rule is None:
                raise UserError(
                    f"the policy holds {param} of shape {tuple(tensor.shape)}, which the weight table "
                    "does not know; the layer pattern and the Hugging Face config disagree"
                )
            if rule.expert is None:
                rank = parallel_state.get_tensor_model_parallel_rank()
                size = parallel_state.get_tensor_model_parallel_world_size()
            else:
                rank = parallel_state.get_expert_tensor_parallel_rank()
                size = parallel_state.get_expert_tensor_parallel_world_size()
            expected, found = rule.local_shape(size), tuple(tensor.shape)
            fits = found == expected or (
                rule.vocabulary and found[1:] == expected[1:] and found[0] >= expected[0]
            )
            if not fits:
                raise UserError(
                    f"the policy's {param} has shape {found} on tensor-parallel rank {rank} of {size}, the "
                    f"Hugging Face config asks for {expected}"
                )
            along = found[rule.dim] if rule.dim is not None else 0
            shards[param] = LocalShard(tensor, rule, tuple(rule.segments(rank, size, along)))
    return shards


def locate_shards(chunks: Sequence[nn.Module], table: Table) -> dict[str, LocalShard]:
    """This rank's parameters by global name. Collective.

    Args:
        chunks: the policy's model chunks, wrapped or bare.

    Raises:
        UserError: on every rank, where any rank holds a parameter that the table does not know, of
            another shape, or where no rank holds one that the table has.
    """
    shards: dict[str, LocalShard] = {}
    problem = None
    try:
        shards = _locate(chunks, table)
    except UserError as error:
        problem = str(error)
    raise_everywhere(problem)
    missing = set(table.by_param).difference(*gather_objects(list(shards)))
    if table.tied:
        missing.discard(OUTPUT)  # one stage holds both ends: the head is the embedding
    if missing:
        raise UserError(
            f"no rank holds {min(missing)} ({len(missing)} parameters are missing); the layer pattern and "
            "the Hugging Face config disagree"
        )
    return shards
