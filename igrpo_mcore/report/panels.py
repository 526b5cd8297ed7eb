"""Which curves a run's page shows, in which charts."""

from dataclasses import dataclass

DRAFTS, REFINEMENTS, NEUTRAL, WARN = "#2f7fb8", "#d9742b", "#4c566a", "#c0392b"


@dataclass(frozen=True)
class Curve:
    """One metric of a panel; ``spread`` names the metric drawn as a band of ± its value.

    ``noisy`` lets a long curve be smoothed.
    """

    name: str
    label: str
    colour: str = NEUTRAL
    spread: str | None = None
    noisy: bool = True


@dataclass(frozen=True)
class Panel:
    """One chart; ``share`` fixes the axis to 0…1, ``log`` makes it logarithmic, ``limit`` is a line. It is
    drawn only where the metric ``needs``, if any, was measured."""

    title: str
    curves: tuple[Curve, ...]
    unit: str = ""
    share: bool = False
    log: bool = False
    limit: float | None = None
    needs: str | None = None


def panels(parity_limit: float | None) -> list[Panel]:
    """The line charts of the page, in order."""

    def both(metric: str, spread: str | None = None) -> tuple[Curve, Curve]:
        return (
            Curve(f"drafts/{metric}", "drafts", DRAFTS, spread and f"drafts/{spread}"),
            Curve(f"refinements/{metric}", "refinements", REFINEMENTS, spread and f"refinements/{spread}"),
        )

    return [
        Panel("Reward, mean ± std", both("reward_mean", "reward_std")),
        Panel("Accuracy", both("accuracy"), share=True),
        Panel(
            "Held-out accuracy, single-shot, with its 95 % interval",
            (
                Curve("eval/accuracy", "accuracy", noisy=False),
                Curve("eval/accuracy_low", "low", "#b8bec9", noisy=False),
                Curve("eval/accuracy_high", "high", "#b8bec9", noisy=False),
                Curve("eval/any_right", "any completion right", DRAFTS, noisy=False),
            ),
            share=True,
        ),
        Panel(
            "Draft chosen, by reward",
            (
                Curve("drafts/reward_mean", "mean draft", DRAFTS),
                Curve("drafts/chosen_reward", "chosen draft", NEUTRAL),
                Curve("refinements/reward_mean", "mean refinement", REFINEMENTS),
            ),
        ),
        Panel(
            "Best of the drafts, by accuracy",
            (
                Curve("drafts/best_accuracy", "observed", DRAFTS),
                Curve("drafts/best_of_n_expected", "1 - (1 - V)^N", NEUTRAL),
                Curve("drafts/chosen_accuracy", "chosen draft", REFINEMENTS),
            ),
            share=True,
        ),
        Panel(
            "Refinements against their draft",
            (
                Curve("refinements/beat_draft", "beat", "#3f9b6c"),
                Curve("refinements/equal_draft", "equal"),
                Curve("refinements/below_draft", "below", WARN),
            ),
            share=True,
        ),
        Panel(
            "Refinements that repeat their draft",
            (
                Curve("refinements/repeat_answer", "its answer", REFINEMENTS),
                Curve("refinements/repeat_text", "its text"),
            ),
            share=True,
        ),
        Panel(
            "Accuracy of refinements, by draft",
            (
                Curve("refinements/accuracy_given_right_draft", "right draft", "#3f9b6c"),
                Curve("refinements/accuracy_given_wrong_draft", "wrong draft", WARN),
            ),
            share=True,
        ),
        Panel("Gain over the chosen draft", (Curve("refinements/gain_over_draft", "reward"),)),
        Panel(
            "Drafts ended early, and what the whole prompts say",
            (
                Curve("drafts/censored_share", "drafts ended early", NEUTRAL),
                Curve("drafts/accuracy", "accuracy of the others", WARN),
                Curve("drafts/whole_accuracy", "accuracy, whole prompts", DRAFTS),
            ),
            share=True,
            needs="drafts/censored_share",
        ),
        Panel(
            "Groups with a gradient",
            (Curve("groups/with_gradient", "groups"), Curve("groups/refilled", "refilled", NEUTRAL)),
        ),
        Panel(
            "Zero-std groups",
            (Curve("groups/zero_std_share", "share without a gradient"),),
            share=True,
        ),
        Panel(
            "Hint of hacking: rewarded answers that repeat the problem's expression",
            (
                Curve("hacking/drafts_expression_share", "drafts", DRAFTS),
                Curve("hacking/expression_share", "refinements", REFINEMENTS),
            ),
            share=True,
        ),
        Panel(
            "Distinct texts in a group",
            (
                Curve("hacking/drafts_distinct_texts", "drafts", DRAFTS),
                Curve("hacking/distinct_texts", "refinements", REFINEMENTS),
            ),
            share=True,
        ),
        Panel("Completion length", both("length_mean"), unit="tokens"),
        Panel(
            "Truncated and overflowed",
            (
                *both("truncated_share"),
                Curve("drafts/overflowed_share", "drafts over the prompt budget", NEUTRAL),
            ),
            share=True,
        ),
        Panel("Entropy", (Curve("policy/entropy", "entropy"),), unit="nats"),
        Panel("KL to the reference, or to the step's start", (Curve("policy/kl", "KL"),), unit="nats"),
        Panel("Clip fraction", (Curve("policy/clip_fraction", "clipped tokens"),)),
        Panel("Gradient norm", (Curve("policy/grad_norm", "before clipping"),)),
        Panel("Learning rate", (Curve("policy/lr", "learning rate", noisy=False),)),
        Panel("Loss", (Curve("policy/loss", "loss"),)),
        Panel(
            "Sampler–trainer log-prob difference",
            (
                Curve("parity/logprob_p999_abs_diff", "99.9 % quantile"),
                Curve("parity/logprob_max_abs_diff", "largest", WARN),
                Curve("parity/logprob_mean_abs_diff", "mean", DRAFTS),
            ),
            unit="nats",
            log=True,
            limit=parity_limit,
        ),
        Panel(
            "Throughput",
            (
                Curve("tokens_per_s/drafts", "drafts", DRAFTS),
                Curve("tokens_per_s/refinements", "refinements", REFINEMENTS),
                Curve("tokens_per_s/completions", "completions", REFINEMENTS),
                Curve("tokens_per_s/update", "update", "#3f9b6c"),
            ),
            unit="tokens/s",
        ),
        Panel(
            "Memory of rank 0",
            (
                Curve("memory/rss_gib", "host (RSS)", noisy=False),
                Curve("memory/step_gib", "GPU", "#3f9b6c", noisy=False),
            ),
            unit="GiB",
        ),
        Panel("Failed reward calls", (Curve("rewards/failures", "calls a step", WARN),)),
    ]
