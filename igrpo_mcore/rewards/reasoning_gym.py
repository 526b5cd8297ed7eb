"""1 where reasoning-gym's own verifier gives full marks to the answer that stands in the asked place."""

import json
from collections.abc import Sequence
from typing import Any

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.data.generated import reasoning_gym
from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.accuracy import final_answer_of
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.rewards.places import answer_texts
from igrpo_mcore.rewards.restated import repeats_problem
from igrpo_mcore.types import Completion, Problem

DEFAULT = RewardOptions()
TRIED = 8
"""Problems of a task that its verifier is tried on."""


def reasoning_gym_reward(
    problem: Problem, completion: Completion, *, options: RewardOptions = DEFAULT
) -> float:
    """1 or 0. The verifier sees only the one answer in the place, as it stands and as the final value that
    ``accuracy`` reads out of it; partial marks count as 0, since the default verifier pays for any text that
    contains the answer, a list of guesses or the problem included.

    Raises:
        ValueError: a problem that reasoning-gym did not generate.
    """
    if not problem.entry:
        raise ValueError(f"problem {problem.id} has no reasoning-gym entry; data.path must generate it")
    texts = {text.strip() for text in answer_texts(completion.text, options)}
    if len(texts) != 1:
        return 0.0
    (text,) = texts
    answer = final_answer_of(completion.text, options, problem=problem)
    given = set(answer.spoken) if answer else set()
    if text == problem.answer or not repeats_problem(text, problem.problem):
        given.add(text)
    entry = json.loads(problem.entry)
    return float(any(_marks(one, entry) >= 1.0 for one in given))


def check_verifiers(problems: Sequence[Problem], options: RewardOptions) -> None:
    """Try each task's verifier on ``TRIED`` of its problems before a policy does.

    Raises:
        UserError: problems that reasoning-gym did not generate; a task whose own reference answers earn
            nothing (arc_agi and rearc in 0.1.25 want objects that JSON does not keep); one that pays for
            two guesses.
    """
    by_task: dict[str, list[Problem]] = {}
    for problem in problems:
        if not problem.entry:
            raise UserError(
                "the reward reasoning_gym judges generated problems only; set data.path=reasoning_gym:TASK, "
                "or take the reward accuracy"
            )
        by_task.setdefault(json.loads(problem.entry)["metadata"]["source_dataset"], []).append(problem)
    for task, of_task in by_task.items():
        for problem in of_task[:TRIED]:
            if not _earns(problem.answer, problem, options):
                raise UserError(
                    f"the reward reasoning_gym gives nothing for the reference answers of {task} with "
                    f"reward.accuracy_from={options.accuracy_from}; take the reward accuracy, or another task"
                )
            right = problem.answer
            wrong = next((p.answer for p in of_task if p.answer != right), None)
            guesses = [] if wrong is None else [f"{right} or {wrong}", f"{wrong} or {right}"]
            if any(_earns(guess, problem, options) for guess in guesses):
                raise UserError(
                    f"reasoning-gym's verifier of {task} gives full marks to two guesses "
                    f"({_short(guesses[0])}), which a policy would learn; take the reward "
                    "accuracy, or another task"
                )


def _earns(text: str, problem: Problem, options: RewardOptions) -> bool:
    completion = Completion((), (), _PLACES[options.accuracy_from].format(text), False)
    return reasoning_gym_reward(problem, completion, options=RewardOptions(options.accuracy_from)) > 0


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:59]}…"


_PLACES = {
    AccuracyFrom.answer_tag: "<answer>{}</answer>",
    AccuracyFrom.boxed: "\\boxed{{{}}}",
    AccuracyFrom.anywhere: "{}",
}


def _marks(answer: str, entry: dict[str, Any]) -> float:
    """What the verifier gives; a text that it cannot read, on which some raise, earns nothing."""
    score = reasoning_gym().get_score_answer_fn(entry["metadata"]["source_dataset"])
    try:
        return float(score(answer, entry))
    except Exception:
        return 0.0
