"""vLLM as the rollout engine, colocated: it lives in the trainer's ranks (``external_launcher``).

The only file that imports vLLM (0.32). The default process group must exist; engine e of
``world_size // rollout.tp`` holds the consecutive ranks [e·tp, (e+1)·tp), and every rank of the
world constructs and closes its engine together (vLLM builds its own groups over the whole world).
In between, engines are independent of each other.
"""

import gc
import logging
import os
import random
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch._dynamo.config
import torch.distributed as dist
from torch import Tensor
from transformers import AutoConfig, PreTrainedTokenizerBase

from igrpo_mcore.config.schema import DType, RolloutConfig
from igrpo_mcore.device import has_cuda
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of
from igrpo_mcore.loading import loading
from igrpo_mcore.rollout.engine import EngineMemory, Sampling
from igrpo_mcore.run.progress import beat
from igrpo_mcore.types import Completion, SampleKey

CPU_BLOCK_SIZE = 32
"""Tokens a KV-cache block on the CPU, where vLLM's attention kernel wants a multiple of 32."""


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
        _set_environment()
        with _trainer_state_kept(), _waiting_asleep():
            with loading():
                _register_architecture(model_path)
            self._llm = _start(model_path, rollout, dtype, seed, load_format)
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


def _set_environment() -> None:
    """What vLLM reads from the environment; must be set before it is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if "VLLM_LOGGING_LEVEL" not in os.environ:
        # every rank would repeat the same notes about Triton, CUDA_HOME and torch's old names
        os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
        for name in ("vllm", "torch.utils.cpp_extension"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", "`torch.distributed.reduce_op` is deprecated", FutureWarning)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("RANK", str(dist.get_rank()))
    os.environ.setdefault("LOCAL_RANK", "0")
    if not has_cuda():
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        # vLLM's sampler would compile one small function: seconds in every rank, more where g++ runs first
        torch._dynamo.config.disable = True


def _register_architecture(model_path: str) -> None:
    """Import the model class here; otherwise vLLM starts a process that imports all of vLLM to look at it."""
    from vllm import ModelRegistry

    for architecture in AutoConfig.from_pretrained(model_path).architectures or ():
        entry = ModelRegistry.models.get(architecture)
        if entry is None:
            raise UserError(f"vLLM does not know the architecture {architecture} of {model_path}.")
        ModelRegistry.register_model(architecture, entry.load_model_cls())


@contextmanager
def _trainer_state_kept() -> Iterator[None]:
    """vLLM reseeds every RNG (its import draws as well) and replaces ``torch.set_num_threads``: undo that."""
    torch_rng, numpy_rng, python_rng = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda_rng = torch.cuda.get_rng_state() if has_cuda() else None
    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads = set_num_threads
        if torch.get_num_threads() != num_threads:
            torch.set_num_threads(num_threads)
        torch.set_rng_state(torch_rng)
        np.random.set_state(numpy_rng)
        random.setstate(python_rng)
        if cuda_rng is not None:
            torch.cuda.set_rng_state(cuda_rng)


def _start(model_path: str, rollout: RolloutConfig, dtype: DType, seed: int, load_format: str):
    from vllm import LLM

    arguments = {
        "model": model_path,
        "load_format": load_format,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # not the checkpoint's: Sampling says everything
        "dtype": str(dtype),
        "tensor_parallel_size": rollout.tp,
        "distributed_executor_backend": "external_launcher",
        "seed": seed,
        "max_model_len": rollout.longest_sequence,
        "max_num_seqs": rollout.max_concurrent_sequences,
        "logprobs_mode": "processed_logprobs",  # at the sampling temperature
        "disable_log_stats": True,
    }
    if has_cuda():
        arguments |= {
            "enable_sleep_mode": True,
            "gpu_memory_utilization": rollout.memory_fraction,
            "enforce_eager": rollout.enforce_eager,
        }
    else:
        arguments |= {
            "enforce_eager": True,
            "block_size": CPU_BLOCK_SIZE,
            "kv_cache_memory_bytes": rollout.kv_cache_bytes,
        }
        if architecture_of(AutoConfig.from_pretrained(model_path)).mamba:
            arguments["enable_prefix_caching"] = False  # Mamba states are not cached on the CPU
    try:
        return LLM(**arguments)
    except ValueError as error:  # what vLLM checks are settings: lengths, memory, head counts
        raise UserError(f"vLLM does not start with these settings: {error}") from error


@contextmanager
def _waiting_asleep() -> Iterator[None]:
    """Engines made inside reduce over gloo on the CPU, where vLLM would take shared memory of its own.

    Its ranks wait for each other by spinning: with fewer cores than ranks a stage that needs 0.3 s
    took up to 19 s. It also takes the same name in every job (errno 17 beside another, or after a crash).
    """
    if has_cuda():
        yield
        return
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator

    upstream = CpuCommunicator._all_group_ranks_share_shm_group_name
    CpuCommunicator._all_group_ranks_share_shm_group_name = lambda self: False
    try:
        yield
    finally:
        CpuCommunicator._all_group_ranks_share_shm_group_name = upstream
