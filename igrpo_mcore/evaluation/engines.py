"""The engines of a run's own kind with a checkpoint's weights, and nothing that only training needs."""

from pathlib import Path

from igrpo_mcore import device
from igrpo_mcore.config.schema import Config
from igrpo_mcore.data.tokenizer import load_tokenizer
from igrpo_mcore.dtypes import torch_dtype
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.architecture import check_layout, load_hf_config
from igrpo_mcore.policy.checkpoint import load_parameters
from igrpo_mcore.policy.model import build_model
from igrpo_mcore.policy.parallel import start_process_groups, world_size
from igrpo_mcore.rollout.sampler import Sampler
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.weights.checkpoint import resolve_checkpoint
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher


def start_sampler(config: Config, checkpoint: Path | None) -> Sampler:
    """Start this rank's engine with the weights of ``checkpoint`` (None: of ``model.path``). Collective.

    The weights come through the train layout, as a run's do: read, pushed, and then let go, so no optimizer
    is made. ``Sampler.close`` ends it.

    Raises:
        UserError: a layout that does not fit, a damaged checkpoint, or one of another model.
    """
    hf_config = load_hf_config(config.model.path)
    architecture = architecture_of(hf_config, config.model.dtype)
    check_layout(architecture, config.parallel, config.rollout.tp, world_size())
    tokenizer = load_tokenizer(config.model.path)
    start_process_groups(config.parallel, config.train.seed, config.run.hang_minutes)
    with device.megatron_on_cpu():
        chunks = build_model(architecture, config.parallel, config.model, config.rollout.longest_sequence)
        for chunk in chunks:
            chunk.to(device.current_device())
    if checkpoint is None:
        load_hf_weights(chunks, resolve_checkpoint(config.model.path), hf_config)
    else:
        CheckpointFolder(checkpoint.parent).read(checkpoint)
        load_parameters(chunks, checkpoint)
    seed = config.train.seed
    engine = VLLMEngine(config.model.path, config.rollout, config.model.dtype, tokenizer, seed=seed)
    pusher = Pusher(
        chunks,
        hf_config,
        rollout_tp=config.rollout.tp,
        bucket_bytes=config.rollout.push_bucket_bytes,
        dtype=torch_dtype(config.model.dtype),
    )
    pusher.push(engine)
    return Sampler(config, engine, tokenizer, Phases(), trains=False)
