"""CycleGANTranslator: translation between two domains without pairs."""

try:
    import skorch as _skorch  # noqa: F401
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    _message = (
        "sklcomp.translation needs PyTorch and skorch; one is missing: "
        'pip install "sklcomp[torch]".'
    )
    raise ImportError(_message) from _error

from sklcomp.translation._cyclegan import CycleGANTranslator

__all__ = ["CycleGANTranslator"]
