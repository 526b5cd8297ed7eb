"""A run that was asked to stop, whose rank 0 has its page still to write when the others are done."""

import os
import time

import torch.distributed as dist

from igrpo_mcore import cli
from igrpo_mcore.run.stop_signal import Stopped


def stop_at_once(**_: object) -> None:
    dist.init_process_group("gloo")
    if os.environ["RANK"] == "0":
        time.sleep(4)
        print("the page is written", flush=True)
    raise Stopped(3)


def main() -> None:
    cli.app = stop_at_once
    cli.main()
