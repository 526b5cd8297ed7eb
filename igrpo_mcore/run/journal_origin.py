"""What the samples of a run depend on, so that a journal is read only by the run that it belongs to."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from igrpo_mcore.config.schema import Config
from igrpo_mcore.types import Problem

SECTIONS = ("model", "data", "rollout", "reward", "objective", "optimizer", "train")
"""Of the configuration: the samples of a later step depend on the updates before it as well."""
NO_MATTER = {
    "model.recompute",
    "model.offload_optimizer",
    "rollout.tp",
    "rollout.max_concurrent_sequences",
    "rollout.memory_fraction",
    "rollout.kv_cache_bytes",
    "rollout.push_bucket_bytes",
    "rollout.enforce_eager",
    "reward.workers",
    "reward.limits.memory_gib",
    "reward.limits.open_files",
    "reward.limits.file_mib",
    "reward.limits.processes",
    "reward.limits.calls",
    "reward.judge.concurrency",
    "reward.judge.time_limit_s",
    "reward.judge.retries",
    "reward.judge.backoff_s",
    "reward.judge.cache",
    "reward.judge.key_variable",
    "reward.judge.prompt_price",
    "reward.judge.completion_price",
    "reward.judge.check",
    "train.micro_batch_tokens",
}
"""Options that move a sample by rounding at most, as another layout does, or that a score does not depend on
unless it fails. A new option counts unless it is
named here."""


def origin_of(config: Config, problems: Sequence[Problem]) -> dict[str, str]:
    """By name, what a completion's tokens and score follow from: options, the problems, the model's files.

    The model's weights are told by names and sizes of its files; the gate compares the log-probs anyway.
    """
    found: dict[str, str] = {}
    for section in SECTIONS:
        _flatten(section, asdict(getattr(config, section)), found)
    digest = hashlib.blake2b(digest_size=16)
    for problem in problems:
        digest.update(repr((problem.problem, problem.answer, problem.entry)).encode(errors="replace"))
    found["problems"] = f"{len(problems)} of digest {digest.hexdigest()}"
    folder = Path(config.model.path)
    if folder.is_dir():
        sizes = sorted((file.name, file.stat().st_size) for file in folder.iterdir() if file.is_file())
        found["model files"] = hashlib.blake2b(repr(sizes).encode(), digest_size=16).hexdigest()
    return found


def _flatten(prefix: str, value: Any, found: dict[str, str]) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _flatten(f"{prefix}.{name}", part, found)
    elif prefix not in NO_MATTER:
        found[prefix] = str(value)
