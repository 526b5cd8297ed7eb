"""The ranks of a plan and which layers each pipeline stage holds."""

from dataclasses import dataclass

from igrpo_mcore.config.schema import Config
from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.policy.architecture import check_layout, pipeline_pattern


@dataclass(frozen=True)
class Layout:
    """A parallel layout on a number of ranks; Megatron's order, tensor-parallel ranks next to each other."""

    tp: int
    pp: int
    vpp: int
    dp: int
    sp: bool
    rollout_tp: int
    gpus_per_node: int

    @property
    def world(self) -> int:
        return self.tp * self.pp * self.dp

    @property
    def engines(self) -> int:
        """Rollout engines."""
        return self.world // self.rollout_tp

    @property
    def nodes(self) -> int:
        return -(-self.world // self.gpus_per_node)

    def coordinates(self, rank: int) -> tuple[int, int]:
        """(tensor-parallel rank, pipeline stage) of a global rank (order tp-cp-ep-dp-pp)."""
        return rank % self.tp, rank // (self.tp * self.dp)


def default_world(config: Config, gpus_per_node: int) -> int:
    """Ranks of a recipe that names no number of nodes: its layout, filled up to whole nodes.

    With ``parallel.dp`` set it is exactly that layout; a layout smaller than a node takes the
    largest multiple of itself that a node holds.
    """
    parallel = config.parallel
    ranks = parallel.tp * parallel.pp
    if parallel.dp:
        return ranks * parallel.dp
    if ranks <= gpus_per_node:
        return gpus_per_node // ranks * ranks
    node = gpus_per_node
    return next(n for n in range(-(-ranks // node) * node, ranks * node + 1, node) if n % ranks == 0)


def layout_of(config: Config, architecture: Architecture, world: int, gpus_per_node: int = 8) -> Layout:
    """The recipe's layout on ``world`` ranks.

    Raises:
        UserError: what ``check_layout`` refuses at the start of a run.
    """
    parallel = config.parallel
    check_layout(architecture, parallel, config.rollout.tp, world)
    dp = world // (parallel.tp * parallel.pp)
    return Layout(parallel.tp, parallel.pp, parallel.vpp, dp, parallel.sp, config.rollout.tp, gpus_per_node)


@dataclass(frozen=True)
class Stage:
    """The hybrid layers of one pipeline stage: ``layers`` are global numbers, ``symbols`` their kinds;
    ``chunks`` are the numbers again, by virtual chunk."""

    index: int
    first: bool
    last: bool
    chunks: tuple[tuple[int, ...], ...]
    symbols: str

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(layer for chunk in self.chunks for layer in chunk)


def stages_of(architecture: Architecture, layout: Layout) -> tuple[Stage, ...]:
    """Each stage's layers; stage s holds the pattern's chunks s, s + pp, s + 2 pp, …"""
    chunks = pipeline_pattern(architecture, layout.pp * layout.vpp).split("|")
    starts = [sum(len(c) for c in chunks[:i]) for i in range(len(chunks))]
    stages = []
    for stage in range(layout.pp):
        mine = range(stage, len(chunks), layout.pp)
        layers = tuple(tuple(range(starts[i], starts[i] + len(chunks[i]))) for i in mine)
        symbols = "".join(chunks[i] for i in mine)
        stages.append(Stage(stage, stage == 0, stage == layout.pp - 1, layers, symbols))
    return tuple(stages)
