"""Answers as bombs: each a zero in bounded time and memory; the reader never raises, restating never pays."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.config.schema import RewardConfig
from igrpo_mcore.rewards.accuracy import accuracy_reward, final_answer_of, same_answer
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.rewards.pool import RewardPool
from igrpo_mcore.types import Completion, Problem, Score
from tests.rewards.bombs import BOMBS

RAISES, PEAK = "tests.rewards.hostile_rewards:accuracy_raising", "tests.rewards.hostile_rewards:peak_mib"
WRAPPINGS = {
    AccuracyFrom.answer_tag: "<think>a</think><answer>{}</answer>",
    AccuracyFrom.boxed: "So it is \\boxed{{{}}}",
    AccuracyFrom.anywhere: "{}",
}
CPU_LIMIT_S = 15
PROBLEM = Problem("1", "What is 2 + 3?", "5")


@pytest.fixture(scope="module", params=list(AccuracyFrom))
def scored(request: pytest.FixtureRequest) -> dict[str, Score]:
    """All bombs in one place, by one worker, honest answers among them."""
    wrap = WRAPPINGS[request.param].format
    texts = {name: wrap(text) for name, text in BOMBS.items()}
    texts |= {"honest": wrap("5"), "honest too": wrap("The answer is 5.")}
    weights = {"accuracy": 1.0, PEAK: 0.0} | ({RAISES: 0.0} if request.param is AccuracyFrom.anywhere else {})
    config = RewardConfig(weights=weights, accuracy_from=request.param, time_limit_s=120.0, workers=1)
    with RewardPool(config) as pool:
        scores = pool.score([PROBLEM] * len(texts), [Completion((), (), t, False) for t in texts.values()])
    return dict(zip(texts, scores, strict=True))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_a_zero(scored: dict[str, Score], name: str):
    assert scored[name].total == 0.0
    assert scored[name].failures == ()  # refused by the reader itself, long before the time limit
    assert scored[name].parts.get(RAISES, 0.0) == 0.0


def test_honest_answers_among_them_score_and_memory_stays_small(scored: dict[str, Score]):
    assert scored["honest"].total == scored["honest too"].total == 1.0
    assert max(score.parts[PEAK] for score in scored.values()) < 512  # MiB


class OverError(BaseException):
    """Of a kind that no library takes for one of its own errors."""


@contextmanager
def cpu_limit() -> Iterator[None]:
    """Seconds of this process's own work, whatever else the machine is doing."""

    def over(*_: object) -> None:
        raise OverError(f"not read within {CPU_LIMIT_S} CPU seconds")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def scores(text: str, problem: Problem = PROBLEM, options: RewardOptions | None = None) -> float:
    with cpu_limit():
        return accuracy_reward(
            problem, Completion((), (), text, False), options=options or RewardOptions(AccuracyFrom.anywhere)
        )


@pytest.mark.parametrize("name", [name for name, text in BOMBS.items() if text])
def test_a_bomb_as_the_reference_pays_nothing_else(name: str):
    reference = Problem("1", "What is 2 + 3?", BOMBS[name])
    for text in ("\\sqrt{2}+1", "x+1", "17"):
        assert scores(f"<answer>{text}</answer>", reference, RewardOptions()) == 0.0


FRAGMENTS = [
    *"0123456789", *"xyabei_^+-*/=<>,;:.!?%|&$()[]{}`", *"×√π²½−≈∅５", "\u202e", "\u0301", " ", "\n", "$$",
    "**", "12", "1.5", ".5", "1e9", "1e999", "pi", "is", " and ", " or ", "the answer is ", "not ", "about ",
    "#### ", "<answer>", "</answer>", "<think>", "</think>",
    r"\frac", r"\frac{1}{2}", r"\sqrt", r"\sqrt[3]", r"\cdot", r"\times", r"\pm", r"\le", r"\cup",
    r"\infty", r"\pi", r"\left(", r"\right)", r"\{", r"\}", r"\\", r"\text{", r"\text{ cm}", r"\boxed{",
    r"\begin{pmatrix}", r"\end{pmatrix}", r"\log_", r"\sin", r"\ln", r"\exp", r"\circ", r"\in", r"\mathbb{R}",
]  # fmt: skip
SEARCH = settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join)
places = st.sampled_from(list(AccuracyFrom)).map(RewardOptions)
references = st.sampled_from(
    ["5", r"\frac{1}{2}", r"\{1,2\}", "x+1", "(1,2)", "x<5", "Friday", r"\sqrt{2}+1", "50\\%"]
)


@SEARCH
@given(text=texts, options=places, reference=references)
def test_reading_never_raises_and_ends(text: str, options: RewardOptions, reference: str):
    wrapped = WRAPPINGS[options.accuracy_from].format(text)
    assert scores(wrapped, Problem("1", "q", reference), options) in (0.0, 1.0)
    with cpu_limit():
        final_answer_of(text, options)
        same_answer(wrapped, wrapped, options)


@SEARCH
@given(reference=texts, text=texts)
def test_a_reference_of_any_kind_never_raises(reference: str, text: str):
    assert scores(text, Problem("1", "q", reference)) in (0.0, 1.0)


@SEARCH
@given(text=st.text(max_size=300), options=places)
def test_any_unicode_at_all(text: str, options: RewardOptions):
    assert scores(WRAPPINGS[options.accuracy_from].format(text), PROBLEM, options) in (0.0, 1.0)


def pieces(a: int, b: int) -> st.SearchStrategy[str]:
    """What can be written with the problem's two numbers alone."""
    numbers = [
        str(a),
        str(b),
        rf"\frac{{{a}}}{{{b}}}",
        rf"{a}^{{{b}}}",
        rf"\sqrt{{{a}}}",
        rf"\sqrt[{b}]{{{a}}}",
    ]
    signs = [
        "+",
        "-",
        "*",
        "/",
        "^",
        "=",
        "(",
        ")",
        r"\cdot",
        r"\times",
        "×",
        ",",
        "?",
        "$",
        "is",
        r"\text{ or }",
    ]
    return st.lists(st.sampled_from(numbers + signs), min_size=1, max_size=9).map(" ".join)


@SEARCH
@given(data=st.data(), a=st.integers(2, 99), b=st.integers(2, 99), sign=st.sampled_from("+-*"))
def test_restating_never_scores(data: st.DataObject, a: int, b: int, sign: str):
    answer = {"+": a + b, "-": a - b, "*": a * b}[sign]
    text = data.draw(pieces(a, b))
    if answer in (a, b, -a, -b):
        return
    problem = Problem("1", f"What is {a} {sign} {b}?", str(answer))
    for options in map(RewardOptions, AccuracyFrom):
        wrapped = WRAPPINGS[options.accuracy_from]
        assert scores(wrapped.format(text), problem, options) == 0.0, text
        assert scores(wrapped.format(f"{a} {sign} {b} = {answer}"), problem, options) == 1.0


def test_this_process_stayed_small_too():
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 << 20  # KiB
