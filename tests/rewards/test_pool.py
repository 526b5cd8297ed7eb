"""The pool with rewards that hang, raise, die, or lie; no score is lost and no process stays."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.config.schema import RewardConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.options import options_of
from igrpo_mcore.rewards.pool import RewardPool, default_workers
from igrpo_mcore.types import Completion, Problem, Score

USER = "tests.rewards.user_rewards"
BY_TEXT, LENGTH = f"{USER}:by_text", f"{USER}:length"
PROBLEM = Problem("1", "q", "5")


def completion(text: str) -> Completion:
    return Completion(tuple(range(500)), tuple([-0.5] * 500), text, False)


def score(pool: RewardPool, *texts: str) -> list[Score]:
    return pool.score([PROBLEM] * len(texts), [completion(text) for text in texts])


@pytest.fixture(scope="module")
def pool() -> Iterator[RewardPool]:
    config = RewardConfig(weights={BY_TEXT: 2.0, LENGTH: 0.5}, time_limit_s=2.0, workers=2)
    with RewardPool(config) as pool:
        yield pool


def test_scores_keep_their_order_and_weights(pool: RewardPool) -> None:
    scores = score(pool, *[str(i) for i in range(200)])
    assert [s.parts[BY_TEXT] for s in scores] == list(range(200))
    assert [s.total for s in scores] == [2.0 * i + 0.5 * len(str(i)) for i in range(200)]
    assert all(s.failures == () for s in scores)


@pytest.mark.parametrize(
    "bad",
    ["spin", "compute", "raise why", "exit", "die", "segfault", "nan", "infinite", "text", "none"],
)
def test_a_bad_call_costs_its_own_score_only(pool: RewardPool, bad: str) -> None:
    scores = score(pool, "3", bad, "4", "5")
    assert [s.parts[BY_TEXT] for s in scores] == [3.0, 0.0, 4.0, 5.0]
    assert [s.failures for s in scores] == [(), (BY_TEXT,), (), ()]
    assert [s.parts[LENGTH] for s in scores] == [1, len(bad), 1, 1]
    assert scores[1].total == 0.5 * len(bad)


def test_every_call_bad(pool: RewardPool) -> None:
    scores = score(pool, *["die"] * 3)
    assert [s.failures for s in scores] == [(BY_TEXT,)] * 3


def test_what_a_reward_prints_does_not_disturb(pool: RewardPool) -> None:
    assert score(pool, "print")[0].parts[BY_TEXT] == 1.0


def test_no_completions_no_scores(pool: RewardPool) -> None:
    assert score(pool) == []
    with pytest.raises(ValueError, match="shorter"):
        pool.score([PROBLEM], [])


def submit(pool: RewardPool, texts: dict[str, str]) -> None:
    while not all(worker.loaded for worker in pool._workers.processes):  # one lost by the test before
        pool._workers.advance(0.1)
    for key, text in texts.items():
        pool.submit(key, PROBLEM, completion(text))


def collect(pool: RewardPool, limit_s: float = 120.0) -> dict[str, Score]:
    """By polling alone, as the rollout does between two decoding steps."""
    found: dict[str, Score] = {}
    deadline = time.monotonic() + limit_s
    while pool.pending:
        assert time.monotonic() < deadline
        for key, score in pool.poll():
            assert key not in found
            found[str(key)] = score
        time.sleep(0.001)
    return found


def test_polling_gives_what_score_gives(pool: RewardPool) -> None:
    texts = {f"k{i}": text for i, text in enumerate(["3", "raise why", "4", "die", "5", "nan", *"6789" * 9])}
    submit(pool, texts)
    assert pool.pending == len(texts)
    found = collect(pool)
    assert [found[key] for key in texts] == score(pool, *texts.values())
    assert pool.poll() == [] == pool.wait(0.5)  # nothing is pending: no wait


def test_a_poll_does_not_wait_and_a_wait_ends_with_the_first(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with RewardPool(RewardConfig(weights={BY_TEXT: 1.0}, time_limit_s=300.0, workers=2)) as pool:
        submit(pool, {"second": f"gate {second}", "first": f"gate {first}"})
        assert pool.poll() == pool.wait(0.0) == pool.wait(0.05) == []
        first.touch()
        assert [key for key, _ in pool.wait()] == ["first"]
        assert pool.poll() == []
        second.touch()
        assert set(collect(pool)) == {"second"}


def test_score_leaves_what_was_submitted_before(pool: RewardPool) -> None:
    submit(pool, {"a": "sleep 0.2", "b": "7"})
    assert [s.parts[BY_TEXT] for s in score(pool, "3", "4")] == [3.0, 4.0]
    assert pool.pending == 2
    found = collect(pool)
    assert found["b"].parts[BY_TEXT] == 7.0
    assert set(found) == {"a", "b"}


def test_a_call_over_its_limit_fails_though_nobody_polled(pool: RewardPool) -> None:
    submit(pool, {"over": "sleep 2.2", "hangs": "spin"})
    time.sleep(2.6)  # as long as a decoding step that is held up
    assert {key: s.failures for key, s in collect(pool).items()} == {"over": (BY_TEXT,), "hangs": (BY_TEXT,)}


def test_a_failure_is_logged_once_a_message(pool: RewardPool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        score(pool, "raise twice", "raise twice", "raise another")
        score(pool, "raise twice")
    said = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    assert len(said) == 2
    assert "ValueError: twice" in said[0]
    assert BY_TEXT in said[0]


def test_a_worker_lost_between_calls_is_replaced(pool: RewardPool) -> None:
    (worker, *_) = pool._workers.processes
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    scores = score(pool, *[str(i) for i in range(20)])
    assert [s.parts[BY_TEXT] for s in scores] == list(range(20))
    assert all(s.failures == () for s in scores)


def test_the_built_in_rewards_need_no_heavy_package() -> None:
    heavy = f"{USER}:heavy_modules"
    with RewardPool(RewardConfig(weights={"accuracy": 1.0, "format": 1.0, heavy: 1.0})) as pool:
        (good,) = score(pool, "<think>\n2+3\n</think>\n<answer>\n10/2\n</answer>")
    assert good == Score(2.0, {"accuracy": 1.0, "format": 1.0, heavy: 0.0}, ())


def test_options_reach_the_workers() -> None:
    weights = {"accuracy": 1.0, "format": 1.0}
    text = "2+3\n</think>\n<answer>\n\\boxed{5}\n</answer> 6"
    config = RewardConfig(weights=weights)
    with RewardPool(config, options_of(config, opens_thinking=True)) as pool:
        assert score(pool, text, text[:-2]) == [
            Score(1.0, {"accuracy": 1.0, "format": 0.0}), Score(2.0, {"accuracy": 1.0, "format": 1.0})
        ]  # fmt: skip
    with RewardPool(RewardConfig(weights={"accuracy": 1.0}, accuracy_from=AccuracyFrom.anywhere)) as pool:
        assert [s.total for s in score(pool, "The answer is 5.", "2 + 3")] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acuracy", "did you mean 'accuracy'?"),
        ("tests.rewards.broken_module:f", "no_such_package"),
        (f"{USER}:lenght", "did you mean 'length'?"),
    ],
)
def test_a_reward_that_cannot_be_loaded_is_refused_at_once(name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        RewardPool(RewardConfig(weights={name: 1.0}))
    assert said in str(caught.value)


def test_a_pool_whose_workers_cannot_start_again_still_answers(monkeypatch) -> None:
    with RewardPool(RewardConfig(weights={BY_TEXT: 1.0}, time_limit_s=1.0, workers=1)) as pool:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        scores = score(pool, "3", "die", "4", "5")
        assert [s.parts[BY_TEXT] for s in scores] == [3.0, 0.0, 0.0, 0.0]
        assert [s.failures for s in scores] == [(), (BY_TEXT,), (BY_TEXT,), (BY_TEXT,)]
        assert score(pool, "6")[0].failures == (BY_TEXT,)


@pytest.mark.parametrize(
    ("cores", "ranks", "workers"), [(2, None, 2), (2, "4", 1), (16, "8", 2), (96, "8", 4), (64, None, 4)]
)
def test_default_workers_share_the_cores_among_the_ranks(monkeypatch, cores, ranks, workers) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks or "1")
    assert default_workers() == workers


def wait_until_gone(pids: list[int], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while alive := [pid for pid in pids if _runs(pid)]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_closing_ends_the_workers_and_may_be_repeated() -> None:
    pool = RewardPool(RewardConfig(weights={f"{USER}:pid": 1.0}, workers=2))
    pids = [worker.process.pid for worker in pool._workers.processes]
    pool.close()
    pool.close()
    wait_until_gone(pids)


def test_what_a_hanging_reward_started_ends_with_it(tmp_path: Path) -> None:
    with RewardPool(RewardConfig(weights={BY_TEXT: 1.0}, time_limit_s=1.0, workers=1)) as pool:
        (result,) = score(pool, f"child {tmp_path / 'pids'}")
    assert result.failures == (BY_TEXT,)
    wait_until_gone([int(pid) for pid in (tmp_path / "pids").read_text().split()])


PARENT = """
import sys
from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.config.schema import RewardConfig
from igrpo_mcore.rewards.pool import RewardPool, default_workers
from igrpo_mcore.types import Completion, Problem
pool = RewardPool(RewardConfig(weights={sys.argv[1]: 1.0}, time_limit_s=2.0))
print(pool._workers.processes[0].process.pid, flush=True)
if sys.argv[2]:
    pool.score([Problem("1", "q", "a")], [Completion((), (), sys.argv[2], False)])
if sys.argv[3] == "end":
    sys.exit()
import time
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("text", "end"),
    [("", "end"), ("", "kill"), ("spin", "kill"), ("compute", "kill")],
    ids=["exits", "killed idle", "killed in a call", "killed in a C call"],
)
def test_no_worker_outlives_its_parent(text: str, end: str) -> None:
    command = [sys.executable, "-c", PARENT, BY_TEXT, text, end]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        if end == "kill":
            time.sleep(0.3 if text else 0.0)  # let the call begin
            parent.kill()
        parent.wait(20)
        wait_until_gone([worker])
