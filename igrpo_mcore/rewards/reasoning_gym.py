"""1 where reasoning-gym's own verifier gives full marks to the answer that stands in the asked place."""

import json

from igrpo_mcore.data.generated import reasoning_gym
from igrpo_mcore.rewards.accuracy import final_answer_of
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.rewards.places import answer_texts
from igrpo_mcore.rewards.restated import repeats_problem
from igrpo_mcore.types import Completion, Problem

DEFAULT = RewardOptions()


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
    score = reasoning_gym().get_score_answer_fn(entry["metadata"]["source_dataset"])
    return float(any(score(one, entry) >= 1.0 for one in given))
