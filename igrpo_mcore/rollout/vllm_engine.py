"""vLLM as the rollout engine, colocated: it lives in the trainer's ranks (``external_launcher``).

vLLM (0.32) is imported here and where it is started (``vllm_start.py``). The default process group must
exist; engine e of ``world_size // rollout.tp`` holds the consecutive ranks [e·tp, (e+1)·tp), and every
rank of the world constructs and closes its engine together (vLLM builds its own groups over the whole
world). In between, engines are independent of each other.
"""

import gc
from collections.abc import Iterable, Iterator, Sequence

import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from igrpo_mcore.config.schema import DType, RolloutConfig
from igrpo_mcore.device import has_cuda
from igrpo_mcore.errors import UserError
from igrpo_mcore.loading import loading
from igrpo_mcore.rollout.engine import EngineMemory, Sampling
from igrpo_mcore.rollout.vllm_start import (
    register_architecture,
    set_environment,
    start,
    trainer_state_kept,
    waiting_asleep,
)
from igrpo_mcore.run.progress import beat
from igrpo_mcore.types import Completion, SampleKey


class VLLMEngine:
    """A :class:`~igrpo_mcore.rollout.engine.RolloutEngine` on one rank of a vLLM tensor-parallel group.

    ``index`` of ``count`` says which engine this rank belongs to; ``group`` holds the engine's ranks
    on a CPU backend. With ``load_format="dummy"`` the weights are random until ``load_weights``;
    "auto" reads them from ``model_path``. Raises ``UserError`` where vLLM refuses the settings.
    """

    def __init__(
        self,
        model_path: str,
        rollout: RolloutConfig,
        dtype: DType,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int = 0,
        load_format: str = "dummy",
    ):
        world_size = dist.get_world_size()
        if world_size % rollout.tp:
            raise UserError(
                f"rollout.tp={rollout.tp} does not divide the {world_size} ranks; choose a divisor."
            )
        self.count = world_size // rollout.tp
        self.index = dist.get_rank() // rollout.tp
        self._tokenizer = tokenizer
        set_environment()
        with trainer_state_kept(), waiting_asleep():
            with loading():
                register_architecture(model_path)
            self._llm = start(model_path, rollout, dtype, seed, load_format)
        self._submitted = 0
        self._running: dict[str, SampleKey] = {}
        from vllm.distributed.parallel_state import get_tp_group

        self.group: dist.ProcessGroup = get_tp_group().cpu_group
        self._model = self._llm.llm_engine.model_executor.driver_worker.worker.model_runner.get_model()

    @property
    def model(self):
        """vLLM's module of this rank, for reading its weights back."""
        return self._model

    @property
    def is_first_rank(self) -> bool:
        """Whether this is the first of the engine's ranks."""
        return dist.get_rank(self.group) == 0

    @property
    def busy(self) -> bool:
        """See :meth:`RolloutEngine.busy`."""
        return bool(self._running)

    def submit(self, key: SampleKey, prompt: Sequence[int], sampling: Sampling, seed: int) -> None:
        """See :meth:`RolloutEngine.submit`. Log-probs are those of the sampling temperature; ``text``
        leaves out special tokens."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop_token_ids=list(sampling.stop_token_ids),
            ignore_eos=True,  # only stop_token_ids decide
            seed=seed,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._submitted += 1
        name = str(self._submitted)
        self._llm.llm_engine.add_request(name, TokensPrompt(prompt_token_ids=list(prompt)), params)
        self._running[name] = key

    def step(self) -> list[tuple[SampleKey, Completion]]:
        """See :meth:`RolloutEngine.step`."""
        beat()  # a rollout may last for many minutes
        outputs = self._llm.llm_engine.step()
        return [
            (self._running.pop(output.request_id), self._completion(output.outputs[0]))
            for output in outputs
            if output.finished and output.request_id in self._running
        ]

    def abort(self, keys: Sequence[SampleKey]) -> None:
        """See :meth:`RolloutEngine.abort`."""
        doomed = set(keys)
        names = [name for name, key in self._running.items() if key in doomed]
        self._llm.llm_engine.abort_request(names)
        for name in names:
            del self._running[name]

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """See :meth:`RolloutEngine.load_weights`.

        vLLM repacks weights at load, so only its layerwise reload is right, and that with every
        weight; it skips some unknown names and only warns of missing ones, hence the checks here.
        """
        expected = self._expected_weights()
        seen: set[str] = set()

        def checked() -> Iterator[tuple[str, Tensor]]:
            rename = self._model.hf_to_vllm_mapper.get_rename_mapper().map_name
            for name, tensor in named_tensors:
                vllm_name = rename(name)
                if vllm_name not in expected:
                    raise ValueError(f"vLLM's {type(self._model).__name__} has no weight {name!r}")
                if vllm_name in seen:
                    raise ValueError(f"the weight {name!r} was pushed twice")
                seen.add(vllm_name)
                yield name, tensor
            if missing := sorted(expected - seen):
                raise ValueError(f"vLLM expects {len(missing)} weights that were not pushed: {missing[:8]}")

        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": checked()})
        self._refresh_tied_head()
        self.reset_prefix_cache()

    def reset_prefix_cache(self) -> None:
        """See :meth:`RolloutEngine.reset_prefix_cache`."""
        self._llm.reset_prefix_cache()

    def sleep(self, *, keep_weights: bool = False) -> None:
        """Free the GPU of weights and KV cache. They are discarded (vLLM's sleep level 2), since weights
        are pushed anew anyway; with ``keep_weights`` the host keeps a copy of the weights (level 1)."""
        if has_cuda():
            self._llm.sleep(level=1 if keep_weights else 2)

    def wake(self, what: EngineMemory) -> None:
        """Allocate ``what`` again on the GPU, and put weights back that were kept."""
        if has_cuda():
            self._llm.wake_up(tags=[what.value])

    def close(self) -> None:
        """Shut vLLM down on all ranks together; it destroys the default process group as well."""
        if dist.is_initialized():
            dist.barrier()
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm, self._model
        gc.collect()

    def _refresh_tied_head(self) -> None:
        """A tied head is no weight of its own, so the layerwise reload passes it by: vLLM's CPU build then
        goes on with the packed copy that it made of the head at load (``process_weights_after_loading``)."""
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

        if not self._model.config.tie_word_embeddings:
            return
        ends = [m for m in self._model.modules() if isinstance(m, VocabParallelEmbedding)]
        (embedding,) = (m for m in ends if not isinstance(m, ParallelLMHead))
        for head in ends:
            if head is not embedding:
                head.tie_weights(embedding)
                head.quant_method.process_weights_after_loading(head)

    def _expected_weights(self) -> set[str]:
        """Names of all weights as vLLM calls them, fused ones by their parts (q_proj, k_proj, …)."""
        names = set()
        for name, _ in self._model.named_parameters():
            for fused, parts in self._model.packed_modules_mapping.items():
                if f".{fused}." in name:
                    names |= {name.replace(f".{fused}.", f".{part}.") for part in parts}
                    break
            else:
                names.add(name)
        return names

    def _completion(self, sample) -> Completion:
        token_ids = tuple(sample.token_ids)
        return Completion(
            token_ids=token_ids,
            logprobs=tuple(sample.logprobs.logprobs),
            text=self._tokenizer.decode(token_ids, skip_special_tokens=True),
            truncated=sample.finish_reason == "length",
        )
