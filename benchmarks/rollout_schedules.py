"""Rollouts of iGRPO by each schedule against plain GRPO's, on one real engine, interleaved.

    PYTHONPATH=.:kernels .venv/bin/python benchmarks/rollout_schedules.py CHECKPOINT [--prompts 8]

Every method samples the same number of completions of the same lengths: lengths are drawn once (log-normal,
between 16 and --longest tokens, longer for harder problems) and forced, since their spread is what makes
tails. A reward of 1 is drawn too (likelier for easy problems), which only the early exit looks at. So what
differs is the order in which an engine gets the same work, but for the drafts that an early exit leaves out.

Prints of each method the seconds of a rollout (CPU seconds of the process: the engine computes in one thread
and never idles, so other jobs hardly show; wall seconds beside them), medians over the repeats, and the ratio
to plain GRPO of the same repeat: median, least and most.
"""

import argparse
import os
import random
import statistics
import time
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch.distributed as dist

from igrpo_mcore.config.schema import DType, RolloutConfig, Schedule, Selection
from igrpo_mcore.data.tokenizer import load_tokenizer
from igrpo_mcore.rollout.course import Course
from igrpo_mcore.rollout.courses import training_course
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.rollout.scheduler import Scheduler
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.types import Completion, Problem, Prompt, SampleKey, Score
from igrpo_mcore.weights.checkpoint import resolve_checkpoint

PROMPT_TOKENS, SHORTEST = 40, 16
METHODS: dict[str, dict] = {
    "plain GRPO": {"selection": Selection.none, "schedule": Schedule.barrier},
    "barrier": {"schedule": Schedule.barrier},
    "hand-over": {"schedule": Schedule.handover},
    "hand-over, early exit": {"schedule": Schedule.handover, "draft_early_exit": True},
    "ahead": {"schedule": Schedule.ahead},
    "ahead, early exit": {"schedule": Schedule.ahead, "draft_early_exit": True},
}


class Forced:
    """Length and reward of every sample; a plain group's last G are those of the refinements."""

    def __init__(self, longest: int, drafts: int) -> None:
        self.longest, self.drafts = longest, drafts

    def of(self, key: SampleKey) -> tuple[int, float]:
        refined = key.stage == "refinements"
        index = key.sample + self.drafts if refined else key.sample
        rng = random.Random(f"{key.step}/{key.position}/{index}")
        hard = random.Random(f"{key.step}/{key.position}").random()
        length = int(rng.lognormvariate(3.2 + 1.1 * hard, 0.55))
        right = rng.random() < 0.95 - 0.85 * hard
        return max(SHORTEST, min(self.longest, length)), float(right and length < self.longest)


class ForcedEngine(VLLMEngine):
    """The real engine; each sample ends at its forced length."""

    forced: Forced

    def submit(self, key: SampleKey, prompt, sampling: Sampling, seed: int) -> None:
        length, _ = self.forced.of(key)
        super().submit(key, prompt, replace(sampling, max_tokens=length, stop_token_ids=()), seed)


class ForcedScorer:
    """Scores at once."""

    def __init__(self, forced: Forced) -> None:
        self.forced = forced

    def submit(self, key: SampleKey, problem: Problem, completion: Completion) -> None: ...
    def advance(self) -> None: ...
    def drop(self, keys) -> None: ...
    def ready(self):
        raise NotImplementedError

    def take(self, keys) -> list[Score]:
        return [Score(self.forced.of(key)[1]) for key in keys]


class TokenRenderer:
    """q: tokens drawn by problem; q': the draft's tokens after them."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def first(self, problem: Problem) -> Prompt:
        rng = random.Random(problem.id)
        return Prompt(problem, tuple(rng.randrange(3, self.vocabulary) for _ in range(PROMPT_TOKENS)))

    def second(self, problem: Problem, draft: Completion) -> tuple[Prompt, bool]:
        return Prompt(problem, (*self.first(problem).token_ids, *draft.token_ids)), False


class Method:
    """One schedule's rollouts, a step after another."""

    def __init__(self, name: str, options: dict, engine: ForcedEngine, prompts: int, longest: int) -> None:
        self.name, self.prompts = name, prompts
        self.rollout = RolloutConfig(
            max_completion_tokens=longest, temperature=1.0, whole_prompts=0.0, score_steps=1, **options
        )
        self.scheduler = Scheduler(
            engine,
            ForcedScorer(engine.forced),
            TokenRenderer(engine.model.config.vocab_size),
            self.rollout,
            greatest=1.0,
        )
        self.ahead = self.rollout.schedule == Schedule.ahead
        self.begun: list[Course] = []
        self.seconds: list[float] = []
        self.wall: list[float] = []
        self.tokens: list[int] = []

    def courses(self, step: int) -> list[Course]:
        return [
            training_course(Problem(f"{step}/{i}", "", ""), step, i, self.prompts, self.rollout, 0, ())
            for i in range(self.prompts)
        ]

    def begin(self, step: int) -> None:
        """Untimed: what the step before would have left."""
        if self.ahead:
            self.begun = self.courses(step)
            for course in self.begun:
                course.goal = 1
            self.scheduler.run(self.begun)

    def step(self, step: int) -> None:
        work = self.begun if self.ahead else self.courses(step)
        for course in work:
            course.goal = len(course.stages)
        later = self.courses(step + 1) if self.ahead else []
        for course in later:
            course.goal = 1
        cpu, wall = time.process_time(), time.perf_counter()
        stats = self.scheduler.run([*work, *later])
        self.seconds.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        self.tokens.append(sum(s.tokens for s in stats.values()))
        self.begun = later


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--longest", type=int, default=128)
    args = parser.parse_args()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    rollout = RolloutConfig(
        max_prompt_tokens=64,
        max_completion_tokens=args.longest,
        max_concurrent_sequences=256,
        kv_cache_bytes=2 << 30,
    )
    path = str(resolve_checkpoint(args.checkpoint))
    engine = ForcedEngine(path, rollout, DType.float32, load_tokenizer(path), load_format="auto")
    engine.forced = Forced(args.longest, rollout.num_drafts)
    methods = [Method(name, o, engine, args.prompts, args.longest) for name, o in METHODS.items()]
    methods[0].step(0)  # warm
    methods[0].seconds, methods[0].wall, methods[0].tokens = [], [], []
    for repeat in range(1, args.repeats + 1):
        for method in methods:
            if repeat == 1:
                method.begin(repeat)
            method.step(repeat)
    base = methods[0].seconds
    print(f"{args.checkpoint}: {args.prompts} prompts x 8 completions, {args.repeats} repeats")
    print(f"{'':<24}{'CPU s':>8}{'wall s':>8}{'tokens':>8}   against plain GRPO: median (least, most)")
    for method in methods:
        ratios = [mine / plain for mine, plain in zip(method.seconds, base, strict=True)]
        print(
            f"{method.name:<24}{statistics.median(method.seconds):>8.2f}{statistics.median(method.wall):>8.2f}"
            f"{statistics.median(method.tokens):>8.0f}   {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}, {max(ratios):.2f})",
            flush=True,
        )
    engine.close()


if __name__ == "__main__":
    main()
