"""Random small groups, and a model of fp64 leaves whose gradients autograd takes of the papers' formulae."""

import random
from collections.abc import Callable, Sequence

import torch
from igrpo_kernels import policy_loss
from torch import Tensor

from igrpo_mcore.config.schema import ObjectiveConfig
from igrpo_mcore.types import Completion, Group, Problem, Prompt, PromptRollout, Score, TrainingSequence
from tests.support.rollouts import two_stages

VOCABULARY, BUDGET = 11, 8


def random_step(seed: int = 0, prompts: int = 3, n: int = 3, g: int = 4) -> list[PromptRollout]:
    """Two-stage rollouts whose completions differ in length; rewards 0, 1 or 2; q is (i,), q' is (i, 100)."""
    rng = random.Random(seed)

    def group(problem: Problem, prompt: tuple[int, ...], size: int) -> Group:
        tokens = [[rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 6))] for _ in range(size)]
        completions = [Completion(tuple(t), tuple(rng.uniform(-4, -1) for _ in t), "", False) for t in tokens]
        rewards = [float(rng.randrange(3)) for _ in range(size)]
        return Group(Prompt(problem, prompt), tuple(completions), tuple(Score(r) for r in rewards))

    step = []
    for i in range(prompts):
        problem = Problem(str(i), "p", "a")
        step.append(two_stages(group(problem, (i,), n), 0, group(problem, (i, 100), g)))
    return step


class Model:
    """Logits that depend on the prompt and the position in the completion, each its own leaf."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self.leaves: dict[tuple[int, ...], Tensor] = {}

    def logits_TV(self, prompt: Sequence[int], length: int) -> Tensor:
        key = tuple(prompt)
        if key not in self.leaves:
            table = torch.randn(BUDGET, VOCABULARY, generator=self._generator, dtype=torch.float64)
            self.leaves[key] = table.requires_grad_()
        return self.leaves[key][:length]

    def logp_T(self, prompt: Prompt, completion: Completion) -> Tensor:
        ids = torch.tensor(completion.token_ids)
        return self.logits_TV(prompt.token_ids, len(ids)).log_softmax(-1).gather(-1, ids[:, None])[:, 0]

    def gradients(self, loss: Tensor) -> dict[tuple[int, ...], Tensor]:
        """By prompt; the leaves' own gradients are left as they are."""
        found = torch.autograd.grad(loss, list(self.leaves.values()), allow_unused=True)
        return {
            key: torch.zeros_like(leaf) if grad is None else grad
            for (key, leaf), grad in zip(self.leaves.items(), found, strict=True)
        }


def trained_gradients(
    model: Model,
    sequences: Sequence[TrainingSequence],
    config: ObjectiveConfig,
    importance: Callable[[TrainingSequence, Tensor], Tensor] | None = None,
) -> dict[tuple[int, ...], Tensor]:
    """What an update on ``sequences`` has as its gradient, by the loss kernels' own path."""
    rows = [model.logits_TV(s.prompt_ids, len(s.completion_ids)) for s in sequences]
    lengths = torch.tensor([len(s.completion_ids) for s in sequences])

    def spread(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).repeat_interleave(lengths)

    target_T = torch.tensor([token for s in sequences for token in s.completion_ids])
    weights = None
    if importance is not None:
        old = [
            row.detach().log_softmax(-1).gather(-1, torch.tensor(s.completion_ids)[:, None])[:, 0]
            for row, s in zip(rows, sequences, strict=True)
        ]
        weights = torch.cat([importance(s, o) for s, o in zip(sequences, old, strict=True)])
    loss = policy_loss(
        torch.cat(rows),
        target_T,
        old_logprob_T=None,
        advantage_T=spread([s.advantage for s in sequences]),
        weight_T=spread([s.weight for s in sequences]),
        objective=config.at(1.0),
        importance_T=weights,
        sequence_id_T=torch.arange(len(sequences)).repeat_interleave(lengths),
    ).loss
    return model.gradients(loss)
