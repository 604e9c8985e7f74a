"""Tools for networks: remove channels, repair what is left, count what it costs."""

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
    LeNet,
    SmallVGG,
)
from sklcomp.nn._channels import mask_channels, prune_channels, trace_channels
from sklcomp.nn._compensation import collect_covariances
from sklcomp.nn._cost import count_macs, count_parameters, measure_latency
from sklcomp.nn._elimination import elimination_order, keep_fraction
from sklcomp.nn._graph import ChannelGraph
from sklcomp.nn._losses import LocalityPreservingLoss, kd_loss

__all__ = [
    "ChannelGraph",
    "CifarResNet",
    "CycleGANGenerator",
    "LeNet",
    "LocalityPreservingLoss",
    "SmallVGG",
    "collect_covariances",
    "count_macs",
    "count_parameters",
    "elimination_order",
    "kd_loss",
    "keep_fraction",
    "mask_channels",
    "measure_latency",
    "prune_channels",
    "trace_channels",
]
