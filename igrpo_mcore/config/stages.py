"""The stages of a rollout, as a recipe asks for them."""

from dataclasses import dataclass

from igrpo_mcore.config.schema import RolloutConfig, Selection

DRAFTS, REFINEMENTS, COMPLETIONS = "drafts", "refinements", "completions"


@dataclass(frozen=True)
class Stage:
    """``num_samples`` completions a prompt of at most ``max_tokens`` tokens. The first stage samples under
    q, each later one under q' with the chosen completion of the stage before; the last is trained on."""

    name: str
    num_samples: int
    max_tokens: int


def stages_of(rollout: RolloutConfig) -> tuple[Stage, ...]:
    """One stage for plain GRPO, N + G completions under q; drafts and refinements for iGRPO (arXiv
    2602.09000, section 3); ``rollout.draft_rounds`` above 1 has further rounds of N drafts, each under the
    best of the round before."""
    drafts = rollout.num_drafts * rollout.draft_rounds
    if rollout.selection == Selection.none:
        return (Stage(COMPLETIONS, drafts + rollout.num_refinements, rollout.max_completion_tokens),)
    later = [f"{DRAFTS}_{number}" for number in range(2, rollout.draft_rounds + 1)]
    rounds = [Stage(name, rollout.num_drafts, rollout.draft_tokens) for name in (DRAFTS, *later)]
    return (*rounds, Stage(REFINEMENTS, rollout.num_refinements, rollout.max_completion_tokens))
