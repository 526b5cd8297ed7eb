"""What a run may sample: the same number of completions makes variants comparable."""

from collections.abc import Sequence

from igrpo_mcore.config.schema import Config
from igrpo_mcore.config.stages import stages_of
from igrpo_mcore.errors import UserError
from igrpo_mcore.study.variants import SweepRun


def completions_of(config: Config) -> int:
    """Completions that a run samples: steps x prompts x those of all its stages (N + G for one round),
    without refills, whose number nobody knows before."""
    a_prompt = sum(stage.num_samples for stage in stages_of(config.rollout))
    return config.train.steps * config.train.prompts_per_step * a_prompt


def budget_note(runs: Sequence[SweepRun], *, must_be_equal: bool) -> str:
    """One line on the budgets of the variants.

    Raises:
        UserError: they differ and ``must_be_equal``.
    """
    budgets = {run.variant.name: completions_of(run.config) for run in runs}
    different = set(budgets.values())
    refilled = list(dict.fromkeys(run.variant.name for run in runs if run.config.rollout.max_refills))
    if refilled and must_be_equal and len(budgets) > 1:
        raise UserError(
            f"rollout.max_refills lets {', '.join(refilled)} sample more than the budget: leave it at 0, or "
            "set equal_budget: false"
        )
    if len(different) == 1:
        return f"{different.pop():,} completions a run in every variant"
    listed = ", ".join(f"{name} {budget:,}" for name, budget in budgets.items())
    if must_be_equal:
        raise UserError(
            f"the variants sample different numbers of completions ({listed}): change train.steps, "
            "train.prompts_per_step or the groups, or set equal_budget: false"
        )
    return f"budgets differ, completions a run: {listed}"
