"""What a plan took for granted, in words, so that a reader can disagree."""

from statistics import fmean

from igrpo_mcore.planning.decoding import outcomes
from igrpo_mcore.planning.difficulty import SHARED
from igrpo_mcore.planning.epoch import Epoch
from igrpo_mcore.planning.plan import PlannedStep
from igrpo_mcore.planning.workload import rollout_stages


def _right(step: PlannedStep) -> float:
    """Share of the first stage's completions."""
    stage = rollout_stages(step.config, step.lengths)[0]
    cap = step.config.rollout.max_completion_tokens
    drawn = outcomes(stage.prompts, stage.samples, stage.mean, cap, stage.budget)
    return fmean(top for prompt in drawn for _, top in prompt)


def assumptions(step: PlannedStep) -> list[str]:
    """One line a kind: lengths, trainer, engine, links, the rest; docs/plan.md has where they are from."""
    e, gpu, lengths = step.efficiency, step.gpu, step.lengths
    limit = step.config.rollout.max_completion_tokens
    return [
        f"lengths: prompts of {lengths.prompt} tokens, completions of {lengths.completion} on average and "
        f"{limit} at most (--completion-tokens)",
        f"trainer: {e.update_flops:.0%} of {gpu.tflops_bf16} TFLOP/s (--efficiency), elementwise passes at "
        f"{e.optimizer_bandwidth:.0%} of {gpu.memory_gb_s} GB/s; every sequence has a gradient",
        f"engine: decoding at {e.decode_bandwidth:.0%} of {gpu.memory_gb_s} GB/s and "
        f"{1e3 * e.decode_step_s:g} ms a step, prefill at {e.prefill_flops:.0%} of the FLOP/s",
        f"rollouts: {SHARED:.0%} of lengths' variance is their problems'; {_right(step):.0%} of the drafts "
        "earn the greatest reward, the longer and harder the fewer; engines have equal work",
        f"links: {e.link:.0%} of {gpu.nvlink_gb_s} GB/s in a node and of {gpu.network_gb_s} GB/s between "
        f"nodes, {e.small_link:.0%} and {1e6 * e.collective_s:.0f} us where a message is small, none hidden; "
        f"host link {e.host_copy:.0%} of {gpu.host_gb_s} GB/s",
        f"refit: {1e3 * e.tensor_s:g} ms a tensor, {e.wake_s:g} s to wake and {e.sleep_s:g} s to sleep; "
        f"rewards: {1e3 * e.reward_s:g} ms a completion; saves at {e.save_gb_s:g} GB/s; "
        f"start {step.time.start:.0f} s",
    ]


def epoch_line(epoch: Epoch | None, gpus: int) -> str:
    """The cost of an epoch, or how to learn it."""
    if epoch is None:
        return "An epoch: the number of problems is not known here; give it by --problems."
    return (
        f"An epoch of {epoch.problems} problems: {epoch.hours:.1f} hours, {epoch.gpu_hours:.0f} GPU-hours on "
        f"{gpus} GPUs, checkpoints and one start included."
    )
