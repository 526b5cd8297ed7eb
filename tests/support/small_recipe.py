"""A recipe of a small random checkpoint on twenty sums, for whole runs by the command line."""

from pathlib import Path

from tests.support.checkpoints import make_checkpoint


def sums(folder: Path) -> Path:
    """``folder/problems.jsonl``: 10+10= to 29+29=, as a base model is asked."""
    data = folder / "problems.jsonl"
    data.write_text("".join(f'{{"problem": "{i}+{i}=", "answer": "{2 * i}"}}\n' for i in range(10, 30)))
    return data


def small_recipe(folder: Path, options: str, *, layers: int = 4) -> Path:
    """``folder/recipe.yaml``: a Qwen3 of ``layers`` layers in fp32 on ``sums``, and further YAML lines."""
    checkpoint = make_checkpoint(folder / "checkpoint", "qwen3", layers=layers)
    path = folder / "recipe.yaml"
    path.write_text(
        f"model: {{path: {checkpoint}, dtype: float32}}\ndata: {{path: {sums(folder)}}}\n{options}"
    )
    return path
