"""From problems to scored completions on every rank: the engines, the prompts and the rewards together."""

from collections.abc import Sequence
from typing import Any

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.schema import Config
from igrpo_mcore.data.order import ProblemOrder
from igrpo_mcore.data.problems import load_problems
from igrpo_mcore.data.templates import PromptRenderer
from igrpo_mcore.rewards.options import options_of
from igrpo_mcore.rewards.pool import RewardPool
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.rollout.gather import merge_parts
from igrpo_mcore.rollout.shared_scorer import SharedScorer
from igrpo_mcore.rollout.stages import StageStats, derive_seed, sample, sample_stage
from igrpo_mcore.rollout.stop_tokens import stop_token_ids
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.types import Group, Problem, PromptRollout


class Sampler:
    """One rank's part of sampling. Every call is a collective; what it returns is the same on all ranks."""

    def __init__(
        self,
        config: Config,
        engine: VLLMEngine,
        tokenizer: Any,
        phases: Phases,
        problems: Sequence[Problem] | None = None,
    ) -> None:
        """``problems`` are those of ``sample``; None loads ``data.path``."""
        self.engine = engine
        self._config, self._phases = config, phases
        self._problems = load_problems(config.data) if problems is None else problems
        self._order = ProblemOrder(len(self._problems), config.train.seed, config.data.shuffle)
        self._renderer = PromptRenderer(tokenizer, config.data, config.rollout)
        self._stop_token_ids = stop_token_ids(config.model.path, tokenizer)
        self.reward_options = options_of(config.reward, opens_thinking=self._renderer.opens_thinking)
        self._rewards = RewardPool(config.reward, self.reward_options) if engine.is_first_rank else None
        self._scorer = SharedScorer(self._rewards, engine.group)

    def sample(self, step: int, drawn: int) -> tuple[list[PromptRollout], dict[str, StageStats]]:
        """Every stage of ``step`` on the problems after the first ``drawn``, spread over the engines."""
        count = self._config.train.prompts_per_step
        indices = self._order.take(drawn, count)
        mine = list(range(self.engine.index, count, self.engine.count))
        with self._phases("engine"):
            rollouts, stats = sample(
                [self._problems[indices[position]] for position in mine],
                self.engine,
                self._renderer,
                self._scorer,
                self._config.rollout,
                seed=self._config.train.seed,
                step=step,
                positions=mine,
                stop_token_ids=self._stop_token_ids,
            )
        with self._phases("gather"):
            parts = gather_objects((mine, rollouts, stats) if self.engine.is_first_rank else None)
        return merge_parts([part for part in parts if part is not None])

    def single_shot(
        self, problems: Sequence[Problem], sampling: Sampling, key: str, first: int = 0
    ) -> list[Group]:
        """One group a problem under q; ``key`` sets its seeds apart from those of training.

        ``first`` is the place of the first problem in the whole set, which its seed derives from.
        ``sampling.stop_token_ids`` are filled in.
        """
        mine = range(self.engine.index, len(problems), self.engine.count)
        found, _ = sample_stage(
            [self._renderer.first(problems[i]) for i in mine],
            self.engine,
            self._scorer,
            sampling.stopping_at(self._stop_token_ids),
            [derive_seed(self._config.train.seed, key, first + i) for i in mine],
        )
        parts = gather_objects(list(zip(mine, found, strict=True)) if self.engine.is_first_rank else [])
        return [group for _, group in sorted((p for part in parts for p in part), key=lambda p: p[0])]

    def close(self) -> None:
        """End the reward workers, then the engine, which takes the process groups with it."""
        if self._rewards:
            self._rewards.close()
        self.engine.close()
