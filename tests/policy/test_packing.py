"""Packed rows: what every sequence of a row sees, with its prompt laid once or with each completion."""

import pytest
import torch

from igrpo_mcore.policy.packing import pack, split_by_tokens
from tests.policy.sequences import training_batch

CPU = torch.device("cpu")


@pytest.mark.parametrize("multiple", [1, 8])
def test_a_shared_row_holds_each_prompt_once_and_every_sequence_whole(multiple):
    sequences = training_batch()
    members = [0, 1, 2, 5, 4, 8]  # of three groups, one out of order
    row = pack(sequences, members, multiple, CPU, share_prompts=True)
    apart = pack(sequences, members, multiple, CPU)
    prompts = {sequences[m].prompt_ids for m in members}
    whole = sum(map(len, prompts)) + sum(len(sequences[m].completion_ids) for m in members)
    assert row.tokens_T.numel() == whole + -whole % multiple < apart.tokens_T.numel()
    assert row.view is not None
    assert row.cu_seqlens.tolist() == [0, row.tokens_T.numel()]
    padded, positions = row.view.pad(row.tokens_T), row.view.pad(row.positions_T)
    for index, member in enumerate(members):
        sequence = sequences[member]
        assert padded[index, : len(sequence)].tolist() == [*sequence.prompt_ids, *sequence.completion_ids]
        assert positions[index, : len(sequence)].tolist() == list(range(len(sequence)))
    # the same response rows, seen through the tokens and positions that lead to them
    assert row.target_R.tolist() == apart.target_R.tolist()
    assert row.sequence_R.tolist() == apart.sequence_R.tolist()
    for values in ("tokens_T", "positions_T"):
        ours, theirs = getattr(row, values)[row.rows_R], getattr(apart, values)[apart.rows_R]
        assert ours.tolist() == theirs.tolist()


def test_a_shared_rows_view_goes_there_and_back():
    row = pack(training_batch(), [3, 4, 5, 6], 4, CPU, share_prompts=True)
    assert row.view is not None
    x = torch.randn(row.tokens_T.numel(), 2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(row.view.unpad(row.view.pad(x)), x)


def test_an_empty_row_is_padding_alone():
    row = pack(training_batch(), [], 4, CPU, share_prompts=True)
    assert row.view is not None
    assert row.tokens_T.numel() == 4
    assert row.rows_R.numel() == row.target_R.numel() == 0
    assert row.view.pad(row.tokens_T).shape == (1, 4)


def test_what_is_dealt_first_is_balanced_alone():
    lengths, first = [9, 9, 1, 1, 9, 9, 1, 1], [True, False, True, True, False, True, True, True]
    dealt = split_by_tokens(lengths, 2, first)
    assert sorted(dealt[0] + dealt[1]) == list(range(8))
    assert [sum(lengths[i] for i in part if first[i]) for part in dealt] == [11, 11]
    assert [sum(lengths[i] for i in part) for part in dealt] == [20, 20]
