"""reasoning-gym's verifiers behind the one answer of a completion."""

import json

import pytest
import reasoning_gym

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.rewards.registry import load_reward
from igrpo_mcore.types import Completion, Problem

TASKS = [
    "products",
    "chain_sum",
    "gcd",
    "letter_counting",
    "word_sorting",
    "leg_counting",
    "basic_arithmetic",
]


def problems(task: str) -> list[Problem]:
    entries = list(reasoning_gym.create_dataset(task, size=10, seed=0))
    return [Problem(str(i), e["question"], str(e["answer"]), json.dumps(e)) for i, e in enumerate(entries)]


def score(problem: Problem, text: str, where: AccuracyFrom = AccuracyFrom.answer_tag) -> float:
    reward = load_reward("reasoning_gym", RewardOptions(accuracy_from=where))
    return reward(problem, Completion((), (), text, False))


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_scores_and_the_question_does_not(task):
    for problem in problems(task):
        assert score(problem, f"<think>so</think><answer>{problem.answer}</answer>") == 1.0
        assert score(problem, f"<answer>{problem.problem}</answer>") == 0.0
        assert score(problem, problem.problem, AccuracyFrom.anywhere) == 0.0
        assert score(problem, problem.answer) == 0.0  # not in the place


def test_guesses_that_the_verifier_itself_pays_for():
    problem = problems("products")[0]
    guesses = f"1 2 3 {problem.answer}"
    entry = json.loads(problem.entry)
    assert reasoning_gym.get_score_answer_fn("products")(guesses, entry) > 0
    assert score(problem, f"<answer>{guesses}</answer>") == 0.0
    assert score(problem, f"<answer>1</answer><answer>{problem.answer}</answer>") == 0.0


def test_a_problem_without_an_entry():
    with pytest.raises(ValueError, match="no reasoning-gym entry"):
        score(Problem("1", "1+1", "2"), "<answer>2</answer>")
