"""The accuracy reward beside math-verify alone on ordinary pairs; every disagreement has its reason."""

import pytest
from math_verify import LatexExtractionConfig, parse, verify

from igrpo_mcore.rewards.accuracy import accuracy_reward
from igrpo_mcore.types import Completion, Problem

PAIRS = [
    ("5", "5"),
    ("5", "5.0"),
    ("5", "6"),
    ("-7", "-7"),
    ("7", "-7"),
    ("1/2", "0.5"),
    ("\\frac12", "\\frac{2}{4}"),
    ("\\frac{3}{4}", "0.76"),
    ("3\\sqrt{2}", "\\sqrt{18}"),
    ("3\\sqrt{2}", "3"),
    ("2\\pi", "2\\pi"),
    ("2\\pi", "\\pi"),
    ("x+1", "1+x"),
    ("x+1", "x-1"),
    ("x^2-1", "(x-1)(x+1)"),
    ("x^2-1", "(x-1)^2"),
    ("(1,2)", "(1,2)"),
    ("(1,2)", "(2,1)"),
    ("[1,2]", "(1,2)"),
    ("\\{1,2\\}", "\\{2,1\\}"),
    ("1,-2", "-2,1"),
    ("1,-2", "1,2"),
    ("y=2x+1", "2x+1"),
    ("5", "x=5"),
    ("x^2+y^2=4", "y^2+x^2=4"),
    ("90^\\circ", "90"),
    ("300000", "3\\times10^5"),
    ("1.5", "1\\frac{1}{2}"),
    ("2+3i", "3i+2"),
    ("2-3i", "2+3i"),
    ("\\frac{1+\\sqrt{5}}{2}", "\\frac{\\sqrt{5}+1}{2}"),
    ("1000", "1,000"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ("\\frac{x+2}{7}", "\\frac{2+x}{7}"),
    ("e^{2x}", "e^{2x}"),
    ("\\sin x", "\\sin(x)"),
    ("(3,4]", "(3,4]"),
    ("5", "[4,6]"),
    ("2", "\\{1,2,3\\}"),
    ("4210_5", "4210"),
    ("-13", "47-60"),
    ("6", "2\\cdot 3"),
    ("4", "\\frac{10+2}{3}"),
    ("3", "\\sqrt{4}+1"),
    ("120", "5!"),
    ("3", "\\log_2 8"),
    ("2x", "x+x"),
    ("1", "x/x"),
    ("2", "x=x+2-x"),
    ("\\frac{3}{2}", "1+\\frac{1}{2}"),
    ("(1,2)", "1,2"),
    ("\\{2\\}", "2"),
    ("50", "50\\%"),
    ("50\\%", "50"),
    ("3e5", "300000"),
    ("(-\\infty,3)", "x<3"),
    ("2^3\\cdot5", "40"),
    ("\\frac{a}{b+c}", "a/(b+c)"),
    ("C", "\\text{(C)}"),
    ("2", "-(-2)"),
    ("2", "\\sqrt{2}\\sqrt{2}"),
]
UNEVALUATED = "arithmetic is left to do"
DISAGREEMENTS = {
    ("-13", "47-60"): UNEVALUATED,
    ("6", "2\\cdot 3"): UNEVALUATED,
    ("4", "\\frac{10+2}{3}"): UNEVALUATED,
    ("3", "\\sqrt{4}+1"): UNEVALUATED,
    ("120", "5!"): UNEVALUATED,
    ("3", "\\log_2 8"): UNEVALUATED,
    ("2x", "x+x"): UNEVALUATED,
    ("1", "x/x"): UNEVALUATED,
    ("\\frac{3}{2}", "1+\\frac{1}{2}"): UNEVALUATED,
    ("2", "-(-2)"): UNEVALUATED,
    ("2", "x=x+2-x"): UNEVALUATED,
    ("(1,2)", "1,2"): "math-verify compares a bare list without its order, so 2,1 would do as well",
    ("50", "50\\%"): "a percentage counts as its number, too",
    ("50\\%", "50"): "a percentage counts as its number, too",
    ("3e5", "300000"): "math-verify reads e as the constant",
    ("(-\\infty,3)", "x<3"): "math-verify takes an inequality for an interval in one order only",
    ("2", "\\sqrt{2}\\sqrt{2}"): UNEVALUATED,
}


def alone(reference: str, given: str) -> float:
    one, other = (
        parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)  # type: ignore[arg-type]
        for text in (reference, given)
    )
    return float(verify(one, other, timeout_seconds=None))


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_agrees_with_math_verify_but_for_what_is_listed(pair: tuple[str, str]) -> None:
    reference, given = pair
    text = f"<answer>{given}</answer>"
    ours = accuracy_reward(Problem("1", "Find it.", reference), Completion((), (), text, False))
    assert (ours != alone(reference, given)) == (pair in DISAGREEMENTS), DISAGREEMENTS.get(pair, "unlisted")
