"""Importing the heavy libraries without the garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Collect nothing while modules load, and leave what they made out of every later collection.

    Megatron-Core, transformers and vLLM leave a few million objects that live to the end: each full
    collection over them takes a third of a second, and importing asks for many.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
