"""Which evaluation it is: a digest of everything that its completions and scores derive from."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from igrpo_mcore.config.schema import Config
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.types import Problem

DIGITS = 16


def fingerprint(
    config: Config, weights: Path, suite: str, problems: Sequence[Problem], sampling: Sampling
) -> str:
    """``DIGITS`` hexadecimal digits of weights, problems, prompt, sampling, seed and reward.

    The parallel layout is no part of it: an evaluation may go on with another number of engines, whose
    completions are the same up to rounding. ``weights`` is a folder, known by names, sizes and times.
    """
    reward = asdict(config.reward)
    reward.pop("workers")
    return _digest(
        {
            "weights": identity(weights),
            "dtype": str(config.model.dtype),
            "suite": suite,
            "problems": [(p.id, p.problem, p.answer, p.entry) for p in problems],
            "prompt": [config.data.system_prompt, config.data.chat_template],
            "sampling": asdict(sampling),
            "seed": config.train.seed,
            "reward": reward,
            "batch": config.eval.batch_completions,
            "keep_tokens": config.eval.keep_tokens,
        }
    )


def identity(folder: Path) -> str:
    """A digest of a checkpoint's files by name, size and time of writing; no file is read."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(path, path.stat()) for path in files]
    return _digest([(str(path.relative_to(folder)), s.st_size, s.st_mtime_ns) for path, s in stats])


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:DIGITS]
