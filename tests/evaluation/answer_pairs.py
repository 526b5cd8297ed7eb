r"""Reference answers, answers and what a careful grader would say: 1 the same answer, 0 not.

Written by hand in the style of GSM8K, MATH, AIME, Minerva, OlympiadBench and choices, before the reward was
asked. Where the reward says otherwise the pair stands in ``DISAGREEMENTS`` with the reason: the table says
what is right, not what the reward does.
"""

from typing import NamedTuple


class Pair(NamedTuple):
    reference: str
    answer: str
    same: int


def pairs(reference: str, same: list[str], different: list[str]) -> list[Pair]:
    return [Pair(reference, answer, 1) for answer in same] + [
        Pair(reference, answer, 0) for answer in different
    ]


GSM8K = [
    *pairs(
        "18",
        ["18", "$18", "18 dollars", "18.00", "18.", "\\$18", "The answer is 18"],
        ["81", "-18", "18 or 19"],
    ),
    *pairs("1,200", ["1200", "1,200", "$1,200.00", "1200 miles"], ["1.2", "120", "12,00"]),
    *pairs("5600000", ["5,600,000", "5.6 million", "5600000"], ["5,600", "5600"]),
    *pairs("0.75", ["3/4", "75%", ".75", "0.750"], ["75", "0.57"]),
    *pairs("25", ["25%", "25 percent", "25"], ["250%"]),
    *pairs("7", ["7 apples", "seven", "7 hours"], ["7:30", "7 1/2"]),
    *pairs("He had 3+4=<<3+4=7>>7 left.\n#### 7", ["7", "x = 7"], ["34", "3+4"]),
    *pairs("104", ["104", "104 km/h", "104 \\text{ hours}"], ["104.5"]),
    *pairs("-3", ["-3", "−3", "negative 3"], ["3"]),
]

MATH_NUMBERS = [
    *pairs(
        "\\frac{1}{2}",
        ["1/2", "0.5", "\\dfrac{1}{2}", "\\frac12", "\\tfrac{1}{2}", "2/4"],
        ["2", "-1/2", "1/3"],
    ),
    *pairs("\\frac{14}{3}", ["14/3", "4\\frac{2}{3}", "4 2/3"], ["4.6", "4.67", "3/14", "42/3"]),
    *pairs("-\\frac{5}{3}", ["-5/3", "\\frac{-5}{3}", "\\frac{5}{-3}"], ["5/3"]),
    *pairs(
        "2\\sqrt{3}",
        ["2\\sqrt{3}", "\\sqrt{12}", "2 \\sqrt 3", "2*sqrt(3)"],
        ["\\sqrt{6}", "3.46", "2\\sqrt{2}"],
    ),
    *pairs(
        "\\frac{\\sqrt{2}}{2}", ["\\frac{1}{\\sqrt{2}}", "\\sqrt{2}/2", "\\sqrt{\\frac{1}{2}}"], ["\\sqrt{2}"]
    ),
    *pairs("\\pi", ["\\pi", "π", "pi"], ["3.14", "2\\pi"]),
    *pairs("9\\pi", ["9\\pi", "9π \\text{ square units}", "\\pi \\cdot 9"], ["9", "28.27"]),
    *pairs("10\\%", ["10%", "10\\%", "10", "0.1"], ["0.01"]),
    *pairs("\\$32{,}348", ["32348", "32,348", "\\$32,348"], ["32.348"]),
    *pairs("2^{10}", ["1024", "2^{10}"], ["20", "1023"]),
    *pairs("1.5 \\times 10^{-3}", ["0.0015", "1.5e-3", "1.5 \\cdot 10^{-3}"], ["0.015", "1.5"]),
    *pairs("90^\\circ", ["90", "90^\\circ", "90 degrees", "90^{\\circ}"], ["9", "\\frac{\\pi}{3}"]),
    *pairs("3+4i", ["3+4i", "4i+3"], ["3-4i", "7", "4+3i"]),
    *pairs("\\log_2 3", ["\\log_2 3", "\\log_{2}{3}"], ["1.58", "\\log_3 2"]),
    *pairs("e^2", ["e^2", "e^{2}"], ["2e", "7.389"]),
    *pairs("0", ["0", "0.0", "zero"], ["1", "\\emptyset"]),
    *pairs("1+\\sqrt{5}", ["\\sqrt{5}+1", "1+\\sqrt{5}"], ["1-\\sqrt{5}", "\\sqrt{6}"]),
    *pairs("52_8", ["52_8", "52_{8}"], ["52_7"]),
]

MATH_OBJECTS = [
    *pairs(
        "(3, \\frac{\\pi}{2})",
        ["(3, \\pi/2)", "\\left( 3, \\frac{\\pi}{2} \\right)"],
        ["(\\frac{\\pi}{2}, 3)"],
    ),
    *pairs("(1,2)", ["(1, 2)", "(1,2)"], ["(2,1)", "[1,2]", "1,2,3", "(1,2,0)"]),
    *pairs("[0,1)", ["[0, 1)", "\\left[0,1\\right)", "0 \\le x < 1"], ["(0,1]", "[0,1]", "(0,1)"]),
    *pairs("(-\\infty, 3)", ["(-\\infty,3)", "x < 3", "x<3"], ["x \\le 3", "(3,\\infty)"]),
    *pairs("(-\\infty,-1)\\cup(2,\\infty)", ["(-\\infty, -1) \\cup (2, \\infty)"], ["(-1,2)"]),
    *pairs("\\{1,2,3\\}", ["\\{1,2,3\\}", "\\{3,2,1\\}", "1,2,3"], ["\\{1,2\\}", "\\{1,2,4\\}"]),
    *pairs("1,2", ["1, 2", "2, 1", "1 and 2", "x=1, x=2", "x = 1 \\text{ or } x = 2"], ["1", "2", "1,3"]),
    *pairs("\\pm 5", ["\\pm 5", "5, -5", "-5 \\text{ and } 5"], ["5", "-5"]),
    *pairs(
        "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
        ["\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}"],
        ["\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}"],
    ),
    *pairs("x^2+2x+1", ["x^2+2x+1", "(x+1)^2", "1+2x+x^2"], ["x^2+2x", "y^2+2y+1"]),
    *pairs("y=2x+3", ["y = 2x + 3", "2x+3"], ["y=2x-3", "y=3x+2"]),
    *pairs("\\frac{x}{y}", ["x/y", "\\frac{x}{y}"], ["y/x", "xy"]),
    *pairs("3x(x-2)", ["3x(x-2)", "3x^2-6x"], ["3x(x+2)"]),
    *pairs("\\emptyset", ["\\emptyset", "∅", "\\varnothing"], ["0"]),
    *pairs("\\text{no solution}", ["no solution", "\\text{No solution}"], ["0"]),
    *pairs("x=5", ["5", "x=5", "x = 5"], ["x=-5", "6"]),
    *pairs("n \\ge 3", ["n \\geq 3", "n >= 3", "[3,\\infty)"], ["n > 3"]),
]

TEXT = [
    *pairs("\\text{Evelyn}", ["Evelyn", "\\text{Evelyn}", "evelyn"], ["Carla", "Briana"]),
    *pairs("\\text{odd}", ["odd", "The function is odd"], ["even", "neither", "odd or even"]),
    *pairs("Friday", ["Friday", "\\text{Friday}", "friday."], ["Thursday"]),
    *pairs("True", ["True", "true"], ["False"]),
    *pairs("B", ["B", "(B)", "\\text{B}", "\\textbf{(B)}", "The answer is B", "B."], ["A", "A or B", "D"]),
    *pairs("C", ["C", "C)", "Option C", "C) 15 m", "choice (C)"], ["(D)", "15 m"]),
]

AIME = [
    *pairs("204", ["204", "\\boxed{204}", "m+n = 204", "\\textbf{204}"], ["240", "-204", "204.5"]),
    *pairs("073", ["73", "073"], ["730", "37"]),
    *pairs("25", ["025", "m + n = 25"], ["24", "2.5"]),
    *pairs("699", ["699", "The final answer is 699."], ["69", "700"]),
]

OLYMPIAD = [
    *pairs("$\\frac{3}{4}$", ["0.75", "\\frac{3}{4}", "\\frac{6}{8}"], ["4/3"]),
    *pairs("2, 5", ["2,5", "5,2"], ["2", "5"]),
    *pairs("$(2,3),(3,2)$", ["(2,3), (3,2)", "(3,2),(2,3)"], ["(2,3)"]),
    *pairs("$2^{n-1}$", ["2^{n-1}", "\\frac{2^n}{2}"], ["2^n", "2^{n+1}"]),
    *pairs("$n(n+1)/2$", ["\\frac{n(n+1)}{2}", "\\frac{n^2+n}{2}"], ["n(n+1)"]),
    *pairs("4.5e33", ["4.5 \\times 10^{33}", "4.5e33"], ["4.5 \\times 10^{32}"]),
    *pairs("1.6e-7", ["1.6 \\times 10^{-7}", "1.6 \\times 10^{-7} \\text{ m}"], ["1.6e7"]),
    *pairs("\\arcsin{1.3 \\sin{\\theta_w}}", ["\\arcsin(1.3 \\sin \\theta_w)"], ["1.3 \\sin \\theta_w"]),
]

TRAPS = [
    *pairs("\\frac{1}{3}", ["\\frac{1}{3}", "3/9"], ["0.333", "0.3333333", "33.3%", "0.33333333333"]),
    *pairs("\\sqrt{2}", ["\\sqrt{2}", "2^{1/2}"], ["1.41421356", "1.4142135623730951"]),
    *pairs(
        "12345678901234567890", ["12345678901234567890"], ["12345678901234567891", "1.2345678901234567e19"]
    ),
    *pairs("1,1,2", ["1,1,2"], ["1,2", "1,2,2"]),
    *pairs("0.1", ["0.1", "1/10"], ["0.10001", "0.1000000001"]),
    *pairs("3:2", ["3:2"], ["2:3"]),
    *pairs("10:30", ["10:30"], ["10:45"]),
    *pairs("x", ["x"], ["y", "X+1"]),
    *pairs("100", ["100", "10^2"], ["10^3", "1e3"]),
]

ALL = [*GSM8K, *MATH_NUMBERS, *MATH_OBJECTS, *TEXT, *AIME, *OLYMPIAD, *TRAPS]

WORDS = "number words are not read"
CHOICE = "a choice is its letter alone; suites with choices ask for that"
ROUNDED = "math-verify compares to 6 digits where a number is no integer"
DISAGREEMENTS: dict[tuple[str, str], str] = {
    ("5600000", "5.6 million"): WORDS,
    ("7", "seven"): WORDS,
    ("-3", "negative 3"): WORDS,
    ("0", "zero"): WORDS,
    (
        "9\\pi",
        "9π \\text{ square units}",
    ): "a unit is taken off after a digit or a bracket, not after a letter",
    ("\\emptyset", "\\varnothing"): "math-verify does not know \\varnothing",
    ("C", "C)"): CHOICE,
    ("C", "Option C"): CHOICE,
    ("C", "C) 15 m"): CHOICE,
    ("C", "choice (C)"): CHOICE,
    (
        "\\arcsin{1.3 \\sin{\\theta_w}}",
        "\\arcsin(1.3 \\sin \\theta_w)",
    ): "functions of functions are no final value, and the signs differ",
    ("\\frac{1}{3}", "0.3333333"): ROUNDED,
    ("\\frac{1}{3}", "0.33333333333"): ROUNDED,
    ("\\sqrt{2}", "1.41421356"): ROUNDED,
    ("\\sqrt{2}", "1.4142135623730951"): ROUNDED,
    ("0.1", "0.1000000001"): ROUNDED,
    ("1,1,2", "1,2,2"): "lists are compared without order and repetition",
}
"""(reference, answer) of the pairs on which the accuracy reward and the table differ, and why it does."""
