"""Data order: a permutation an epoch, the same from any position."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igrpo_mcore.data.order import ProblemOrder


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 12), seed=st.integers(0, 5), shuffle=st.booleans(), cut=st.integers(0, 40))
def test_stopping_anywhere_and_going_on_changes_nothing(
    count: int, seed: int, shuffle: bool, cut: int
) -> None:
    whole = ProblemOrder(count, seed, shuffle).take(0, 40)
    assert (
        ProblemOrder(count, seed, shuffle).take(0, cut)[:40]
        + ProblemOrder(count, seed, shuffle).take(cut, 40 - cut)
        == whole
    )
    for epoch in range(40 // count):
        assert sorted(whole[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_differ() -> None:
    indices = ProblemOrder(50, seed=0, shuffle=True).take(0, 100)
    assert indices[:50] != indices[50:]
    assert indices[:50] != list(range(50))
    assert indices != ProblemOrder(50, seed=1, shuffle=True).take(0, 100)


def test_a_position_can_go_back() -> None:
    order = ProblemOrder(7, seed=3, shuffle=True)
    first = order.take(0, 20)
    assert order.take(5, 4) == first[5:9]


def test_without_shuffling_it_is_file_order() -> None:
    assert ProblemOrder(3, seed=9, shuffle=False).take(2, 5) == [2, 0, 1, 2, 0]


def test_the_order_is_the_same_in_every_version() -> None:
    """A golden value: a resumed run must see the data that it would have seen."""
    assert ProblemOrder(8, seed=0, shuffle=True).take(0, 8) == [0, 2, 1, 4, 6, 7, 3, 5]


def test_an_empty_order_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ProblemOrder(0, 0, True)
