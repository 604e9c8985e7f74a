import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.compression._outputs import count_outputs

X = np.zeros((3, 4), np.float32)


class Answers(nn.Module):
    """A network whose forward gives what it is told."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def count(module):
    return count_outputs(module, X, "net", "n_classes")


def test_columns_of_the_answer_are_counted():
    assert count(nn.Linear(4, 7)) == 7
    assert count(Answers(lambda x: (x[:, :3], x))) == 3


def test_a_trial_changes_neither_the_network_nor_the_examples():
    norm = nn.BatchNorm1d(4)
    net = nn.Sequential(norm, Answers(lambda x: x.add_(1.0)))
    assert count(net) == 4
    assert net.training
    assert norm.num_batches_tracked == 0
    np.testing.assert_array_equal(X, 0.0)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(5, 2), r"cannot take X of shape \(n, 4\) and dtype float32"),
        (nn.Linear(4, 2).double(), r"deepcopy\(module\).float\(\): its weights are f"),
        (nn.Linear(4, 2, device="meta"), "weights have no values"),
        (Answers(lambda x: x[:, 0]), r"gives outputs of shape \(2,\) for 2 examples"),
        (Answers(lambda x: "none"), r"gives a str for 2 .* tensor \(2, n_classes\)"),
    ],
)
def test_what_cannot_be_counted_is_said(module, message):
    with pytest.raises(ValueError, match=message):
        count(module)


def test_a_full_memory_is_no_fault_of_the_shape():
    def answer(x):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError, match="full"):
        count(Answers(answer))
