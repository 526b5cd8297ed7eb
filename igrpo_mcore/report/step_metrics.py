"""The metrics of one step, as metrics.jsonl has them; docs/metrics.md says what each name means."""

import time
from collections.abc import Sequence
from statistics import fmean

from igrpo_mcore import device
from igrpo_mcore.config.schema import Config
from igrpo_mcore.objective.correction import ImportanceWeights
from igrpo_mcore.policy.parallel import world_size
from igrpo_mcore.policy.parity import Parity
from igrpo_mcore.policy.update_stats import UpdateStats
from igrpo_mcore.report.rollout_metrics import rollout_metrics
from igrpo_mcore.report.throughput import throughput
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.rollout.sampler import StepSamples
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.weights.push import PushStats


def step_metrics(
    samples: StepSamples,
    parity: Parity | None,
    importance: ImportanceWeights | None,
    updates: Sequence[UpdateStats],
    pushed: PushStats,
    phases: Phases,
    config: Config,
    options: RewardOptions,
) -> dict[str, float | None]:
    """Everything that a step measured; None is a figure that it does not have."""
    taken = [u for u in updates if not u.skipped] or updates
    means = {name: fmean(u.metrics[name] for u in taken) for name in updates[0].metrics}
    trained = sum(u.tokens for u in updates)
    corrected = importance.stats if importance else taken[0].importance
    sampling = samples.stats
    return {
        "time/unix": time.time(),
        **rollout_metrics(samples.rollouts, options, config.objective),
        **({"groups/refilled": float(samples.refilled)} if config.rollout.max_refills else {}),
        "policy/loss": fmean(u.loss for u in taken),
        "policy/entropy": means["entropy"],
        "policy/clip_fraction": means["clip_fraction_low"] + means["clip_fraction_high"],
        "policy/kl": means["kl"],
        "policy/grad_norm": fmean(u.grad_norm for u in taken),
        "policy/lr": updates[-1].lr,
        "policy/skipped_updates": sum(u.skipped for u in updates),
        "policy/head_rows_share": sum(u.head_rows for u in updates) / max(1, trained),
        "policy/trained_share": trained / sum(u.batch_tokens for u in updates),
        "parity/logprob_max_abs_diff": parity.max_abs_diff if parity else None,
        "parity/logprob_p999_abs_diff": parity.quantile_abs_diff if parity else None,
        "parity/logprob_mean_abs_diff": parity.mean_abs_diff if parity else None,
        **(corrected.metrics() if corrected else {}),
        **{f"time/{stage}_s": stats.seconds for stage, stats in sampling.items()},
        **{f"time/{stage}_rewards_s": stats.reward_seconds for stage, stats in sampling.items()},
        **{f"tokens_per_s/{stage}": stats.rate for stage, stats in sampling.items()},
        **phases.metrics(),
        **pushed.metrics(),
        **throughput(
            sum(stats.tokens for stats in sampling.values()),
            updates,
            phases.seconds,
            world_size(),
            device.gpu_name(),
            config.model.dtype,
        ),
        "tokens_per_s/update": trained / phases.seconds["update"],
        "memory/rss_gib": device.resident_gib(),
    }
