"""Networks, their losses, and tools that cut, repair and count them."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    _message = (
        'sklcomp.nn needs PyTorch, which is missing: pip install "sklcomp[torch]".'
    )
    raise ImportError(_message) from _error

from sklcomp.nn._architectures import (
    CifarResNet,
    CycleGANGenerator,
    HintonNet,
    LeNet,
    LeNet5,
    PatchDiscriminator,
    SmallVGG,
)
from sklcomp.nn._losses import LocalityPreservingLoss, kd_loss
from sklcomp.nn.surgery._compensation import collect_covariances
from sklcomp.nn.surgery._cost import count_macs, count_parameters, measure_latency
from sklcomp.nn.surgery._cut import prune_channels
from sklcomp.nn.surgery._folding import fold_batchnorm
from sklcomp.nn.surgery._graph import ChannelGraph
from sklcomp.nn.surgery._mask import mask_channels
from sklcomp.nn.surgery._order import elimination_order, keep_fraction
from sklcomp.nn.surgery._trace_channels import trace_channels
from sklcomp.nn.synthesis._generators import DAFLGenerator, DenseGenerator
from sklcomp.nn.synthesis._losses import (
    BatchNormStatistics,
    activation_loss,
    adversarial_loss,
    entropy_loss,
    feature_loss,
    onehot_loss,
)
from sklcomp.nn.synthesis._noise import structured_noise

__all__ = [
    "BatchNormStatistics",
    "ChannelGraph",
    "CifarResNet",
    "CycleGANGenerator",
    "DAFLGenerator",
    "DenseGenerator",
    "HintonNet",
    "LeNet",
    "LeNet5",
    "LocalityPreservingLoss",
    "PatchDiscriminator",
    "SmallVGG",
    "activation_loss",
    "adversarial_loss",
    "collect_covariances",
    "count_macs",
    "count_parameters",
    "elimination_order",
    "entropy_loss",
    "feature_loss",
    "fold_batchnorm",
    "kd_loss",
    "keep_fraction",
    "mask_channels",
    "measure_latency",
    "onehot_loss",
    "prune_channels",
    "structured_noise",
    "trace_channels",
]
