"""The generated task against an evaluator of its own (Python's), its splits and its drafts."""

import random
import re

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.tiny.task import RESULTS, Split, demonstration, problems, working, wrong_draft

FORMAT = re.compile(r"<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>", re.DOTALL)


def evaluate(expression: str) -> int:
    return eval(expression, {"__builtins__": {}})


def test_answers_and_lines_are_right():
    for problem in problems(300, seed=3):
        text = demonstration(problem)
        assert FORMAT.fullmatch(text)
        assert problem.answer == str(evaluate(problem.problem))
        assert text.endswith(f"<answer>\n{problem.answer}\n</answer>")
        equations = re.findall(r"^(.+)=(\d+)$", text, re.MULTILINE)
        assert len(equations) == 3
        for left, result in equations:
            assert evaluate(left) == int(result)
            assert int(result) in RESULTS


def test_same_seed_same_problems_and_another_seed_others():
    assert problems(100, seed=0) == problems(100, seed=0)
    assert problems(100, seed=0) != problems(100, seed=1)


def test_splits_share_no_problem():
    train = {p.problem for p in problems(10_000, seed=0)}
    held_out = {p.problem for p in problems(1_000, seed=0, split=Split.held_out)}
    assert len(train) == 10_000
    assert len(held_out) == 1_000
    assert not train & held_out


def test_asking_for_too_many_problems_is_refused():
    with pytest.raises(UserError, match="at most 1000"):
        problems(1_001, seed=0, split=Split.held_out)


def test_wrong_draft_is_wrong_in_one_line_only():
    rng = random.Random(0)
    for problem in problems(200, seed=1):
        draft = wrong_draft(problem, rng)
        assert FORMAT.fullmatch(draft)
        equations = re.findall(r"^(.+)=(\d+)$", draft, re.MULTILINE)
        assert sum(evaluate(left) != int(result) for left, result in equations) == 1
        assert not draft.endswith(f"<answer>\n{problem.answer}\n</answer>")
        assert draft.endswith(f"<answer>\n{equations[-1][1]}\n</answer>")


def test_other_text_is_not_an_expression():
    with pytest.raises(ValueError, match="not a chain"):
        working("3*4+5")
