"""In one rank: what the gate says of a healthy push and of three kinds of fault.

python -m tests.trainer.gate_worker RECIPE OUT [key=value ...]: JSON, case -> [said, quantile, mean, max].
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator

from torch import Tensor

from igrpo_mcore.config.load import load_config
from igrpo_mcore.errors import UserError
from igrpo_mcore.objective.batch import mini_batches
from igrpo_mcore.policy import parity
from igrpo_mcore.trainer import Trainer
from tests.weights.tied_worker import disturb
from tests.weights.verify_worker import DamagedRoute, stale, swap

STALE = "model.layers.2.self_attn.o_proj.weight"
SWAPPED = ("model.layers.0.mlp.down_proj.weight", "model.layers.3.mlp.down_proj.weight")


class Kept:
    """Passes weights on and keeps a copy of them."""

    def __init__(self, engine) -> None:
        self.engine, self.tensors = engine, {}

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        def kept() -> Iterator[tuple[str, Tensor]]:
            for name, tensor in named_tensors:
                self.tensors[name] = tensor.clone()
                yield name, tensor

        self.engine.load_weights(kept())


def main() -> None:
    recipe, out, *overrides = sys.argv[1:]
    trainer = Trainer(load_config(recipe, overrides))
    engine = trainer.gpu.engine
    found: dict[str, list] = {}

    def gate(case: str) -> None:
        rollouts = trainer.sampler.sample(1, 0).rollouts
        head, sampled_at = trainer.learner.policy._head, trainer.config.rollout.temperature
        if case == "temperature":
            head._temperature = 1.4 * sampled_at
        batches = mini_batches(rollouts, 1, trainer.config.objective, trainer.config.rollout)
        logprobs = trainer.learner.logprobs(batches)
        head._temperature = sampled_at
        said = ""
        try:
            trainer.gate.check(batches, logprobs, 1)
        except UserError as error:
            said = str(error)
        measured = parity.compare(batches, logprobs)
        found[case] = [said, measured.quantile_abs_diff, measured.mean_abs_diff, measured.max_abs_diff]

    before = Kept(engine)
    trainer.pusher.push(before)
    gate("healthy")
    disturb(trainer.pusher)
    trainer.pusher.push(engine)
    gate("healthy after an update")
    trainer.pusher.push(DamagedRoute(engine, stale(STALE, before.tensors)))
    gate("stale")
    trainer.pusher.push(DamagedRoute(engine, swap(*SWAPPED)))
    gate("swapped")
    trainer.pusher.push(engine)
    gate("temperature")
    with open(out, "w") as file:
        json.dump(found, file)
    trainer.sampler.close()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
