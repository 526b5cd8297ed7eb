"""What a worker may take, see and leave behind: hostile calls lose their own score and nothing else."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from igrpo_mcore.config.reward_options import RewardLimits
from igrpo_mcore.config.schema import RewardConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.environment import worker_environment
from igrpo_mcore.rewards.pool import RewardPool
from igrpo_mcore.rewards.process_marks import marked
from igrpo_mcore.types import Completion, Problem, Score

HOSTILE = "tests.rewards.hostile_rewards"
CALL, PID, PEAK = f"{HOSTILE}:hostile", f"{HOSTILE}:pid", f"{HOSTILE}:peak_mib"
PROBLEM = Problem("1", "q", "5")
ROOT = Path(__file__).parents[2]


def score(pool: RewardPool, *texts: str) -> list[Score]:
    return pool.score([PROBLEM] * len(texts), [Completion((), (), text, False) for text in texts])


def pool_of(*names: str, workers: int = 1, time_limit_s: float = 20.0, **limits) -> RewardPool:
    settings = RewardLimits(**({"memory_gib": 0.5, "file_mib": 2, "open_files": 64, "processes": 8} | limits))
    return RewardPool(
        RewardConfig(dict.fromkeys(names, 1.0), time_limit_s=time_limit_s, workers=workers, limits=settings)
    )


def wait_until_gone(pids: list[int], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while alive := [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != "zombie"]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.05)


def test_hostile_calls_cost_their_own_score_only(tmp_path: Path):
    written, by_child, touched, daemon = (str(tmp_path / name) for name in "abcd")
    bad = [
        "allocate 4096", "power", "string", "recurse", "spawn 20", "hold 100", f"write {written}", "open",
        "garbage", f"pickle {touched}", "infinity", "nested", "huge", "integer", "bad-error", "bad-float",
        "interrupt", "generator-exit", "close",
    ]  # fmt: skip
    with pool_of(CALL, PEAK, workers=2) as pool:
        mark = pool._workers._mark  # type: ignore[union-attr]
        scores = score(
            pool, *[text for text in bad for text in (text, "value 0.5")], f"child-write {by_child}"
        )
        assert score(pool, f"daemon {daemon}")[0].failures == ()
        left = int(Path(daemon).read_text())
        assert psutil.pid_exists(left)
        assert len(marked(mark)) >= 3
    for text, hostile, other in zip(bad, scores[::2], scores[1::2], strict=False):
        assert (text, hostile.parts[CALL], hostile.failures) == (text, 0.0, (CALL,))
        assert (text, other.parts[CALL], other.failures) == (text, 0.5, ())
    assert scores[-1].parts[CALL] == 1.0  # the child was refused the rest of its file
    assert max(s.parts[PEAK] for s in scores) < 512
    assert Path(written).stat().st_size <= 2 << 20
    assert Path(by_child).stat().st_size <= 2 << 20
    assert not Path(touched).exists()
    wait_until_gone([left])
    assert marked(mark) == []


def test_calls_that_never_end(tmp_path: Path):
    with pool_of(CALL, workers=2, time_limit_s=1.5) as pool:
        scores = score(pool, "stop", "value 0.5", "ignore", "value 0.25")
    assert [s.total for s in scores] == [0.0, 0.5, 0.0, 0.25]
    assert [s.failures for s in scores] == [(CALL,), (), (CALL,), ()]


def test_a_worker_that_leaks_is_replaced_before_it_fails():
    with pool_of(CALL, PID, PEAK) as pool:
        scores = score(pool, *["leak 40"] * 16)
    assert all(s.failures == () for s in scores)
    assert len({s.parts[PID] for s in scores}) >= 3
    assert max(s.parts[PEAK] for s in scores) < 400


def test_a_worker_is_replaced_after_so_many_calls():
    with pool_of(CALL, PID, calls=4) as pool:
        scores = score(pool, *[f"value {i}" for i in range(10)])
    assert [s.parts[CALL] for s in scores] == list(range(10))
    assert len({s.parts[PID] for s in scores}) == 3


SECRETS = {
    "OPENAI_API_KEY": "sk-1", "HF_TOKEN": "hf_1", "HUGGING_FACE_HUB_TOKEN": "hf_2", "WANDB_API_KEY": "w",
    "AWS_SECRET_ACCESS_KEY": "a", "AWS_SESSION_TOKEN": "b", "GITHUB_TOKEN": "g", "IGRPO_JUDGE_KEY": "j",
    "MLFLOW_TRACKING_PASSWORD": "m", "SLURM_JWT": "s", "DATABASE_URL": "d", "https_proxy": "http://u:p@host",
    "SSH_AUTH_SOCK": "/s", "KUBECONFIG": "/k", "GOOGLE_APPLICATION_CREDENTIALS": "/c",
}  # fmt: skip


def test_workers_see_no_credentials_and_what_they_are_given(monkeypatch: pytest.MonkeyPatch):
    visible = f"{HOSTILE}:visible"
    for name, value in (SECRETS | {"MY_OPTION": "1"}).items():
        monkeypatch.setenv(name, value)
    with pool_of(visible) as pool:
        assert score(pool, " ".join([*SECRETS, "MY_OPTION"]))[0].total == 0.0
        assert score(pool, "PATH PYTHONPATH OMP_NUM_THREADS")[0].total == 3.0
    with pool_of(visible, environment=["MY_OPTION", "NOT_SET"]) as pool:
        assert score(pool, " ".join([*SECRETS, "MY_OPTION"]))[0].total == 1.0
    passed = worker_environment()
    assert not [name for name in passed if any(sign in name for sign in ("KEY", "TOKEN", "SECRET", "PASS"))]


PARENT = """
import sys, time
from tests.rewards.test_containment import *
pool = pool_of(CALL, time_limit_s=30.0)
score(pool, f"daemon {sys.argv[1]}")
print(pool._workers.processes[0].process.pid, pool._workers._undertaker.pid, flush=True)
pool.submit(0, PROBLEM, Completion((), (), sys.argv[2], False))
time.sleep(600)
"""


@pytest.mark.parametrize("during", ["value 1", "ignore", "stop"])
def test_nothing_outlives_an_owner_that_was_killed(tmp_path: Path, during: str):
    command = [sys.executable, "-c", PARENT, str(tmp_path / "daemon"), during]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as parent:
        assert parent.stdout is not None
        pids = [*map(int, parent.stdout.readline().split()), int((tmp_path / "daemon").read_text())]
        time.sleep(0.3)  # let the call begin
        parent.send_signal(signal.SIGKILL)
        parent.wait(20)
        wait_until_gone(pids)


def run(code: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, **kwargs)


def test_cpu_time_of_a_call_is_bounded():
    code = "from igrpo_mcore.rewards.containment import allow_cpu_seconds as f; f(0.5)\nwhile True: pass"
    assert run(code).returncode == -signal.SIGXCPU


SPEAK = """
from igrpo_mcore.config.reward_options import RewardLimits
from igrpo_mcore.rewards.containment import set_limits, speak_without_failing
set_limits(RewardLimits(file_mib=1))
speak_without_failing()
print("heard" if {small} else "x" * (3 << 20))
for _ in range(3): print("x" * (1 << 20))
"""


@pytest.mark.parametrize("size", [0, 4 << 20])
def test_printing_neither_fails_for_a_large_log_nor_fills_it(tmp_path: Path, size: int):
    log = tmp_path / "log"
    log.write_bytes(b"-" * size)
    with log.open("ab") as file:
        assert run(SPEAK.format(small=size == 0), stderr=file).returncode == 0
    assert log.stat().st_size <= max(size, 1 << 20)
    assert b"heard" in log.read_bytes() or size


def test_a_reward_too_large_for_its_memory_is_refused_with_the_option():
    with pytest.raises(UserError, match=r"reward\.limits\.memory_gib"):
        pool_of("tests.rewards.large_module:f", memory_gib=0.25)
