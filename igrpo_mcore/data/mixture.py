"""The problems of each step, drawn from one set or from several by their weights."""

from collections.abc import Callable, Sequence

from igrpo_mcore.config.schema import Curriculum, DataConfig
from igrpo_mcore.data.order import ProblemOrder
from igrpo_mcore.data.problems import load_sets, sets_of
from igrpo_mcore.errors import UserError
from igrpo_mcore.types import Problem


class Mixture:
    """An endless sequence of problems; what stands at a position depends on nothing else, so that a run
    resumes from one integer.

    Each set has its own ``ProblemOrder`` and is gone through as often as needed. It is the turn of the set
    that is furthest behind its share, weight / sum of weights, of the positions so far.
    """

    def __init__(
        self, sets: Sequence[Sequence[Problem]], orders: Sequence[ProblemOrder], weights: Sequence[float]
    ) -> None:
        self._sets, self._orders = sets, orders
        self._shares = [weight / sum(weights) for weight in weights]
        self._position, self._drawn = 0, [0] * len(sets)

    @property
    def problems(self) -> list[Problem]:
        """Every problem, set by set."""
        return [problem for problems in self._sets for problem in problems]

    def take(self, start: int, count: int) -> list[Problem]:
        """The ``count`` problems from position ``start`` (from 0) on."""
        if start < self._position:
            self._position, self._drawn = 0, [0] * len(self._sets)
        while self._position < start:
            self._turn()
        return [self._next() for _ in range(count)]

    def _turn(self) -> tuple[int, int]:
        """The set whose turn it is, and how many of its problems were drawn before."""
        self._position += 1
        behind = [share * self._position - n for share, n in zip(self._shares, self._drawn, strict=True)]
        chosen = max(range(len(behind)), key=behind.__getitem__)
        self._drawn[chosen] += 1
        return chosen, self._drawn[chosen] - 1

    def _next(self) -> Problem:
        chosen, before = self._turn()
        (index,) = self._orders[chosen].take(before, 1)
        return self._sets[chosen][index]


def training_problems(config: DataConfig, seed: int, fits: Callable[[Problem], bool]) -> Mixture:
    """What ``data`` says to train on, in its order.

    ``fits`` says whether a problem's prompt is within ``rollout.max_prompt_tokens``; it is asked only with
    ``data.drop_long_prompts``.

    Raises:
        UserError: as ``load_sets``, and for a set of which no prompt fits.
    """
    sets = [fitting(problems, config, fits) for problems in load_sets(config)]
    orders = []
    for number, problems in enumerate(sets):
        ease = [problem.pass_rate or 0.0 for problem in problems]
        by_ease = ease if config.curriculum == Curriculum.easy_to_hard else None
        own_seed = f"{seed}/set {number}" if number else seed
        orders.append(ProblemOrder(len(problems), own_seed, config.shuffle, by_ease))
    return Mixture(sets, orders, [of_set.weight for of_set in sets_of(config)])


def fitting(
    problems: Sequence[Problem], config: DataConfig, fits: Callable[[Problem], bool]
) -> Sequence[Problem]:
    """Those whose prompt fits where ``data.drop_long_prompts`` asks for it, else all.

    Raises:
        UserError: none is left.
    """
    if not config.drop_long_prompts:
        return problems
    found = [problem for problem in problems if fits(problem)]
    if not found:
        raise UserError(
            f"none of the {len(problems)} prompts fits rollout.max_prompt_tokens and data.drop_long_prompts "
            "leaves them all out; raise rollout.max_prompt_tokens"
        )
    return found
