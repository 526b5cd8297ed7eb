"""Everything that can be known to fail before a rank is started."""

from igrpo_mcore.config.schema import Config
from igrpo_mcore.data.problems import load_problems
from igrpo_mcore.policy.architecture import architecture_of, check_layout, load_hf_config
from igrpo_mcore.rewards.registry import check_name


def local_ranks(config: Config) -> int:
    """Ranks that the recipe's layout needs on its own."""
    return config.parallel.tp * config.parallel.pp * (config.parallel.dp or 1)


def preflight(config: Config, world_size: int) -> None:
    """Check architecture, layout, data and rewards without starting anything.

    Raises:
        UserError: with the first thing that would fail.
    """
    architecture = architecture_of(load_hf_config(config.model.path), config.model.dtype)
    check_layout(architecture, config.parallel, config.rollout.tp, world_size)
    load_problems(config.data)
    for name in config.reward.weights:
        check_name(name)
