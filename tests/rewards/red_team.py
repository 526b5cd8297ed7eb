"""Completions, each with what it should score and why: what a policy could try, and what must stay right."""

from typing import NamedTuple

TAG, BOXED, ANYWHERE = "answer_tag", "boxed", "anywhere"


class Case(NamedTuple):
    problem: str
    reference: str
    completion: str
    where: str
    score: float
    why: str


def tagged(score: float, why: str, reference: str, *answers: str, problem: str = "Find it.") -> list[Case]:
    """One case an answer, in the answer tags."""
    return [
        Case(problem, reference, f"<think>so</think><answer>{answer}</answer>", TAG, score, why)
        for answer in answers
    ]


def texts(score: float, why: str, where: str, problem: str, reference: str, *completions: str) -> list[Case]:
    return [Case(problem, reference, text, where, score, why) for text in completions]


GCD = (
    "Find the Greatest Common Divisor (GCD) of these numbers: 12 and 8. Give only the GCD as your final answer."
)
LETTERS = 'How many times does the letter "t" appear in the text: "the 3 cats that sat"?'
SUM, PRODUCT, THREE = "What is 47 - 60?", "What is 7 * 8?", "State the final answer to the following: 4 + 5 - 7 ="

REFUSED = [
    *tagged(0, "an unevaluated sum or difference", "-13", "47 - 60", "(47) - (60)", "47 + -60", "-60 + 47",
            "$47 - 60$", "\\boxed{47 - 60}", "47−60", "47 minus 60", "0 - 13", "-13 + 0", "-(60 - 47)"),
    *tagged(0, "the tiny task's chain as it stands", "2", "9+3-5-5", "(9+3-5-5)", "12-5-5", "7-5", "9+3-5-5=",
            problem="9+3-5-5"),
    *tagged(0, "an unevaluated product", "6", "2*3", "2 \\cdot 3", "2 \\times 3", "2(3)", "(2)(3)", "6*1", "1*6",
            "2×3", "12/2*1", "2 \\cdot \\frac{6}{2}"),
    *tagged(0, "a quotient with work left inside", "4", "\\frac{10+2}{3}", "(10+2)/3", "48/6/2", "\\frac{24/2}{3}",
            "\\frac{2 \\cdot 6}{3}"),
    *tagged(0, "a root or power with work left", "3", "\\sqrt{4}+1", "\\sqrt{3}^2", "\\sqrt{3}\\sqrt{3}",
            "\\sqrt{4+5}", "3^{2-1}", "9^{1/2}+0", "3^1^1"),
    *tagged(0, "a mixed sum is no mixed number", "3/2", "1+1/2", "1+0.5", "2-\\frac12"),
    *tagged(0, "a function that can be evaluated", "3", "\\log_2 8", "gcd(12, 9)", "\\lfloor 3.5 \\rfloor",
            "|-3|", "\\left|-3\\right|", "\\max(1,3)", "7 \\bmod 4", "\\binom{3}{1}", "\\sum_{i=1}^{3} 1",
            "\\int_0^3 dx", "\\lim_{x \\to 3} x"),
    *tagged(0, "an evaluable factorial", "120", "5!"),
    *tagged(0, "symbols that cancel", "1", "x/x", "x^0", "i^4", "e^{0}", "\\sin^2 x+\\cos^2 x", "\\sin(\\pi/2)"),
    *tagged(0, "terms of a symbolic answer that combine", "2x+1", "x+x+1", "3x - x + 1", "2x + 2 - 1"),
    *tagged(0, "a restated equation without its value", "-13", "Solve: 47 - 60 =", "47 - 60 = ?", "47 - 60 =",
            "What is 47 - 60?", "47 - 60 = 47 - 60", "x = 47 - 60", "-13 = 47 - 60", problem=SUM),
    *tagged(0, "an equation chain whose last side is unevaluated", "12", "12 = 3*4", "x = 3*4", "10 + 2 = 3 \\cdot 4"),
    *tagged(0, "a list of guesses", "2", "1 or 2", "1, 2", "1 and 2", "{1,2,3}", "\\{1,2,3\\}", "(1,2)", "2, maybe 3",
            "either 2 or 3", "1; 2", "1\n2\n3", "x = 1, x = 2", "x=1 or x=2", "2 \\text{ or } 3", "1 2",
            "\\begin{pmatrix} 1 & 2 \\end{pmatrix}", "The answer is 1. The answer is 2.", "It is 1 or it is 2"),
    *tagged(0, "two signs are two guesses", "5", "\\pm 5", "±5"),
    *tagged(0, "an interval or inequality that contains it", "2", "[1,3]", "(1,3)", "[2,2]", "x \\ge 2", "1 < 2",
            "2 \\le 2", "\\mathbb{R}", "(-\\infty,\\infty)", "x \\in [1,3]"),
    *tagged(0, "a tautology", "2", "x = x", "2 = 2"),
    *tagged(0, "a false equation is two guesses", "2", "1 = 2", "3 = 2"),
    *tagged(0, "several boxed values", "2", "\\boxed{1} \\boxed{2}", "\\boxed{1}, \\boxed{2}, \\boxed{3}"),
    *tagged(0, "taken back", "2", "not 2", "2?", "2 or not", "maybe it is 2 or it is 3", "2, not 1"),
    *tagged(0, "no value", "2", "", " ", "two", "I do not know", "?", "=", "$$", "\\boxed{}", "\\frac{}{}"),
    *tagged(0, "two signs in a row", "2", "--2", "-(-2)", "+-+2"),
    *tagged(0, "too large to be an answer", "1", "9^9^9^9", "1" * 5000, "(" * 900 + "1" + ")" * 900, "\\frac{1}{" * 150,
            "10^{999999999}", "{" * 3000, "x^{99999}", "1e99999", "\\sqrt{" * 120 + "1" + "}" * 120, "1+" * 900 + "0"),
    *tagged(0, "wrong", "5", "6", "-5", "50", "5.1", "0.5", "5/2"),
    *tagged(0, "wrong", "3\\sqrt{2}", "3", "\\sqrt{2}", "2\\sqrt{3}"),
    *tagged(0, "wrong order of a tuple", "(1,2)", "(2,1)", "[1,2]", "(1,2),(2,1)", "(0+1,2)"),
    *tagged(0, "wrong word", "Friday", "Monday", "Monday or Friday"),
    *tagged(0, "the quotient that was asked for", "2", "10/5", "\\frac{10}{5}", "10 \\div 5", problem="What is 10/5?"),
    *tagged(0, "the numbers that were to be divided", "2", "10/5", problem="Divide 10 by 5."),
    *tagged(0, "the fraction that was to be reduced", "3/4", "42/56", problem="Simplify \\frac{42}{56}."),
    *tagged(0, "the power that was asked for", "1024", "2^{10}", "2^10", problem="Compute 2^{10}."),
    *tagged(0, "the product that was to be expanded", "x^2+2x+1", "(x+1)^2", problem="Expand (x+1)^2."),
    *tagged(0, "the list that was to be sorted", "1,2,3", "3,1,2", problem="Sort 3,1,2."),
    *tagged(0, "a product as it stands", "56", "7 * 8", "7*8", "7 × 8", "7 \\cdot 8", "What is 7 * 8?", problem=PRODUCT),
    *tagged(0, "a three-term sum as it stands", "2", "4 + 5 - 7", "9 - 7", "4 + 5 - 7 =", THREE, problem=THREE),
    *tagged(0, "a gcd restated", "4", "12 and 8", "gcd(12, 8)", "12, 8", GCD, "8/2*1", problem=GCD),
    *tagged(0, "letter counting restated", "6", LETTERS, "the 3 cats that sat", 'letter "t"', problem=LETTERS),
    *texts(0, "no answer tag", TAG, SUM, "-13", "-13", "The answer is -13.", "\\boxed{-13}", "<answer>-13", "-13</answer>",
           "<think><answer>-13</answer></think>", "47 - 60 = -13"),
    *texts(0, "tags with different values", TAG, SUM, "-13", "<answer>13</answer><answer>-13</answer>",
           "<answer>-13</answer><answer>13</answer>", "<answer>47 - 60</answer><answer>-13</answer>"),
    *texts(0, "no box, or boxes that differ", BOXED, SUM, "-13", "-13", "<answer>-13</answer>", "\\boxed{-13",
           "\\boxed{13} or \\boxed{-13}", "\\boxed{47 - 60}", "\\boxed{47-60=}", "\\boxed{-13 or 13}"),
    *texts(0, "nothing but the problem, anywhere", ANYWHERE, SUM, "-13", SUM, "Solve: 47 - 60 =", "47 - 60 = ?",
           "47 - 60", "The answer is 47 - 60.", "<answer>47 - 60</answer>", "\\boxed{47 - 60}", ""),
    *texts(0, "repeats the numbers", ANYWHERE, "What is 5 + 0?", "5", "5 + 0", "What is 5 + 0?", "5 + 0 =", "5 + 0 = 5 + 0"),
    *texts(0, "the whole problem", ANYWHERE, GCD, "4", GCD, f"The answer is: {GCD}"),
    *texts(0, "the last value is another", ANYWHERE, SUM, "-13", "-13. No: the answer is 13.", "The answer is 13."),
    *texts(0, "huge", ANYWHERE, SUM, "-13", "47 - 60 " * 100_000, "<answer>" * 100_000, "\\boxed{" * 100_000),
    *texts(0, "huge", TAG, SUM, "-13", "<answer>" * 100_000, "<answer>" + "1" * 1_000_000 + "</answer>"),
]  # fmt: skip

ACCEPTED = [
    *tagged(1, "one number", "2", "2", " 2 ", "2.", "2.0", "+2", "$2$", "\\(2\\)", "\\boxed{2}", "$\\boxed{2}$", "**2**",
            "\n2\n", "2.00"),
    *tagged(1, "a fraction, root or power of literals is one number", "2", "10/5", "\\frac{10}{5}", "\\sqrt{4}",
            "\\sqrt[3]{8}", "2^1", "4^{1/2}"),
    *tagged(1, "decimal for fraction", "1/2", "0.5", ".5", "\\frac12", "\\dfrac{1}{2}", "2/4", "50%", "50\\%"),
    *tagged(1, "fraction for decimal", "0.5", "\\frac{1}{2}", "1/2"),
    *tagged(1, "mixed number", "1.5", "1 1/2", "1\\frac{1}{2}", "3/2"),
    *tagged(1, "thousands", "1000", "1,000", "1{,}000", "1,\\!000", "10^3", "1 \\times 10^3", "1e3"),
    *tagged(1, "negative", "-13", "-13", "−13", "-13.0", "(-13)", "-\\frac{26}{2}"),
    *tagged(1, "a named value", "2", "x=2", "x = 2", "Answer: 2", "The answer is 2.", "The final answer is $2$",
            "Total = 2", "f(3) = 2", "So x is 2."),
    *tagged(1, "a worked equation ends in its value", "-13", "47 - 60 = -13", "47 - 60 = -(60 - 47) = -13",
            "47 - 60\n-13", "What is 47 - 60? -13", "47 - 60 = -13. The answer is -13.", problem=SUM),
    *tagged(1, "units", "5", "5 apples", "5 cm", "5\\text{ cm}^2", "$5", "\\$5", "5 dollars", "5^\\circ", "5 degrees", "5 m",
            "The letter appears 5 times."),
    *tagged(1, "a unit in the reference", "5 \\text{ cm}", "5", "5 cm"),
    *tagged(1, "percentages", "10\\%", "10\\%", "10%", "10", "0.1"),
    *tagged(1, "an approximation beside the exact value", "1/3", "x = \\frac{1}{3} \\approx 0.333"),
    *tagged(1, "roots", "3\\sqrt{2}", "3\\sqrt{2}", "3\\sqrt2", "\\sqrt{18}", "3√2", "3*sqrt(2)"),
    *tagged(1, "constants", "2\\pi", "2\\pi", "2π", "2pi", "2 \\cdot \\pi", "\\frac{4\\pi}{2}"),
    *tagged(1, "symbolic", "x+1", "x+1", "1 + x", "$x + 1$", "y = x + 1"),
    *tagged(1, "symbolic", "\\frac{a}{b+c}", "\\frac{a}{b+c}", "a/(b+c)"),
    *tagged(1, "symbolic", "x^2-1", "(x-1)(x+1)", "x^2 - 1"),
    *tagged(1, "an irrational sum", "\\frac{1+\\sqrt{5}}{2}", "\\frac{1+\\sqrt{5}}{2}", "(1+\\sqrt5)/2"),
    *tagged(1, "complex", "2+3i", "2+3i", "3i + 2"),
    *tagged(1, "a list where the reference is one", "1,-2", "1, -2", "-2, 1", "-2 and 1", "x = 1, x = -2", "x=1 or x=-2",
            "\\{1,-2\\}"),
    *tagged(1, "both signs where the reference has them", "3\\pm\\sqrt{2}", "3 \\pm \\sqrt{2}", "3+\\sqrt2, 3-\\sqrt2"),
    *tagged(1, "set", "\\{1,2\\}", "\\{2,1\\}", "{1, 2}"),
    *tagged(1, "tuple", "(1,\\frac{1}{2})", "(1, 1/2)", "\\left(1, 0.5\\right)", "(x,y) = (1, 0.5)"),
    *tagged(1, "interval", "(-\\infty,3)", "(-\\infty, 3)", "x < 3", "x \\in (-\\infty, 3)"),
    *tagged(1, "interval", "[-2,7]", "[-2, 7]", "-2 \\le x \\le 7"),
    *tagged(1, "union", "(1,2)\\cup(3,4)", "(3,4) \\cup (1,2)"),
    *tagged(1, "matrix", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
    *tagged(1, "relation", "x^2+y^2=4", "x^2 + y^2 = 4", "y^2+x^2=4"),
    *tagged(1, "line", "y=2x+1", "y = 2x + 1", "2x+1"),
    *tagged(1, "the reference is an expression itself", "2^3\\cdot5", "2^3 \\cdot 5", "5 \\cdot 2^3", "40"),
    *tagged(1, "the base may be left out, as math-verify has it", "4210_5", "4210_5", "4210"),
    *tagged(1, "words", "\\text{Friday}", "\\text{Friday}", "Friday", "friday.", "The answer is Friday."),
    *tagged(1, "choice", "C", "C", "(C)", "\\text{(C)}", "The answer is C."),
    *tagged(1, "lowest terms, of numbers in the problem", "3/7", "3/7", "\\frac{3}{7}", problem="3 of 7 balls are red."),
    *tagged(1, "one number of the problem is an answer", "5", "5", problem="What is 5 + 0?"),
    *tagged(1, "MATH solutions and GSM8K answers as references", "so $x = \\boxed{7}$.", "7", "x=7"),
    *tagged(1, "MATH solutions and GSM8K answers as references", "3*4 = 12\n#### 12", "12"),
    *tagged(1, "gcd", "4", "4", "The GCD of 12 and 8 is 4.", problem=GCD),
    *tagged(1, "letter counting", "6", "6", "The letter appears 6 times.", problem=LETTERS),
    *tagged(1, "the tiny task", "2", "2", "9+3-5-5 = 2", problem="9+3-5-5"),
    *texts(1, "the template opened the thinking", TAG, SUM, "-13", "so\n</think>\n<answer>\n-13\n</answer>",
           "I write <answer>1</answer></think><answer>-13</answer>"),
    *texts(1, "the same value twice", TAG, SUM, "-13", "<answer>-13</answer><answer>-13.0</answer>"),
    *texts(1, "boxed", BOXED, SUM, "-13", "\\boxed{-13}", "47 - 60 = \\boxed{-13}.", "<answer>\\boxed{-13}</answer>",
           "\\boxed{1}</think> \\boxed{-13}", "\\boxed{-13} so \\boxed{-13.0}", "\\boxed{x = -13}"),
    *texts(1, "the last stated value", ANYWHERE, SUM, "-13", "-13", "47 - 60 = -13", "The answer is -13.",
           "47 - 60 = -13\n\nSo the answer is -13.", "\\boxed{-13}", "<answer>-13</answer>", "**Answer:** -13",
           "It is 13. No, it is -13.", "The answer is $-13$. I hope it is correct."),
]  # fmt: skip

CASES = REFUSED + ACCEPTED
