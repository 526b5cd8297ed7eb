"""The simulated engine against what can be counted by hand, and its books at the end."""

import random

import pytest

from igrpo_mcore.planning.drawn import DrawnCompletions, even_lengths, log_normal_lengths
from igrpo_mcore.planning.simulated_engine import BLOCK_TOKENS, EngineSpeed, SimulatedEngine
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.types import SampleKey

SAMPLING = Sampling(1, 1.0, 4096)


def speed(room=10**6, most=256, step_tokens=8192, besides=0):
    """A step is a second and a millisecond each token that it reads; a prefilled token is 10 ms."""
    return EngineSpeed(
        room, besides, most, step_tokens, lambda n, read: 1 + 0.001 * read, lambda tokens, _: 0.01 * tokens
    )


def engine_of(lengths, **options) -> SimulatedEngine:
    """Sample i has length ``lengths[i]``; the seed is i."""
    return SimulatedEngine(speed(**options), lambda prompt, seed, limit: (min(limit, lengths[seed]), ""))


def key(index) -> SampleKey:
    return SampleKey(0, "drafts", 0, index)


def run(engine):
    ended = {}
    while engine.busy:
        for sample, completion in engine.step():
            ended[sample] = engine.steps, completion
    return ended


def test_one_sequence_by_hand():
    engine = engine_of([3])
    engine.submit(key(0), range(20), SAMPLING, 0)
    ended = run(engine)
    # one pass fills 20 tokens, three decode behind 20, 21 and 22 tokens
    assert engine.clock == pytest.approx(0.2 + 3 + 0.001 * (20 + 21 + 22))
    steps, completion = ended[key(0)]
    assert (steps, len(completion.token_ids), len(completion.logprobs)) == (4, 3, 3)
    assert engine.sampled == 3


def test_a_prompt_is_filled_once_for_all_its_samples():
    engine = engine_of([5] * 4)
    for i in range(4):
        engine.submit(key(i), range(32), SAMPLING, i)
    engine.step()
    assert engine.clock == pytest.approx(0.01 * (32 + 3))  # two whole blocks, then a token of each other one


def test_prefill_goes_in_passes_and_others_decode_beside_it():
    engine = engine_of([50, 2], step_tokens=100)
    engine.submit(key(0), [1] * 16, SAMPLING, 0)
    engine.step()
    engine.submit(key(1), [2] * 250, SAMPLING, 1)
    ended = run(engine)
    # passes of 99, 99 and 52 tokens after the first, then two of decoding
    assert ended[key(1)][0] == 1 + 3 + 2
    assert ended[key(0)][0] == 1 + 50


def test_no_more_run_at_once_than_may():
    engine = engine_of([10] * 6, most=2)
    for i in range(6):
        engine.submit(key(i), [i] * 16, SAMPLING, i)
    run(engine)
    assert engine.steps == 3 * 11
    assert engine.preempted == 0


def test_a_full_cache_preempts_the_last_and_loses_no_token():
    lengths = [200] * 8
    engine = engine_of(lengths, room=8 * 64)
    for i in range(8):
        engine.submit(key(i), [i] * 16, SAMPLING, i)
    ended = run(engine)
    assert engine.preempted > 0
    assert sorted(ended) == [key(i) for i in range(8)]
    assert ended[key(0)][0] == 201  # the first is never preempted
    assert engine.sampled == sum(lengths)


def test_aborted_samples_are_gone_wherever_they_are():
    engine = engine_of([30] * 4, most=2, step_tokens=64)
    engine.submit(key(0), [0] * 16, SAMPLING, 0)
    engine.step()
    engine.submit(key(1), [1] * 300, SAMPLING, 1)
    engine.submit(key(2), [2] * 16, SAMPLING, 2)
    engine.submit(key(3), [3] * 16, SAMPLING, 3)
    engine.step()
    engine.abort([key(0), key(1), key(2)])  # decoding, being filled, waiting
    assert set(run(engine)) == {key(3)}


@pytest.mark.parametrize("besides", [0, 100])
def test_random_calls_leave_an_empty_cache(besides):
    """Submissions, aborts and preemptions in any order: what ends, and every block is free again."""
    for seed in range(20):
        rng = random.Random(seed)
        lengths = [rng.randrange(1, 300) for _ in range(60)]
        room = 200 * BLOCK_TOKENS
        engine = engine_of(lengths, room=room, most=rng.choice([4, 64]), step_tokens=128, besides=besides)
        left, aborted, ended = list(range(60)), set(), {}
        while left or engine.busy:
            for _ in range(min(len(left), rng.randrange(4))):
                i = left.pop()
                engine.submit(key(i), [i % 7] * (10 + 20 * (i % 7)), SAMPLING, i)
                if rng.random() < 0.2:
                    aborted.add(i)
            if rng.random() < 0.05:
                gone = {i for i in aborted if i not in left} - {k.sample for k in ended}
                engine.abort([key(i) for i in gone])
                aborted -= gone
                ended |= {key(i): None for i in gone}
            if engine.busy:
                for sample, completion in engine.step():
                    assert sample not in ended
                    assert len(completion.token_ids) == lengths[sample.sample]
                    ended[sample] = completion
            assert 0 <= engine.free_blocks <= 200
        assert len(ended) == 60
        assert engine.free_blocks == 200


@pytest.mark.parametrize("quantile", [even_lengths, log_normal_lengths])
def test_drawn_lengths_have_their_mean_and_depend_on_the_problem(quantile):
    draw = DrawnCompletions(quantile(1500, 4096))
    by_problem = [[draw([p], 1000 * p + s, 4096)[0] for s in range(16)] for p in range(500)]
    flat = [n for group in by_problem for n in group]
    assert sum(flat) / len(flat) == pytest.approx(1500, rel=0.05)
    assert min(flat) >= 1
    assert max(flat) <= 4096
    means = [sum(group) / 16 for group in by_problem]
    spread = (sum((m - 1500) ** 2 for m in means) / sum((n - 1500) ** 2 for n in flat) * 16) ** 0.5
    assert 0.45 < spread < 0.7  # sqrt(0.32) = 0.57 of the spread is the problem's, a little more with noise
