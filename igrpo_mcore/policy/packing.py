"""Packed rows (THD): several sequences in one row of tokens, no padding to the longest."""

from dataclasses import dataclass

import torch
from torch import Tensor

from igrpo_mcore.types import TrainingSequence


class PaddedView:
    """Moves a packed row [T, ...] to a padded batch [S, longest, ...] and back.

    For layers without a variable-length kernel (SDPA and the PyTorch scan). Tokens after the last
    boundary form one more sequence.
    """

    def __init__(self, cu_seqlens: Tensor, total: int) -> None:
        cu_seqlens = cu_seqlens.long()
        if int(cu_seqlens[-1]) < total:
            cu_seqlens = torch.cat([cu_seqlens, cu_seqlens.new_tensor([total])])
        lengths = cu_seqlens.diff()
        self.sequences, self.longest = lengths.numel(), int(lengths.max())
        segment = torch.repeat_interleave(torch.arange(self.sequences, device=cu_seqlens.device), lengths)
        offset = torch.arange(total, device=cu_seqlens.device) - cu_seqlens[segment]
        self._index = segment * self.longest + offset

    def pad(self, x: Tensor) -> Tensor:
        """[T, ...] -> [S, longest, ...], zeros elsewhere."""
        flat = x.new_zeros(self.sequences * self.longest, *x.shape[1:]).index_copy(0, self._index, x)
        return flat.unflatten(0, (self.sequences, self.longest))

    def unpad(self, x: Tensor) -> Tensor:
        """[S, longest, ...] -> [T, ...]."""
        return x.flatten(0, 1).index_select(0, self._index)


class SharedPromptView:
    """As ``PaddedView``, for a row that holds each prompt once: [T, ...] to [S, longest, ...] and back.

    Every sequence is given its prompt's tokens, so gradients of a prompt sum over its completions.
    Padding repeats the row's first token; attention is causal, so nothing reads it.
    """

    def __init__(self, rows_of: list[list[int]], total: int, device: torch.device) -> None:
        """``rows_of``: of each sequence, where in the row its tokens are."""
        self.sequences, self.longest = len(rows_of), max(map(len, rows_of))
        index = torch.zeros(self.sequences, self.longest, dtype=torch.int64)
        home = torch.zeros(total, dtype=torch.int64)
        for sequence in reversed(range(self.sequences)):  # a shared token's home is its first sequence
            rows = torch.tensor(rows_of[sequence])
            index[sequence, : len(rows)] = rows
            home[rows] = sequence * self.longest + torch.arange(len(rows))
        self._index, self._home = index.flatten().to(device), home.to(device)

    def pad(self, x: Tensor) -> Tensor:
        """[T, ...] -> [S, longest, ...]."""
        return x.index_select(0, self._index).unflatten(0, (self.sequences, self.longest))

    def unpad(self, x: Tensor) -> Tensor:
        """[S, longest, ...] -> [T, ...]."""
        return x.flatten(0, 1).index_select(0, self._home)


@dataclass
class PackedRow:
    """Sequences laid end to end, ready for the model. T tokens, R response rows.

    ``tokens_T``/``positions_T`` int64; ``cu_seqlens`` int32 [S + 1] where tail padding (T rounded up
    to a multiple the sequence-parallel group needs) is a sequence of its own; ``rows_R`` are the
    rows whose next token is a completion token (the only ones that reach the LM head);
    ``target_R`` those tokens; ``sequence_R`` the index in ``members`` each belongs to; ``members``
    the positions of the packed sequences in the list given to ``pack``. Where prompts are shared
    ``view`` says which tokens are a sequence, and ``cu_seqlens`` has the whole row as one. ``tokens`` are
    those of the row without padding, ``pairs`` the tokens that they see, themselves included.
    """

    tokens_T: Tensor
    positions_T: Tensor
    cu_seqlens: Tensor
    longest: int
    rows_R: Tensor
    target_R: Tensor
    sequence_R: Tensor
    members: list[int]
    tokens: int
    pairs: int
    view: SharedPromptView | None = None


def pack(
    sequences: list[TrainingSequence],
    members: list[int],
    multiple: int,
    device: torch.device,
    share_prompts: bool = False,
) -> PackedRow:
    """Lay ``sequences[i] for i in members`` end to end, padded at the tail to ``multiple`` tokens.

    An empty ``members`` gives a row of padding only, with no response rows: data-parallel ranks
    must run equally many micro-batches. ``share_prompts`` lays a prompt that several members have
    only once; the model must then read ``PackedRow.view`` and ``positions_T``.
    """
    tokens: list[int] = []
    positions: list[int] = []
    boundaries = [0]
    rows: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    rows_of: list[list[int]] = []
    prompt_at: dict[tuple[int, ...], int] = {}
    for index, member in enumerate(members):
        prompt, completion = sequences[member].prompt_ids, sequences[member].completion_ids
        start = prompt_at.get(prompt)
        if start is None:
            start = len(tokens)
            tokens += prompt
            positions += range(len(prompt))
            if share_prompts:
                prompt_at[prompt] = start
        answer = range(len(tokens), len(tokens) + len(completion))
        tokens += completion
        positions += range(len(prompt), len(prompt) + len(completion))
        boundaries.append(len(tokens))
        rows += [start + len(prompt) - 1, *answer[:-1]]
        targets += completion
        owner += [index] * len(completion)
        rows_of.append([*range(start, start + len(prompt)), *answer])
    real, pairs = len(tokens), sum(positions) + len(positions)
    tail = -len(tokens) % multiple or (multiple if not tokens else 0)
    if tail:
        rows_of.append([*range(len(tokens), len(tokens) + tail)])
        tokens += [0] * tail
        positions += range(tail)
        boundaries.append(len(tokens))

    def tensor(values: list[int], dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return PackedRow(
        tokens_T=tensor(tokens),
        positions_T=tensor(positions),
        cu_seqlens=tensor([0, len(tokens)] if share_prompts else boundaries, torch.int32),
        longest=max(map(len, rows_of)),
        rows_R=tensor(rows),
        target_R=tensor(targets),
        sequence_R=tensor(owner),
        members=members,
        tokens=real,
        pairs=pairs,
        view=SharedPromptView(rows_of, len(tokens), device) if share_prompts else None,
    )


def split_by_tokens(lengths: list[int], parts: int, first: list[bool] | None = None) -> list[list[int]]:
    """Deal indices to ``parts`` lists of nearly equal token counts, longest first (greedy LPT).

    Those that ``first`` marks are dealt before the others, so that they alone are nearly equal as well.
    """
    later = [not f for f in first] if first else [False] * len(lengths)
    totals = [0] * parts
    dealt: list[list[int]] = [[] for _ in range(parts)]
    for index in sorted(range(len(lengths)), key=lambda i: (later[i], -lengths[i], i)):
        part = totals.index(min(totals))
        totals[part] += lengths[index]
        dealt[part].append(index)
    return [sorted(part) for part in dealt]


def micro_batches(lengths: list[int], indices: list[int], budget: int) -> list[list[int]]:
    """Group ``indices`` in order into micro-batches of at most ``budget`` tokens.

    A sequence longer than the budget gets a micro-batch of its own.
    """
    batches: list[list[int]] = []
    room = 0
    for index in indices:
        if not batches or lengths[index] > room:
            batches.append([])
            room = budget
        batches[-1].append(index)
        room -= lengths[index]
    return batches
