"""Verifiers of reasoning-gym are tried before a policy does: who earns them, and what fools them."""

import json

import pytest
import reasoning_gym

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.rewards.reasoning_gym import check_verifiers, reasoning_gym_reward
from igrpo_mcore.types import Completion, Problem


def problems(task: str) -> list[Problem]:
    entries = list(reasoning_gym.create_dataset(task, size=6, seed=0))
    return [Problem(str(i), e["question"], str(e["answer"]), json.dumps(e)) for i, e in enumerate(entries)]


@pytest.mark.parametrize("where", AccuracyFrom)
@pytest.mark.parametrize("task", ["products", "chain_sum", "gcd", "letter_counting", "word_sorting"])
def test_sound_verifiers_pass(task, where):
    check_verifiers(problems(task), RewardOptions(where))


@pytest.mark.parametrize("task", ["gsm_symbolic", "game_of_life_halting"])
def test_a_verifier_that_pays_for_guesses(task):
    first, *rest = problems(task)
    other = next(problem.answer for problem in rest if problem.answer != first.answer)
    score = reasoning_gym.get_score_answer_fn(task)
    assert score(f"{first.answer} or {other}", json.loads(first.entry)) == 1.0
    with pytest.raises(
        UserError, match=rf"{task} gives full marks to two guesses .* take the reward accuracy"
    ):
        check_verifiers([first, *rest], RewardOptions())


def test_an_answer_that_earns_nothing():
    """arc_agi's verifier compares tuples, which JSON does not keep."""
    assert check_verifiers([], RewardOptions()) is None
    with pytest.raises(UserError, match="gives nothing for the reference answers of arc_agi"):
        check_verifiers(problems("arc_agi"), RewardOptions())


def test_problems_from_elsewhere():
    with pytest.raises(UserError, match=r"set data\.path=reasoning_gym:TASK"):
        check_verifiers([Problem("1", "1+1", "2")], RewardOptions())


def test_a_text_on_which_a_verifier_raises_costs_no_other_reading():
    """prime_factorization's raises at ``5*7*7``, which is how the right answer is also written."""
    problem = next(p for p in problems("prime_factorization") if "×" in p.answer)
    written = problem.answer.replace("×", "*")
    with pytest.raises(ValueError, match="invalid literal"):
        reasoning_gym.get_score_answer_fn("prime_factorization")(written, json.loads(problem.entry))
    completion = Completion((), (), f"<answer>{problem.answer}</answer>", False)
    assert reasoning_gym_reward(problem, completion) == 1.0
