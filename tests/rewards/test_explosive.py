"""References that are expressions: those of data sets are compared, those that explode are not evaluated."""

import pytest

from igrpo_mcore.rewards.accuracy import accuracy_reward
from igrpo_mcore.rewards.explosive import may_explode
from igrpo_mcore.rewards.latex import spell
from igrpo_mcore.types import Completion, Problem

ORDINARY = {
    r"2^3\cdot 5": "40",
    r"2^{10}\cdot 3^{5}": "248832",
    r"\frac{10!}{2!\,8!}": "45",
    r"10^{12}-1": "999999999999",
    r"(2^{50})^{2}": str(2**100),
    "3 + 4 \\cdot 5": "23",
    r"\binom{6}{2}": "15",
}
EXPLOSIVE = [
    "9^{9^{9}}", "9^9^9", "2^{99999}", "(2^{999})^{999}", "((9!)!)!", "9!!", "999!", "(3+4)!", "x!", "2^{5}!",
    r"\binom{10^{9}}{10^{8}}", r"\sum_{i=1}^{10000} i", "1" * 101, "x+" * 201, r"2^{(99999)}", "2^(9999)",
    "((a+b)^{64}+c)^{64}", "(a+b+c+d+e+f)^{64}", "(" * 9 + "5" + ")" * 9,
]  # fmt: skip
HARMLESS = [
    "x^9+x^8+x^7+x^6+x^5+x^4+x^3+x^2+x+1",
    "(x+1)^{64}",
    "(a+b+c)^{64}",
    r"\frac{(x+1)^{10}}{(x-1)^{10}}",
    "x^2+y^2",
    "2^{2^n}",
    r"e^{-x^{2}}",
    "x \\ne 5",
    "x != 5",
    r"\frac{\sqrt{3}}{2}",
    "10^{-5}",
    "2^{x+1}",
]


@pytest.mark.parametrize("reference", ORDINARY)
def test_an_ordinary_expression_is_evaluated(reference: str):
    problem = Problem("1", "q", reference)
    text = f"<answer>{ORDINARY[reference]}</answer>"
    assert not may_explode(spell(reference))
    assert accuracy_reward(problem, Completion((), (), text, False)) == 1.0
    assert accuracy_reward(problem, Completion((), (), "<answer>17</answer>", False)) == 0.0


@pytest.mark.parametrize("text", EXPLOSIVE)
def test_refused(text: str):
    assert may_explode(spell(text))


@pytest.mark.parametrize("text", HARMLESS)
def test_not_refused(text: str):
    assert not may_explode(spell(text))


def test_an_explosive_reference_is_still_right_as_written():
    problem = Problem("1", "q", "9^{9^{9}}")
    assert accuracy_reward(problem, Completion((), (), "<answer>9^{9^{9}}</answer>", False)) == 1.0
