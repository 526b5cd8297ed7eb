"""A whole run whose judge is slow, wrong, failing, malformed, and at last gone: it goes on, and counts."""

import itertools
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.judge_server import Reply, chat, judge_server
from tests.support.ranks import igrpo
from tests.support.small_recipe import small_recipe

pytestmark = pytest.mark.slow

STEPS, A_STEP = 4, 4 * 8
"""Prompts x completions of a step."""
TIME_LIMIT_S = 0.5


class Judge:
    """Replies by their turn, every kind again and again; ``gone`` hangs up on everybody."""

    def __init__(self) -> None:
        self.turns = itertools.cycle(["right", "slow", "wrong", "failing", "malformed", "too much", "right"])
        self.sent: Counter[str] = Counter()
        self.gone = False

    def __call__(self, request: dict[str, Any]) -> Reply | None:
        turn = "gone" if self.gone else next(self.turns)
        self.sent[turn] += 1
        if turn == "slow":
            time.sleep(2 * TIME_LIMIT_S)
        return {
            "right": chat("Good.\n<score>0.75</score>"),
            "slow": chat("Late.\n<score>1</score>"),
            "wrong": chat("<score>0.0</score>"),
            "failing": (503, {}, b"busy"),
            "malformed": chat("<score>0.75</score> or so"),
            "too much": chat("<score>9000</score>"),
            "gone": None,
        }[turn]


@pytest.fixture
def recipe(tmp_path) -> Path:
    return small_recipe(
        tmp_path,
        "rollout: {num_drafts: 4, num_refinements: 4, max_prompt_tokens: 64, max_completion_tokens: 16}\n"
        f"optimizer: {{lr: 1.0e-3}}\ntrain: {{steps: {STEPS}, prompts_per_step: 4}}\n"
        "reward: {weights: {judge: 1.0, accuracy: 0.0, format: 0.0}}\n"
        f"run: {{dir: {tmp_path}/runs, name: judged, tensorboard: false}}\ncheckpoint: {{every: 0}}\n",
    )


def judged_run(recipe: Path, judge: Judge) -> tuple[list[dict[str, Any]], int]:
    """The metrics of a run that ended well, and the requests that the judge got."""
    judging = f"{{model: m, retries: 1, backoff_s: 0.01, time_limit_s: {TIME_LIMIT_S}, check: false}}"
    with judge_server(judge) as server:
        options = (f"reward.judge={judging}", f"reward.judge.url={server.url}")
        status, output = igrpo("train", recipe, *options)
        assert status == 0, output[-4000:]
    lines = (recipe.parent / "runs/judged/metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], len(server.requests)


def test_the_run_goes_on_and_every_request_is_counted(recipe):
    judge = Judge()
    steps, requests = judged_run(recipe, judge)
    assert len(steps) == STEPS
    assert sum(step["judge/calls"] for step in steps) == requests == sum(judge.sent.values())
    assert all(
        judge.sent[kind] > 0 for kind in ("right", "slow", "wrong", "failing", "malformed", "too much")
    )
    for step in steps:
        judged = A_STEP - step["judge/failures"]
        assert 0 < judged <= A_STEP  # most get their verdict in the second try
        assert step["rewards/failures"] == step["judge/failures"]
    # what is not failed was scored 0.75 or 0, and both were trained on
    assert any(step["groups/zero_std_share"] < 1 and step["policy/grad_norm"] > 0 for step in steps)


def test_a_judge_that_is_gone_costs_the_rewards_and_not_the_run(recipe):
    judge = Judge()
    judge.gone = True
    steps, requests = judged_run(recipe, judge)
    assert [step["judge/failures"] for step in steps] == [A_STEP] * STEPS
    assert [step["groups/zero_std_share"] for step in steps] == [1.0] * STEPS
    calls = sum(step["judge/calls"] for step in steps)
    assert calls == requests < STEPS * A_STEP / 2  # it is left alone after some
