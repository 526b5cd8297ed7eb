"""``igrpo rescore``: a run's kept samples under today's accuracy reward: what its figures were worth."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igrpo_mcore.config.reward_choices import THINK_OPEN, AccuracyFrom
from igrpo_mcore.errors import UserError
from igrpo_mcore.report.records import SAMPLES_FILE, read_records
from igrpo_mcore.rewards.accuracy import accuracy_reward
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.run.folder import config_of_run
from igrpo_mcore.types import Completion, Problem

SHOWN = 5


@dataclass(frozen=True)
class Rescored:
    """One completion: what its run gave it for accuracy, and what it is given now."""

    step: int
    problem: str
    answer: str
    text: str
    before: float
    now: float


def rescored(run: Path, accuracy_from: AccuracyFrom | None = None) -> list[Rescored]:
    """Every kept completion of a run, of all stages, in order.

    Args:
        accuracy_from: where the completions state their answers; none takes the run's own option.

    Raises:
        UserError: ``run`` keeps no samples with an accuracy, or is no run's folder.
    """
    place = AccuracyFrom(accuracy_from or config_of_run(run).reward.accuracy_from)
    found = []
    for step, problem, prompt, sample in _samples(run):
        if "accuracy" not in sample["parts"]:
            continue
        options = RewardOptions(place, opens_thinking=prompt.rstrip().endswith(THINK_OPEN))
        completion = Completion((), (), sample["text"], sample["truncated"])
        now = accuracy_reward(problem, completion, options=options)
        before = sample["parts"]["accuracy"]
        found.append(Rescored(step, problem.problem, problem.answer, sample["text"], before, now))
    if not found:
        raise UserError(
            f"{run / SAMPLES_FILE} holds no completion with an accuracy; set run.samples_per_step"
        )
    return found


def summary(run: Path, found: list[Rescored]) -> str:
    """Accuracy of the first and the last fifth of the steps, then and now, and some that changed."""
    last_step = found[-1].step
    fifth = max(1, last_step // 5)
    lines = [f"{run}: {len(found)} completions of {last_step} steps"]
    for name, part in (
        ("first fifth", [r for r in found if r.step <= fifth]),
        ("last fifth", [r for r in found if r.step > last_step - fifth]),
    ):
        before, now = (sum(getattr(r, which) for r in part) / len(part) for which in ("before", "now"))
        lines.append(f"  {name:<12} accuracy then {before:.4f}, now {now:.4f}")
    changed = [r for r in found if r.before != r.now]
    lines.append(f"  {len(changed)} completions are scored differently now")
    lines += [
        f"    step {r.step}: {r.before:g} -> {r.now:g}  {r.problem!r} [{r.answer}]  {r.text[:160]!r}"
        for r in changed[-SHOWN:]
    ]
    return "\n".join(lines)


def _samples(run: Path) -> Iterator[tuple[int, Problem, str, dict[str, Any]]]:
    """Step, problem, prompt and completion."""
    for record in read_records(run / SAMPLES_FILE):
        problem = Problem(str(record["id"]), record["problem"], record["answer"])
        for stage in record["stages"]:
            for sample in stage["completions"]:
                yield int(record["step"]), problem, stage["prompt"], sample
