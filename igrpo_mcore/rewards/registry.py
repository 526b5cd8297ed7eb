"""Names of rewards, and how a recipe names a function of the user's own."""

import importlib
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion, Problem

Reward = Callable[[Problem, Completion], float]
"""A reward looks at a problem and one completion and gives a finite number, most often 0 to 1."""

REGISTERED = {
    "accuracy": "igrpo_mcore.rewards.accuracy:accuracy_reward",
    "reasoning_gym": "igrpo_mcore.rewards.reasoning_gym:reasoning_gym_reward",
    "format": "igrpo_mcore.rewards.format:format_reward",
    "overlong": "igrpo_mcore.rewards.overlong:overlong_reward",
}
JUDGE = "judge"
"""Registered too, but no function: a server is asked, see ``igrpo_mcore.rewards.judge``."""
_OUT_OF_MEMORY = ("failed to map segment", "annot allocate memory")
"""What the loader and libraries say where a worker's address space is used up."""


def check_name(name: str) -> None:
    """Raise ``UserError`` where ``name`` is neither registered nor of the form ``module:function``.

    Imports nothing, so a recipe can be checked before anything starts.
    """
    if name in REGISTERED or name == JUDGE:
        return
    module, colon, function = name.partition(":")
    if colon and all(part.isidentifier() for part in [*module.split("."), function]):
        return
    near = get_close_matches(name, [*REGISTERED, JUDGE], n=1, cutoff=0.4)
    hint = (
        f"did you mean {near[0]!r}?" if near else f"registered are {', '.join(sorted([*REGISTERED, JUDGE]))}."
    )
    raise UserError(f"Unknown reward {name!r} in reward.weights; give a name or module:function – {hint}")


def load_reward(name: str, options: RewardOptions | None = None) -> Reward:
    """The function behind ``name``; its module is imported in the calling process.

    A registered reward is given ``options`` as a keyword argument; a function of the user's own, named
    as ``module:function``, sees the problem and the completion only.

    Raises ``UserError`` where the module cannot be imported or has no such function.
    """
    check_name(name)
    module_name, _, function_name = REGISTERED.get(name, name).partition(":")
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:  # a user's module may raise anything, SystemExit included
        short = isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)
        mend = "raise reward.limits.memory_gib" if short else "put its folder on PYTHONPATH"
        raise UserError(
            f"Reward {name!r}: importing {module_name} failed ({type(error).__name__}: {error}); mend that "
            f"module, or {mend}."
        ) from error
    reward = getattr(module, function_name, None)
    if not callable(reward):
        functions = [
            key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
        ]
        near = get_close_matches(function_name, functions, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UserError(f"Reward {name!r}: {module_name} has no function {function_name!r}{hint}")
    if name in REGISTERED and options is not None:
        return partial(reward, options=options)
    return reward
