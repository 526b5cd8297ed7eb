"""Questions with choices, as a text with letters whose answer is one letter."""

import hashlib
import random
from collections.abc import Sequence
from string import ascii_uppercase

ASK = "Answer with the letter of the right choice alone."


def choices(question: str, options: Sequence[str], right: int) -> tuple[str, str]:
    """The question with its options as ``A) …``, a line each, and the letter of option ``right``.

    Raises:
        ValueError: there is no such option.
    """
    if not 0 <= right < len(options):
        raise ValueError(f"no option {right} among {len(options)}")
    lines = [f"{ascii_uppercase[i]}) {str(option).strip()}" for i, option in enumerate(options)]
    return "\n".join([str(question).strip(), "", *lines, "", ASK]), ascii_uppercase[right]


def shuffled(question: str, options: Sequence[str], right: int) -> tuple[str, str]:
    """The same in an order that derives from the question alone: equal on every rank and in every start."""
    seed = int.from_bytes(hashlib.sha256(str(question).encode()).digest()[:8], "big")
    order = list(range(len(options)))
    random.Random(seed).shuffle(order)
    return choices(question, [options[i] for i in order], order.index(right))
