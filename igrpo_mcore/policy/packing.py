"""Packed rows (THD): several sequences in one row of tokens, no padding to the longest."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igrpo_mcore.types import TrainingSequence

Indices = NDArray[np.int64]


def to_device(arrays: list[Indices], device: torch.device) -> list[Tensor]:
    """int64 arrays as tensors on ``device``, in one copy."""
    return list(torch.from_numpy(np.concatenate(arrays)).to(device).split([len(a) for a in arrays]))


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
        numbers = torch.arange(self.sequences, device=cu_seqlens.device)
        segment = torch.repeat_interleave(numbers, lengths, output_size=total)
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

    def __init__(self, rows_of: list[Indices], total: int, device: torch.device) -> None:
        """``rows_of``: of each sequence, where in the row its tokens are."""
        self.sequences, self.longest = len(rows_of), max(map(len, rows_of))
        index = np.zeros((self.sequences, self.longest), dtype=np.int64)
        home = np.zeros(total, dtype=np.int64)
        for sequence in reversed(range(self.sequences)):  # a shared token's home is its first sequence
            rows = rows_of[sequence]
            index[sequence, : len(rows)] = rows
            home[rows] = sequence * self.longest + np.arange(len(rows))
        self._index, self._home = to_device([index.ravel(), home], device)

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
    to a multiple the sequence-parallel group needs) is a sequence of its own, ``sequence_T`` int32 the
    sequence that each token was laid with; ``rows_R`` are the rows whose next token is a completion
    token (the only ones that reach the LM head); ``target_R`` those tokens; ``sequence_R`` the index in
    ``members`` each belongs to; ``members`` the positions of the packed sequences in the list given to
    ``pack``, ``lengths`` their completions' tokens. Where prompts are shared ``view`` says which tokens
    are a sequence, and ``cu_seqlens`` has the whole row as one. ``tokens`` are those of the row without
    padding, ``pairs`` the tokens that they see, themselves included.
    """

    tokens_T: Tensor
    positions_T: Tensor
    cu_seqlens: Tensor
    longest: int
    sequence_T: Tensor
    rows_R: Tensor
    target_R: Tensor
    sequence_R: Tensor
    members: list[int]
    lengths: list[int]
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
    tokens: list[Indices] = []
    positions: list[Indices] = []
    rows: list[Indices] = []
    rows_of: list[Indices] = []
    prompt_at: dict[tuple[int, ...], int] = {}
    boundaries, total = [0], 0

    def lay(values: Indices, first_position: int) -> Indices:
        nonlocal total
        tokens.append(values)
        positions.append(np.arange(first_position, first_position + len(values)))
        total += len(values)
        return np.arange(total - len(values), total)

    for member in members:
        prompt, completion = sequences[member].prompt_ids, sequences[member].completion_ids
        start = prompt_at.get(prompt)
        if start is None:
            start = total
            lay(np.array(prompt, dtype=np.int64), 0)
            if share_prompts:
                prompt_at[prompt] = start
        question = np.arange(start, start + len(prompt))
        answer = lay(np.array(completion, dtype=np.int64), len(prompt))
        boundaries.append(total)
        rows_of.append(np.concatenate([question, answer]))
        rows.append(rows_of[-1][len(prompt) - 1 : -1])
    real, pairs = total, sum(int(part.sum()) + len(part) for part in positions)
    if tail := -total % multiple or (0 if total else multiple):
        rows_of.append(lay(np.zeros(tail, dtype=np.int64), 0))
        boundaries.append(total)
    lengths = [len(sequences[member].completion_ids) for member in members]
    arrays = [
        np.concatenate(tokens),
        np.concatenate(positions),
        np.concatenate([*rows, np.zeros(0, dtype=np.int64)]),
        np.array([t for member in members for t in sequences[member].completion_ids], dtype=np.int64),
        np.repeat(np.arange(len(members)), np.array(lengths, dtype=np.int64)),
        np.array([0, total] if share_prompts else boundaries),
        np.repeat(np.arange(len(rows_of)), np.diff(boundaries)),
    ]
    tokens_T, positions_T, rows_R, target_R, sequence_R, cu_seqlens, sequence_T = to_device(arrays, device)
    return PackedRow(
        tokens_T=tokens_T,
        positions_T=positions_T,
        cu_seqlens=cu_seqlens.int(),
        longest=max(map(len, rows_of)),
        sequence_T=sequence_T.int(),
        rows_R=rows_R,
        target_R=target_R,
        sequence_R=sequence_R,
        members=members,
        lengths=lengths,
        tokens=real,
        pairs=pairs,
        view=SharedPromptView(rows_of, total, device) if share_prompts else None,
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


def deal(
    sequences: list[TrainingSequence], ranks: int, budget: int, wanted: list[bool] | None, multiple: int
) -> list[list[list[int]]]:
    """Micro-batches of each data-parallel rank, equally many on all: at least one, and a multiple of
    ``multiple``; those that fall short get empty ones.

    ``wanted`` leaves sequences out. It has no say in which rank a sequence falls to: a rank's log-probs
    are those of the sequences that it updates on.
    """
    lengths = [len(s) for s in sequences]
    dealt = split_by_tokens(lengths, ranks, first=[s.advantage != 0 for s in sequences])
    parts = [
        micro_batches(lengths, [i for i in part if wanted is None or wanted[i]], budget) for part in dealt
    ]
    count = -(-max(1, *map(len, parts)) // multiple) * multiple
    return [part + [[] for _ in range(count - len(part))] for part in parts]


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
