"""Planned models of small transformers configs, and Megatron without any other rank."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from igrpo_mcore.config.schema import Config, DType
from igrpo_mcore.families import architecture_of, table_for
from igrpo_mcore.planning.catalogue import PlannedModel
from igrpo_mcore.policy.parallel import start_process_groups


def planned(hf_config: Any, dtype: str = "bfloat16") -> PlannedModel:
    return PlannedModel("test", "test", hf_config, architecture_of(hf_config, dtype), table_for(hf_config))


def options(tp: int = 1, pp: int = 1, vpp: int = 1, dtype: str = "bfloat16") -> Config:
    config = Config()
    config.model.path, config.model.dtype = "test", DType(dtype)
    config.parallel.tp, config.parallel.pp, config.parallel.vpp, config.parallel.sp = tp, pp, vpp, tp > 1
    return config


@contextmanager
def lone_rank(config: Config, rank: int, world: int) -> Iterator[None]:
    """Inside, the process is ``rank`` of ``world`` for Megatron; collectives do nothing (fake backend)."""
    from megatron.core import parallel_state

    real = dist.new_group

    def new_group(*args: Any, **kwargs: Any):
        return real(*args, **(kwargs | {"backend": None}))  # not gloo, which would look for the others

    rng = torch.get_rng_state()
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        with patch.object(dist, "new_group", new_group):
            start_process_groups(config.parallel, 0)
        yield
    finally:
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()
        torch.set_rng_state(rng)
