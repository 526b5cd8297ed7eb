"""1 where reasoning-gym's own verifier gives full marks to the final value that a completion states."""

import json

from igrpo_mcore.data.generated import reasoning_gym
from igrpo_mcore.rewards.answer import stated_answer
from igrpo_mcore.rewards.final_value import final_value, restates, same_text
from igrpo_mcore.rewards.form import ResponseForm
from igrpo_mcore.types import Completion, Problem


class ReasoningGymReward:
    """Only what ``form`` reads as the answer is shown to the verifier, and partial marks count as 0: the
    default verifier pays for any text that contains the answer, a list of guesses included."""

    def __init__(self, form: ResponseForm) -> None:
        self._form = form
        self._verifier = reasoning_gym().get_score_answer_fn

    def __call__(self, problem: Problem, completion: Completion) -> float:
        """1 or 0. Raises ``ValueError`` for a problem that reasoning-gym did not generate."""
        if not problem.entry:
            raise ValueError(f"problem {problem.id} has no reasoning-gym entry; data.path must generate it")
        stated = stated_answer(completion.text, self._form)
        if stated is None or (restates(stated, problem.problem) and not same_text(stated, problem.answer)):
            return 0.0
        entry = json.loads(problem.entry)
        score = self._verifier(entry["metadata"]["source_dataset"])
        answers = {stated, final_value(stated, problem.answer) or stated}
        return float(any(score(answer, entry) >= 1.0 for answer in answers))
