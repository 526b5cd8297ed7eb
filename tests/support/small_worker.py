"""Ranks that say who they are, that fail, or that never end: ``WHAT``."""

import os
import subprocess
import sys
import time


def main() -> None:
    what, rank = sys.argv[1], os.environ["RANK"]
    environment = {name: os.environ[name] for name in ("WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS")}
    print(f"rank {rank} of {environment} hashes to {hash('a string')}", flush=True)
    if what == "hang":
        subprocess.Popen(["sleep", "1234.5"])
    if what == "hang" or (what == "fail" and rank != "1"):
        time.sleep(600)
    if what == "fail":
        raise RuntimeError("rank 1 cannot go on")
