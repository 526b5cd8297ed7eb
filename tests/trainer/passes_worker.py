"""In one rank: the trainer's step on fixed samples, with a real policy and an engine that only records.

python -m tests.trainer.passes_worker CHECKPOINT OUT: case or kind -> updates, weights after, order of events.
"""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

from igrpo_mcore import trainer as trainer_module
from igrpo_mcore.config.schema import Config, DType
from igrpo_mcore.device_memory import DeviceMemory
from igrpo_mcore.families import architecture_of
from igrpo_mcore.gate import Gate
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.policy.learner import Learner
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.rollout.sampler import StepSamples
from igrpo_mcore.run.checkpoint_folder import Position
from igrpo_mcore.run.journal import NoJournal
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.trainer import Trainer
from igrpo_mcore.types import TrainingSequence
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher
from tests.policy.layouts_worker import Collector
from tests.policy.sequences import training_batch
from tests.trainer.recording import NEVER_EVALUATED

LR, EPS, TEMPERATURE = 3e-3, 1e-3, 0.8
CASES = {"one update": (1, 1, "clip"), "several updates": (2, 2, "clip")}
"""Mini-batches, passes and the objective."""
OTHER_KINDS = ("reinforce", "cispo", "gspo")


def mini_batches_of(count: int) -> list[list[TrainingSequence]]:
    batch = training_batch(groups=4)
    size = len(batch) // count
    return [batch[i * size : (i + 1) * size] for i in range(count)]


class RecordingEngine:
    """Says when it sleeps; samples nothing."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def sleep(self, **_: object) -> None:
        self.events.append("sleep")


def run(checkpoint: str, mini_batches: int, passes: int, kind: str) -> dict:
    config = Config()
    config.model.path, config.model.dtype = checkpoint, DType.float32
    config.rollout.max_prompt_tokens = config.rollout.max_completion_tokens = 64
    config.rollout.temperature = TEMPERATURE
    config.train.steps, config.train.prompts_per_step = 1, 4
    config.train.mini_batches, config.train.passes = mini_batches, passes
    config.objective.kind = kind
    optimizer = config.optimizer
    optimizer.lr, optimizer.eps, optimizer.grad_clip = LR, EPS, 1e6
    optimizer.warmup_ratio, optimizer.min_lr_ratio = 0.0, 1.0
    hf_config = load_hf_config(checkpoint)
    events: list[str] = []
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.phases, trainer.report = config, Phases(), None
    trainer.position = Position(0, 0, 0)
    policy = Policy(config, architecture_of(hf_config, "float32"), config.train.updates_per_step)
    load_hf_weights(policy.chunks, Path(checkpoint), hf_config)
    policy.weights_loaded()
    trainer.learner = Learner(config, policy, trainer.phases)
    batches = mini_batches_of(mini_batches)
    for batch in batches:  # what a healthy sampler says
        for i, logprob in policy.logprobs(batch).items():
            batch[i] = replace(batch[i], logprobs=tuple(logprob.tolist()))
    updates = []
    update, logprobs = policy.update, policy.logprobs

    def recorded_update(*arguments):
        events.append("update")
        updates.append(update(*arguments))
        return updates[-1]

    def recorded_logprobs(batch):
        events.append("logprobs")
        return logprobs(batch)

    policy.update, policy.logprobs = recorded_update, recorded_logprobs
    trainer.gpu = DeviceMemory(policy, lambda: RecordingEngine(events), trainer.phases)
    nothing: list = []
    trainer.held_out = NEVER_EVALUATED
    trainer.sampler = SimpleNamespace(
        sample=lambda step, drawn: StepSamples(nothing, nothing, {}, 4), journal=NoJournal()
    )
    trainer.gate = Gate(config, trainer.learner, trainer.gpu, None)
    trainer.push = lambda: events.append("push")
    trainer_module.mini_batches = lambda *_: batches
    trainer_module.rank_spread = lambda phases: {}
    trainer.step(1)
    after = Collector()
    Pusher(policy.chunks, hf_config, rollout_tp=1, dtype=torch.float32).push(after)
    return {
        "updates": [vars(u) | u.metrics for u in updates],
        "weights": after.tensors,
        "events": events,
        "counted": trainer.position.updates,
    }


def main() -> None:
    checkpoint, out = sys.argv[1:]
    start_process_groups(Config().parallel, seed=0)
    cases = CASES | {kind: (1, 1, kind) for kind in OTHER_KINDS}
    torch.save({name: run(checkpoint, *case) for name, case in cases.items()}, out)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
