"""Bring what a recipe names on the hub into its cache (HF_HOME), once, before the ranks start.

    python -m igrpo_mcore.fetch RECIPE [key=value ...]

Ranks then read the cache with HF_HUB_OFFLINE=1: eight a node asking the hub at once is refused by it.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config
from igrpo_mcore.errors import UserError
from igrpo_mcore.hub import is_remote


def on_the_hub(config: Config) -> list[str]:
    """The names of a model and of data sets that are not on this machine's disk, each once."""
    from igrpo_mcore.data.problems import sets_of

    held_out = [config.eval.path] if config.eval.every and config.eval.path else []
    named = dict.fromkeys([config.model.path, *(of_set.path for of_set in sets_of(config.data)), *held_out])
    return [name for name in named if is_remote(name)]


def not_here(error: BaseException, names: Iterable[str]) -> list[str]:
    """The hub ids of ``names``, where ``error`` comes of reading them; none where what was read is wrong."""
    unread = isinstance(error.__cause__ or error, OSError)
    return [name for name in names if unread and is_remote(name)]


def fetch(config: Config) -> list[str]:
    """Read all that the ranks will read of the hub; the names that were read.

    Raises:
        UserError: one cannot be read.
    """
    wanted = on_the_hub(config)
    if config.model.path in wanted:
        from igrpo_mcore.data.tokenizer import load_tokenizer
        from igrpo_mcore.policy.architecture import load_hf_config
        from igrpo_mcore.weights.checkpoint import resolve_checkpoint

        load_hf_config(config.model.path)
        load_tokenizer(config.model.path)
        resolve_checkpoint(config.model.path)
    if set(wanted) - {config.model.path}:
        from igrpo_mcore.data.problems import held_out_problems, load_sets

        load_sets(config.data)
        if config.eval.every:
            held_out_problems(config)
    return wanted


def main(
    recipe: Annotated[Path, typer.Argument(help="YAML file of options.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Options as key=value.")] = None,
) -> None:
    try:
        found = fetch(load_config(recipe, overrides))
    except UserError as error:
        print(f"igrpo: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    for name in found:
        print(f"igrpo: {name} is in the hub's cache")


if __name__ == "__main__":
    typer.run(main)
