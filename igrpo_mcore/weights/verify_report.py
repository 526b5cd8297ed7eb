"""What a verification found, by tensor family."""

import re
from dataclasses import dataclass

_FAMILIES = (
    ("embedding", r"embed_tokens|embeddings"),
    ("head", r"^lm_head"),
    ("experts", r"experts|mlp\.gate\.|mixer\.gate\."),
    ("attention", r"self_attn|mixer\.[qkvo]_proj"),
    ("mlp", r"mlp\.|mixer\.(up|down)_proj"),
    ("mamba", r"mixer\."),
    ("norm", r"norm"),
)


def tensor_family(name: str) -> str:
    """The line of the table that a Hugging Face tensor is counted under."""
    return next((family for family, pattern in _FAMILIES if re.search(pattern, name)), "other")


@dataclass(frozen=True)
class Mismatch:
    """One tensor that differs, and between which two places."""

    tensor: str
    where: str


@dataclass(frozen=True)
class FamilyRow:
    """Counts of one tensor family over all ranks. ``read_back`` is how many tensors were read out
    of the engine itself, as it computes with them.

    A tied head is a tensor of its own here, of no bytes: it travels as the embedding.
    """

    family: str
    tensors: int
    bytes: int
    read_back: int
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify_weights`` found, the same on every rank."""

    rows: tuple[FamilyRow, ...]

    @property
    def mismatches(self) -> tuple[Mismatch, ...]:
        return tuple(m for row in self.rows for m in row.mismatches)

    @property
    def ok(self) -> bool:
        return not self.mismatches

    def table(self) -> str:
        """A line a tensor family, then a line a tensor that differs."""
        lines = [f"{'family':<10} {'tensors':>8} {'MB':>10} {'read back':>10} {'differ':>7}"]
        for row in self.rows:
            lines.append(
                f"{row.family:<10} {row.tensors:>8} {row.bytes / 1e6:>10.2f} {row.read_back:>10} "
                f"{len({m.tensor for m in row.mismatches}):>7}"
            )
        lines += [f"DIFFERS {m.tensor}: {m.where}" for m in self.mismatches]
        return "\n".join(lines)
