"""What this rank holds: its Megatron parameters under their global names, each with its rule."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from megatron.core import parallel_state
from torch import Tensor, nn

from igrpo_mcore.collective import gather_objects, raise_everywhere
from igrpo_mcore.errors import UserError
from igrpo_mcore.weights.rules import Rule, Segment
from igrpo_mcore.weights.table import OUTPUT, Table

_LAYER = re.compile(r"^decoder\.layers\.(\d+)\.(.*)$")


@dataclass(frozen=True)
class LocalShard:
    """One parameter of this rank and where Hugging Face runs lie in it."""

    tensor: Tensor
    rule: Rule
    segments: tuple[Segment, ...]

    def view(self, segment: Segment) -> Tensor:
        """The part of the parameter that ``segment`` describes (no copy)."""
        return self.tensor.narrow(self.rule.tensors[0].dim, segment.offset, segment.run.length)


def bare_chunks(chunks: Sequence[nn.Module]) -> list[nn.Module]:
    """The models inside data-parallel or precision wrappers."""
    bare = []
    for chunk in chunks:
        while not hasattr(chunk, "decoder"):
            chunk = chunk.get_submodule("module")
        bare.append(chunk)
    return bare


def _global_name(name: str, chunk: nn.Module) -> str:
    """The layer's number as the table has it (of the whole model)."""
    layer = _LAYER.match(name)
    if not layer:
        return name
    number = chunk.decoder.layers[int(layer[1])].layer_number - 1  # type: ignore[union-attr,index]
    return f"decoder.layers.{number}.{layer[2]}"


def _locate(chunks: Sequence[nn.Module], table: Table) -> dict[str, LocalShard]:
    shards: dict[str, LocalShard] = {}
    rank = parallel_state.get_tensor_model_parallel_rank()
    size = parallel_state.get_tensor_model_parallel_world_size()
    for chunk in bare_chunks(chunks):
        for name, parameter in chunk.named_parameters():
            param, tensor = _global_name(name, chunk), parameter.detach()
            rule = table.by_param.get(param)
            if rule is None:
                raise UserError(
                    f"the policy holds {param} of shape {tuple(tensor.shape)}, which the weight table "
                    "does not know; the layer pattern and the Hugging Face config disagree"
                )
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
