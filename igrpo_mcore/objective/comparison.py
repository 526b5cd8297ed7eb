"""Which objectives a run can tell apart."""

from igrpo_mcore.config.schema import Advantage, Config, Correction, ObjectiveConfig


def same_gradient_note(config: Config) -> str | None:
    """What to say at the start where the recipe chooses an objective or a clip that changes nothing.

    With one update a step π_θ is π_old, so the ratio is 1: clip, reinforce, cispo and gspo then have the same
    gradient A ∇log π_θ, and no token is clipped (KL and entropy do not depend on the kind). Only gspo with
    importance weights by token is another one: it averages them over the sequence.
    """
    if config.train.updates_per_step > 1:
        return None
    default, chosen = ObjectiveConfig(), config.objective
    clips = ("clip_low", "clip_high", "dual_clip")
    if chosen.kind == "gspo" and chosen.correction == Correction.token:
        return None
    if chosen.advantage == Advantage.raft:  # which asks for its kind
        return None
    if chosen.kind == "clip" and all(getattr(chosen, n) == getattr(default, n) for n in clips):
        return None
    return (
        f"note: with one update a step the ratio is 1 and objective.kind={chosen.kind} has the gradient of "
        "every other kind, whatever the clip; to compare them set train.passes or train.mini_batches above 1"
    )
