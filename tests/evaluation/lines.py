"""Problems with completions that were never sampled."""

from igrpo_mcore.evaluation.answered import Answered
from igrpo_mcore.types import Completion, Group, Problem, Prompt, Score


def group(number: int, right: list[int], truncated: bool = False) -> Group:
    problem = Problem(str(number), f"{number} + 1", str(number + 1))
    return Group(
        Prompt(problem, (1, 2)),
        tuple(
            Completion((5,) * (i + 1), (-0.25,) * (i + 1), f"text {i % 2}", truncated)
            for i in range(len(right))
        ),
        tuple(Score(float(r), {"accuracy": float(r)}) for r in right),
    )


def answered(number: int, right: list[int], truncated: bool = False) -> Answered:
    return Answered.of(group(number, right, truncated))
