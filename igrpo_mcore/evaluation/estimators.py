"""pass@k from n samples, exactly."""

from fractions import Fraction
from math import comb

LARGEST_K = 256


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Unbiased estimate of the probability that one of ``k`` completions is right: 1 - C(n - c, k) / C(n, k).

    That is the share of right ones among all subsets of ``k`` of the n = ``samples`` completions of which
    c = ``right`` are right (arXiv 2107.03374, section 2.1). Computed in integers, so without rounding.

    Raises:
        ValueError: not 0 <= right <= samples, or not 1 <= k <= samples.
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"no pass@{k} of {right} right completions among {samples}")
    return float(1 - Fraction(comb(samples - right, k), comb(samples, k)))


def budgets(samples: int) -> list[int]:
    """1, 2, 4, … up to ``samples`` and ``LARGEST_K``."""
    return [2**i for i in range(LARGEST_K.bit_length()) if 2**i <= min(samples, LARGEST_K)]
