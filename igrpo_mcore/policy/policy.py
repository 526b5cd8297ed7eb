"""The policy: log-probs of sampled tokens and the update, through Megatron's pipeline schedules."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from igrpo_kernels import Objective
from megatron.core import parallel_state as mpu
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from igrpo_mcore import device
from igrpo_mcore.config.schema import Config
from igrpo_mcore.errors import UserError
from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.objective.correction import ImportanceInUpdate
from igrpo_mcore.policy.checkpoint import (
    load_model_state,
    room_to_gather,
    sharded_model_state,
    sharding_metadata,
)
from igrpo_mcore.policy.flops import update_flops
from igrpo_mcore.policy.head import PolicyHead
from igrpo_mcore.policy.layer_spec import has_transformer_engine
from igrpo_mcore.policy.lora import Adapters
from igrpo_mcore.policy.lora_optimizer import LoRAOptimizer
from igrpo_mcore.policy.model import build_model
from igrpo_mcore.policy.offload import OptimizerOffload
from igrpo_mcore.policy.optimizer import build_optimizer, build_schedule, wrap_data_parallel
from igrpo_mcore.policy.packing import PackedRow, deal, pack
from igrpo_mcore.policy.update_stats import COUNTS, UpdateStats, importance_totals, update_totals
from igrpo_mcore.run.progress import beat
from igrpo_mcore.types import TrainingSequence
from igrpo_mcore.weights.local import locate_shards
from igrpo_mcore.weights.table import Table


def carries_gradient(sequence: TrainingSequence, objective: Objective) -> bool:
    """False where every term of the sequence's loss is 0 for any weights, as in a group of equal rewards."""
    other_terms = objective.kl_coef != 0 or objective.entropy_coef != 0
    return sequence.weight != 0 and (sequence.advantage != 0 or other_terms)


class Policy:
    """The trained model on this rank.

    Every rank is given the same list of sequences; it takes its data-parallel share, runs it as
    packed micro-batches, and the last pipeline stage holds the results.
    """

    def __init__(
        self, config: Config, architecture: Architecture, updates: int, table: Table | None = None
    ) -> None:
        """``updates`` is the number of optimizer steps that the learning-rate schedule spans. ``lora.rank``
        asks for the model's weight table."""
        self._options = config
        self.architecture = architecture
        self.device = device.current_device()
        longest = config.rollout.longest_sequence
        with device.megatron_on_cpu():
            self.chunks = build_model(architecture, config.parallel, config.model, longest)
            for chunk in self.chunks:
                chunk.to(self.device)
            self._ddp = wrap_data_parallel(self.chunks, distributed_optimizer=not config.lora.rank)
            self._optimizer: MegatronOptimizer | LoRAOptimizer
            if config.lora.rank:
                assert table is not None
                shards = locate_shards(self.chunks, table)
                adapters = Adapters(shards, self.chunks, config.lora, config.train.seed)
                self._optimizer = LoRAOptimizer(adapters, self._ddp, config.optimizer)
            else:
                self._optimizer = build_optimizer(self._ddp, config.optimizer)
        # exact for attention; a Mamba state runs through prompt and completion in one go
        self._shares_prompts = architecture.mamba is None and not has_transformer_engine()
        self.dtype = self.chunks[0].config.params_dtype
        self._offload = OptimizerOffload(self._optimizer, self._ddp)
        self._schedule = build_schedule(self._optimizer, config.optimizer, updates)
        self.updates = 0
        self._skipped_in_a_row = 0
        self._dp_group = mpu.get_data_parallel_group()
        self._head = PolicyHead(
            self.chunks[-1],
            architecture.vocab_size,
            config.rollout.temperature,
            mpu.get_tensor_model_parallel_group(),
        )

    def weights_loaded(self) -> None:
        """Call after the parameters were filled: the optimizer's fp32 main copies follow them."""
        self._optimizer.reload_model_params()

    @property
    def offloads_optimizer(self) -> bool:
        """Whether ``offload_optimizer`` does anything."""
        return self._options.model.offload_optimizer

    def offload_optimizer(self) -> None:
        """Where ``model.offload_optimizer`` says so, take optimizer and gradients off the device."""
        if self.offloads_optimizer:
            self._offload.offload()

    def restore_optimizer(self) -> None:
        """Undo ``offload_optimizer``; before a gradient is computed or the optimizer's state is read."""
        self._offload.restore()

    # ---- checkpoints --------------------------------------------------------------------------

    def sharded_state(self, *, loading: bool) -> dict[str, Any]:
        """Parameters and optimizer state as Megatron's sharded state dict, whatever the layout. Collective.

        ``loading`` gives one to be filled by dist_checkpointing and handed to ``load_sharded_state``.
        """
        with device.megatron_on_cpu():
            metadata = sharding_metadata(loading or room_to_gather(self.chunks))
            model = sharded_model_state(self.chunks)
            optimizer = self._optimizer.sharded_state_dict(model, is_loading=loading, metadata=metadata)
        return {"model": model, "optimizer": optimizer}

    def load_sharded_state(self, state: dict[str, Any], updates: int) -> None:
        """Take a loaded ``sharded_state`` that had seen ``updates`` optimizer steps.

        The learning rate continues at that place of this run's own schedule.
        """
        with device.megatron_on_cpu():
            load_model_state(self.chunks, state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
        self.updates = updates
        self._schedule.step(updates)

    # ---- forward only -------------------------------------------------------------------------

    def logprobs(self, sequences: list[TrainingSequence]) -> dict[int, Tensor]:
        """Log-probs of the completion tokens at the sampling temperature, without gradient.

        Returns:
            By index in ``sequences``, fp32 [tokens of the completion]; this data-parallel rank's
            share on the last pipeline stage, empty elsewhere.
        """
        share = self._share(sequences)
        found: dict[int, Tensor] = {}

        def step(rows: Iterator[PackedRow], model):
            beat()
            row = next(rows)

            def collect(given: Tensor, non_loss_data: bool = True):
                logprob_R = self._head.logprobs(given, row.target_R)
                for member, part in zip(row.members, logprob_R.split(row.lengths), strict=True):
                    found[member] = part.clone()

            return model(row), collect

        with torch.no_grad(), device.megatron_on_cpu():
            self._run(step, sequences, share, forward_only=True)
        return found

    # ---- the update ---------------------------------------------------------------------------

    def update(
        self,
        sequences: list[TrainingSequence],
        objective: Objective,
        old_logprobs: dict[int, Tensor] | None = None,
        ref_logprobs: dict[int, Tensor] | None = None,
        importance: dict[int, Tensor] | ImportanceInUpdate | None = None,
    ) -> UpdateStats:
        """One optimizer step on Σ weight · objective over the tokens of all sequences.

        ``old_logprobs`` ``None`` means on-policy: the ratio is 1, with its gradient. ``ref_logprobs``
        are what the metric ``kl`` is taken to, and the KL of the objective. ``importance`` weighs each
        token's objective. All three are fp32 [tokens of the completion] by index in ``sequences``.
        ``ImportanceInUpdate`` makes that weight of this update's own log-probs.

        Sequences without a gradient (``carries_gradient``) are left out of forward and backward, which
        changes neither loss nor gradient. Where that is all of them the step is taken with a gradient
        of 0: moments decay, and the schedule and ``updates`` go on.

        Where the loss or the gradient norm is not finite no step is taken: weights, optimizer, schedule and
        ``updates`` are as before the call.

        Raises:
            UserError: that happened more than ``train.max_skipped_updates`` times in a row.
        """
        loss, metrics = self.accumulate_gradient(sequences, objective, old_logprobs, ref_logprobs, importance)
        tokens, pairs, head_rows = (int(metrics.pop(name)) for name in COUNTS)
        with device.megatron_on_cpu():
            # Megatron steps on a NaN norm, so it is looked at first; preparing twice changes nothing
            self._optimizer.prepare_grads()
            grad_norm = float(self._optimizer.get_grad_norm())
            skipped = not (math.isfinite(loss) and math.isfinite(grad_norm))
            if skipped:
                self._count_skipped(loss, grad_norm)
            else:
                self._skipped_in_a_row = 0
                self.updates += 1
                self._schedule.step(1)
                self._optimizer.step()
        return UpdateStats(
            loss=loss,
            grad_norm=grad_norm,
            lr=self._optimizer.param_groups[0]["lr"],
            tokens=sum(len(s) for s in sequences if carries_gradient(s, objective)),
            batch_tokens=sum(len(s) for s in sequences),
            head_rows=head_rows,
            flops=update_flops(self.architecture, tokens, pairs, head_rows),
            metrics=metrics,
            importance=importance_totals(importance, self.device),
            skipped=skipped,
        )

    def _count_skipped(self, loss: float, grad_norm: float) -> None:
        self._skipped_in_a_row += 1
        allowed = self._options.train.max_skipped_updates
        if self._skipped_in_a_row > allowed:
            again = f" in {self._skipped_in_a_row} updates in a row" if allowed else ""
            raise UserError(
                f"the gradient norm is {grad_norm} and the loss {loss}{again}, so no step was taken and the "
                "run ends here; lower optimizer.lr, look for infinite or extreme values in what the rewards "
                "return, or let such updates pass with train.max_skipped_updates"
            )

    def accumulate_gradient(
        self,
        sequences: list[TrainingSequence],
        objective: Objective,
        old_logprobs: dict[int, Tensor] | None = None,
        ref_logprobs: dict[int, Tensor] | None = None,
        importance: dict[int, Tensor] | ImportanceInUpdate | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Forward and backward of ``update`` without its step: gradients stay in ``main_grad``.

        Returns:
            The loss, the token-weighted mean metrics and ``COUNTS`` over all data-parallel ranks; the same
            on every rank.
        """
        for chunk in self._ddp:
            chunk.zero_grad_buffer()
        self._optimizer.zero_grad()
        share = self._share(sequences, [carries_gradient(s, objective) for s in sequences])
        scale = len(share) * self._dp_group.size()  # Megatron divides by both
        collected: list[dict[str, Any]] = []

        def step(rows: Iterator[PackedRow], model):
            beat()
            row = next(rows)
            members = [sequences[member] for member in row.members]

            def loss(given: Tensor):
                importance_R = (
                    importance.weights(self._head.logprobs(given, row.target_R), members)
                    if isinstance(importance, ImportanceInUpdate)
                    else self._gather(importance, row)
                )
                result = self._head.loss(
                    given,
                    row.target_R,
                    objective,
                    old_logprob_T=self._gather(old_logprobs, row),
                    advantage_T=self._spread([m.advantage for m in members], row),
                    weight_T=self._spread([m.weight for m in members], row),
                    ref_logprob_T=self._gather(ref_logprobs, row),
                    importance_T=importance_R,
                    sequence_id_T=row.sequence_R,
                )
                counts = dict(zip(COUNTS, (row.tokens, row.pairs, given.shape[0]), strict=True))
                collected.append({"loss": result.loss.detach(), **counts, **result.metrics})
                return result.loss * scale, {}

            return model(row), loss

        with device.megatron_on_cpu():
            self._run(step, sequences, share, forward_only=False)
        return update_totals(collected, self.device)

    # ---- plumbing -----------------------------------------------------------------------------

    def _share(self, sequences: list[TrainingSequence], wanted: list[bool] | None = None) -> list[list[int]]:
        """This rank's micro-batches."""
        # the interleaved schedule asks for a multiple of the pipeline size
        multiple = mpu.get_pipeline_model_parallel_world_size() if len(self.chunks) > 1 else 1
        budget = self._options.train.micro_batch_tokens
        return deal(sequences, self._dp_group.size(), budget, wanted, multiple)[self._dp_group.rank()]

    def _run(
        self, step, sequences: list[TrainingSequence], share: list[list[int]], forward_only: bool
    ) -> None:
        multiple = mpu.get_tensor_model_parallel_world_size()
        rows = [pack(sequences, members, multiple, self.device, self._shares_prompts) for members in share]
        iterators = [iter(rows) for _ in self.chunks]
        several = len(self.chunks) > 1
        get_forward_backward_func()(
            forward_step_func=step,
            data_iterator=iterators if several else iterators[0],
            model=self._ddp if several else self._ddp[0],
            num_microbatches=len(rows),
            seq_length=max(row.tokens_T.numel() for row in rows),  # ignored: lengths vary
            micro_batch_size=1,
            forward_only=forward_only,
            collect_non_loss_data=forward_only,
        )

    def _spread(self, values: list[float], row: PackedRow) -> Tensor:
        """Per-sequence values to the row's response tokens, fp32 [R]."""
        return torch.tensor(values, dtype=torch.float32, device=self.device)[row.sequence_R]

    @staticmethod
    def _gather(logprobs: dict[int, Tensor] | None, row: PackedRow) -> Tensor | None:
        if logprobs is None:
            return None
        return torch.cat([logprobs[member] for member in row.members] or [row.rows_R.new_zeros(0).float()])
