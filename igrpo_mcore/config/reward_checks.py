"""Values of ``reward.*`` that cannot work."""

import math
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from igrpo_mcore.config.reward_options import JudgeConfig
from igrpo_mcore.config.schema import RewardConfig
from igrpo_mcore.errors import UserError

LEAST = {
    "limits.memory_gib": 0.25,  # the built-in rewards need half of that
    "limits.open_files": 16,
    "limits.file_mib": 0,
    "limits.processes": 0,
    "limits.calls": 1,
    "judge.temperature": 0,
    "judge.max_tokens": 1,
    "judge.concurrency": 1,
    "judge.retries": 0,
    "judge.backoff_s": 0,
    "judge.prompt_price": 0,
    "judge.completion_price": 0,
}
MOST = {"judge.retries": 20, "judge.concurrency": 4096, "judge.time_limit_s": 3600, "judge.backoff_s": 60}


def check_rewards(reward: RewardConfig) -> None:
    """Raises ``UserError`` naming the field and a value that would do."""
    for section in ("limits", "judge"):
        options: Any = getattr(reward, section)
        for option in fields(options):
            name, value = f"{section}.{option.name}", getattr(options, option.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(
                    f"reward.{name}={value} must be a finite number, for example {option.default}"
                )
            if name in LEAST and value is not None and value < LEAST[name]:
                raise UserError(f"reward.{name}={value} must be at least {LEAST[name]}")
            if name in MOST and value > MOST[name]:
                raise UserError(f"reward.{name}={value} must be at most {MOST[name]}")
    if reward.judge.time_limit_s <= 0:
        raise UserError(f"reward.judge.time_limit_s={reward.judge.time_limit_s} must be above 0")
    for name in reward.limits.environment:
        if not name.replace("_", "a").isalnum():
            raise UserError(f"reward.limits.environment: {name!r} is no name of an environment variable")
    if "judge" in reward.weights:
        _check_judge(reward.judge)


def _check_judge(judge: JudgeConfig) -> None:
    if not judge.model:
        raise UserError("the reward judge needs reward.judge.model, the model's name at reward.judge.url")
    if any(sign in judge.url for sign in "@?#"):
        raise UserError(
            "reward.judge.url must hold no user, password or query, which would be written to config.yaml; "
            "put the key into the environment variable that reward.judge.key_variable names"
        )
    try:
        url = urlsplit(judge.url)
        known = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        known = False
    if not known:
        raise UserError(
            f"reward.judge.url={judge.url} is no address of a server; give one such as https://host/v1"
        )
    if not judge.key_variable.replace("_", "a").isalnum():
        raise UserError(
            "reward.judge.key_variable must be the name of an environment variable, for example "
            "OPENAI_API_KEY, never the key itself"
        )
    if judge.prompt is not None and "{completion}" not in judge.prompt:
        raise UserError("reward.judge.prompt lacks {completion}, the text that is to be judged")
