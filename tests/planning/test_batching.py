"""Continuous batching as planned: who runs, what the cache holds, what follows a completion."""

import pytest

from igrpo_mcore.planning.batching import Reaction, Request, batch
from igrpo_mcore.planning.decoding import completion_lengths, mean_within, outcomes

LENGTHS = completion_lengths(64, 1000, 4096)


def requests(lengths, prompt=100, stage=0, group_size=1):
    return [Request((stage, i // group_size), prompt, length) for i, length in enumerate(lengths)]


def test_an_engine_with_room_for_all_ends_with_its_longest_sequence():
    found = batch(requests(LENGTHS), 10**9, 256)
    assert found.steps == max(LENGTHS)
    assert found.recomputed == 0
    assert found.sampled == pytest.approx(sum(LENGTHS))


def test_an_engine_without_room_makes_every_token_and_never_holds_more():
    room = 20_000
    found = batch(requests(LENGTHS), room, 256)
    assert found.sampled == pytest.approx(sum(LENGTHS))
    assert found.tokens <= room
    assert found.recomputed > 0
    assert found.steps > max(LENGTHS)


def test_samples_of_one_prompt_share_its_cache():
    """4 prompts of 4,000 tokens with 16 samples in 60,000 tokens, which hold 14 samples with prompts of their
    own."""
    shared = batch(requests(LENGTHS, 4000, group_size=16), 60_000, 256)
    alone = batch(requests(LENGTHS, 4000), 60_000, 256)
    assert shared.steps == max(LENGTHS)
    assert shared.sampled == pytest.approx(sum(LENGTHS))
    assert alone.steps > 1.5 * max(LENGTHS)
    assert alone.sequences < 14.5


def test_what_follows_a_completion_runs_beside_the_rest():
    """Two prompts of two drafts; each goes on when its drafts have ended: 30 + 40 and 50 + 10 steps."""
    drafts = {0: [20, 30], 1: [10, 50]}
    following = {0: 40, 1: 10}
    left = {0: 2, 1: 2}

    def react(request):
        stage, prompt = request.group
        if stage:
            return Reaction()
        left[prompt] -= 1
        return Reaction() if left[prompt] else Reaction([Request((1, prompt), 5, following[prompt])])

    first = [Request((0, p), 5, n) for p, lengths in drafts.items() for n in lengths]
    found = batch(first, 10**6, 256, react=react)
    assert found.steps == max(30 + 40, 50 + 10)
    assert found.sampled == pytest.approx(20 + 30 + 10 + 50 + 40 + 10)
    assert sum(found.shares) == pytest.approx(1)
    # 30 steps of drafts alone, 20 of a draft and a refinement, 20 of refinements
    assert found.shares == pytest.approx(((30 + 10) / 70, (10 + 20) / 70))


def test_an_aborted_group_neither_runs_nor_waits():
    """One place: the first of group 0 ends after 10 steps and takes its waiting fellow with it."""
    found = batch(
        [Request((0, 0), 5, 10), Request((0, 0), 5, 99), Request((0, 1), 5, 7)],
        10**6,
        1,
        react=lambda request: Reaction(abort=(request.group,)),
    )
    assert found.steps == 10 + 7
    both = batch(requests([10, 99], group_size=2), 10**6, 2, react=lambda r: Reaction(abort=(r.group,)))
    assert both.steps == 10
    assert both.sampled == 20


@pytest.mark.parametrize("budget", [500, 2000, 4096])
def test_lengths_within_a_budget_have_the_mean_that_is_planned(budget):
    cut = [min(budget, n) for n in completion_lengths(4000, 1000, 4096)]
    assert mean_within(1000, 4096, budget) == pytest.approx(sum(cut) / len(cut), rel=0.02)


def test_outcomes_are_the_lengths_of_a_stage_whatever_the_draw():
    draws = [outcomes(16, 4, 1000, 4096, 4096, draw) for draw in range(3)]
    for found in draws:
        assert sorted(n for prompt in found for n, _ in prompt) == sorted(LENGTHS)
    assert len(set(draws)) == 3


def test_a_hard_problem_is_long_and_seldom_right():
    """Over 200 problems: the longest half of the prompts is right less often; the budget makes none right."""
    found = outcomes(200, 8, 2048, 4096, 3000)
    by_length = sorted(found, key=lambda prompt: sum(n for n, _ in prompt))
    short, long = (
        sum(right for prompt in half for _, right in prompt) for half in (by_length[:100], by_length[100:])
    )
    assert long < 0.6 * short
    assert not any(right for prompt in found for n, right in prompt if n >= 3000)
