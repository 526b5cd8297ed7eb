"""One problem's majority vote; it runs in a worker process, so it imports little."""

import json
from collections.abc import Sequence

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.rewards.accuracy import final_answer_of, same_answer, same_as_written
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion, Problem

WITHOUT_ANSWER = -1


def ballot(texts: Sequence[str], options: RewardOptions) -> Completion:
    """All completions of a problem as the one completion that a worker is given."""
    read = {"texts": texts, "place": options.accuracy_from, "opens_thinking": options.opens_thinking}
    return Completion((), (), json.dumps(read), False)


def vote(problem: Problem, completion: Completion) -> float:
    """A reward by its shape: ``winner`` of the texts in a ``ballot``."""
    read = json.loads(completion.text)
    options = RewardOptions(AccuracyFrom(read["place"]), opens_thinking=read["opens_thinking"])
    return float(winner(problem, read["texts"], options))


def winner(problem: Problem, texts: Sequence[str], options: RewardOptions, *, alike: bool = False) -> int:
    """The first text of the largest class of equal answers, ``WITHOUT_ANSWER`` where none has an answer.

    Of equally large classes the one whose first member stands first wins. ``alike`` compares only what is
    written (the same number, the same words), which takes no time.
    """
    answers = [final_answer_of(text, options, problem=problem) for text in texts]
    classes: list[list[int]] = []
    for i, answer in enumerate(answers):
        if answer is None:
            continue
        mine = next((c for c in classes if same_as_written(answers[c[0]], answer)), None)
        if mine is None and not alike:
            mine = next((c for c in classes if same_answer(texts[c[0]], texts[i], options)), None)
        if mine is None:
            classes.append([i])
        else:
            mine.append(i)
    return max(classes, key=len)[0] if classes else WITHOUT_ANSWER
