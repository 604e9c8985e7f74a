"""Networks run without a trace."""

import torch
from torch import nn

from sklcomp.nn._running import reestimate_batch_norms


def test_batch_norms_take_the_statistics_of_the_examples():
    norm, X = nn.BatchNorm1d(3), torch.randn(40, 3) * 2 + 1
    reestimate_batch_norms(norm, X)
    torch.testing.assert_close(norm.running_mean, X.mean(0))
    torch.testing.assert_close(norm.running_var, X.var(0))
    assert norm.momentum == 0.1
    assert norm.training


def test_a_single_example_has_no_variance():
    norm = nn.BatchNorm1d(3)
    reestimate_batch_norms(norm, torch.randn(40, 3) * 2 + 1)
    before = norm.running_var.clone()
    reestimate_batch_norms(norm, torch.zeros(1, 3))
    torch.testing.assert_close(norm.running_var, before)
