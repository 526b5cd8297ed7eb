"""Make the tiny checkpoint: random weights, supervised warm-up through the policy, Hugging Face folder."""

import json
import math
import os
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
import torch.distributed as dist
from igrpo_kernels import Objective
from transformers import AutoModelForCausalLM

from igrpo_mcore.config.schema import Config, DType
from igrpo_mcore.data.templates import PromptRenderer
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.tiny.demonstrations import Demonstrations, DraftKind, DraftShares
from igrpo_mcore.tiny.model import model_config
from igrpo_mcore.tiny.task import Split, problems
from igrpo_mcore.tiny.tokenizer import make_tokenizer
from igrpo_mcore.types import TrainingSequence
from igrpo_mcore.weights.hf_export import export_hf
from igrpo_mcore.weights.hf_import import load_hf_weights

PROBLEMS_FILE = "problems.jsonl"


@dataclass(frozen=True)
class WarmUp:
    """The supervised stage. It stops at a measured accuracy, so that reinforcement has room.

    ``target`` is the expected single-shot accuracy at temperature 1 on held-out problems: the mean
    probability that the policy gives to the whole demonstrated completion, which is the only
    right one up to spelling. It is measured every ``check_every`` steps.

    Until ``single_shot_until`` is measured the rows hold no drafts: they are half as long, and
    arithmetic is learned sooner from them. From there on drafts come in ``draft_shares``.
    """

    target: float = 0.2
    most_steps: int = 400
    check_every: int = 5
    batch: int = 64
    lr: float = 2e-3
    single_shot_until: float = 0.03
    draft_shares: DraftShares = field(default_factory=lambda: DraftShares(right=0.3, wrong=0.3))
    problems: int = 9000
    held_out: int = 128


@dataclass(frozen=True)
class TinyStats:
    """Steps taken, and the expected single-shot accuracy (temperature 1, held-out) at the end."""

    steps: int
    accuracy: float
    parameters: int


def make_tiny_checkpoint(family: str, out: Path, seed: int = 0, warm_up: WarmUp | None = None) -> TinyStats:
    """Write config, safetensors, tokenizer and problems.jsonl to ``out``; the same for a seed.

    Runs in one rank and starts its own process group.

    Raises:
        UserError: unknown family, or ``out`` holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give --out another folder or move it away")
    warm_up = warm_up or WarmUp()
    hf_config = model_config(family)
    tokenizer = make_tokenizer()
    with tempfile.TemporaryDirectory() as temporary:
        start = Path(temporary) / "random"
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(hf_config, dtype=torch.float32)
        parameters = sum(p.numel() for p in model.parameters())
        with torch.no_grad():
            # transformers zeroes the padding token's row, where RMSNorm's gradient is a thousandfold: one
            # sampled padding token would drown a step's gradient
            embedding = model.get_input_embeddings().weight
            embedding[tokenizer.pad_token_id].normal_(0, float(embedding.std()))
        model.save_pretrained(start)
        tokenizer.save_pretrained(start)
        config = _config(start, warm_up, seed)
        _alone()
        start_process_groups(config.parallel, seed)
        policy = Policy(config, architecture_of(hf_config, "float32"), warm_up.most_steps)
        load_hf_weights(policy.chunks, start, hf_config)
        policy.weights_loaded()
        steps, accuracy = _warm_up(policy, config, tokenizer, warm_up, seed)
        made = Path(temporary) / "made"
        export_hf(policy.chunks, hf_config, start, made, dtype=torch.float32)
        _write_problems(made / PROBLEMS_FILE, warm_up.problems, seed)
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.rmdir()
        shutil.move(made, out)  # whole or not at all
    dist.destroy_process_group()
    return TinyStats(steps, accuracy, parameters)


def _config(model_path: Path, warm_up: WarmUp, seed: int) -> Config:
    config = Config()
    config.model.path, config.model.dtype = str(model_path), DType.float32
    config.rollout.temperature = 1.0
    config.rollout.max_prompt_tokens, config.rollout.max_completion_tokens = 96, 64
    config.optimizer.lr, config.optimizer.beta2, config.optimizer.weight_decay = warm_up.lr, 0.98, 0.1
    config.optimizer.warmup_ratio = 20 / warm_up.most_steps
    config.train.seed = seed
    return config


def _alone() -> None:
    """One rank, whatever started this process."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    os.environ.setdefault("MASTER_PORT", "0")


def _warm_up(policy: Policy, config: Config, tokenizer, warm_up: WarmUp, seed: int) -> tuple[int, float]:
    """Cross-entropy on demonstrations (the reinforce objective with advantage 1) up to the target."""
    demonstrations = Demonstrations(tokenizer, PromptRenderer(tokenizer, config.data, config.rollout))
    objective = Objective(kind="reinforce")
    train = problems(warm_up.problems, seed)
    held_out = [
        TrainingSequence(row.prompt_ids, row.completion_ids)
        for problem in problems(warm_up.held_out, seed, Split.held_out)
        for row in [demonstrations.row(problem, DraftKind.none, random.Random(seed))]
    ]
    single_shot = demonstrations.batches(train, warm_up.batch, DraftShares(0, 0), seed)
    mixed = demonstrations.batches(train, warm_up.batch, warm_up.draft_shares, seed)
    batches = single_shot
    accuracy = 0.0
    for step in range(1, warm_up.most_steps + 1):
        rows = next(batches)
        weight = 1.0 / sum(len(row.completion_ids) for row in rows)
        sequences = [
            TrainingSequence(row.prompt_ids, row.completion_ids, advantage=1.0, weight=weight) for row in rows
        ]
        policy.update(sequences, objective)
        if step % warm_up.check_every == 0:
            accuracy = expected_accuracy(policy, held_out)
            if accuracy >= warm_up.single_shot_until:
                batches = mixed
            if accuracy >= warm_up.target:
                return step, accuracy
    raise UserError(
        f"the warm-up reached an accuracy of {accuracy:.2f} in {warm_up.most_steps} steps, not "
        f"{warm_up.target}; try another --seed"
    )


def expected_accuracy(policy: Policy, demonstrated: list[TrainingSequence]) -> float:
    """Mean probability of the whole demonstrated completion, one rank."""
    found = policy.logprobs(demonstrated)
    return fmean(math.exp(float(logprobs.sum())) for logprobs in found.values())


def _write_problems(path: Path, count: int, seed: int) -> None:
    lines = (
        {"id": problem.id, "problem": problem.problem, "answer": problem.answer}
        for problem in problems(count, seed)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
