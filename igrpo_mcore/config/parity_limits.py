"""How far the sampler's log-probs may lie from the trainer's. The page reads this without torch."""

from dataclasses import dataclass

from igrpo_mcore.config.schema import DType, ParityConfig

QUANTILE = 0.999
"""Of the absolute differences of all sampled tokens; the largest alone is logged and decides nothing, since
it grows with their number: TRL#6789 reports 0.48 nats over 3,916 healthy tokens in bfloat16."""


@dataclass(frozen=True)
class ParityLimits:
    """Nats; a run goes on while mean and quantile are at most these."""

    mean: float
    quantile: float


DEFAULTS = {
    # by dtype and whether the policy is on a GPU
    (DType.float32, False): ParityLimits(2e-5, 1e-4),
    (DType.float32, True): ParityLimits(1e-2, 1e-1),
    (DType.bfloat16, False): ParityLimits(5e-2, 1.0),
    (DType.bfloat16, True): ParityLimits(5e-2, 1.0),
}
"""float32 on a CPU: measured means of 2e-6 to 6e-6 and largest differences of 1e-5 to 6e-5 (tiny models and
SmolLM2-135M, docs/experiments.md). float32 on a GPU: Transformer Engine and Triton take TF32 products; inputs
rounded to TF32 on one side alone moved SmolLM2-135M's log-probs by 2.3e-3 in the mean and 1.5e-2 at the
quantile (emulated on a CPU over 1,024 tokens, 2026-11-25). bfloat16: NeMo-RL asks that the mean of
exp(|difference|) stays under 1.05, which is a mean difference of 5e-2; a logit near 20 is rounded by up to
0.06 on each side and single tokens reach a few tenths, a wrong tensor or temperature moves most of them. Not
run on a GPU yet."""


def limits_of(config: ParityConfig, dtype: DType, on_gpu: bool) -> ParityLimits:
    """What the recipe sets, else the default of the dtype and the device."""
    default = DEFAULTS[dtype, on_gpu]
    mean, quantile = config.mean_threshold, config.quantile_threshold
    return ParityLimits(
        default.mean if mean is None else mean, default.quantile if quantile is None else quantile
    )
