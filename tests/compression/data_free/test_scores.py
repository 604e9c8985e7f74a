import torch
from torch import nn

from sklcomp.compression.data_free import _scores
from sklcomp.compression.data_free._scores import draw_judges
from sklcomp.compression.data_free._sources import Inputs
from sklcomp.training._lesson import Teacher

INPUTS = Inputs((4,), (-1.0, 2.0), 0.2, 0.5)


def seeded():
    return torch.Generator().manual_seed(0)


def weights(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def test_judges_are_generators_of_their_own(monkeypatch):
    monkeypatch.setattr(_scores, "N_JUDGE_STEPS", 2)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    teacher = Teacher(module, "penultimate", True, INPUTS.noise(9, seeded()), "cpu")
    before = weights(teacher.module)
    torch.manual_seed(0)
    images = draw_judges(teacher, INPUTS, 3, 10, seeded())
    assert images.shape == (12, 4)  # a third each, rounded up
    assert torch.equal(weights(teacher.module), before)
    assert len({tuple(row) for row in images.tolist()}) == 12
    torch.manual_seed(0)
    assert torch.equal(draw_judges(teacher, INPUTS, 3, 10, seeded()), images)
