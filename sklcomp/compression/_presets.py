"""The published settings, and ours."""

from typing import Any

# Uniform networks of these shares are scored too, so that the front spans all sizes.
FRONT_SHARES = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)

_DAFL: dict[str, Any] = {
    "conditional": False, "head": "batchnorm", "generator_width": 128,
    "bn_weight": 0.0, "adversarial_weight": 0.0, "feature_weight": 0.0,
    "temperature": 1.0, "replay_size": 0, "student_steps": 1, "reinit_every": 0,
    "augmentation": 0.0, "averaging": 0.0, "student_batchnorm": False,
    "noise_share": 0.0, "noise_kinds": ("strokes", "strokes", "lines", "blobs"),
}  # fmt: skip
_CIFAR: dict[str, Any] = _DAFL | {
    "latent_dim": 1000, "generator_batch_size": 1024, "batch_size": 1024,
    "generator_lr": 0.02, "student_optimizer": "sgd", "student_lr": 0.1,
    "schedule": "steps", "n_iterations": 240_000,
}  # fmt: skip
_FAST: dict[str, Any] = {
    "generator_width": 16, "latent_dim": 64, "generator_batch_size": 64,
    "batch_size": 128, "onehot_weight": 1.0, "activation_weight": 0.0,
    "temperature": 8.0, "replay_size": 20_000, "generator_lr": 2e-3,
    "student_optimizer": "adam", "student_lr": 0.016, "schedule": "cosine",
    "averaging": 0.995, "student_batchnorm": True,
    "noise_kinds": ("strokes", "strokes", "lines", "blobs"),
}  # fmt: skip
# Of trainings without data.
SYNTHESIS: dict[str, dict[str, Any]] = {
    "paper-mnist": _DAFL | {
        "latent_dim": 100, "generator_batch_size": 512, "batch_size": 512,
        "onehot_weight": 1.0, "entropy_weight": 5.0, "activation_weight": 0.1,
        "generator_lr": 0.2, "student_optimizer": "adam", "student_lr": 2e-3,
        "schedule": "constant", "n_iterations": 24_000,
    },
    "paper-cifar10": _CIFAR | {
        "onehot_weight": 0.05, "entropy_weight": 5.0, "activation_weight": 0.01,
    },
    "paper-cifar100": _CIFAR | {
        "onehot_weight": 0.5, "entropy_weight": 20.0, "activation_weight": 0.1,
    },
    "fast": _FAST | {
        "conditional": True, "head": "range", "entropy_weight": 0.0, "bn_weight": 0.0,
        "adversarial_weight": 1.0, "feature_weight": 0.3, "student_steps": 15,
        "reinit_every": 80, "augmentation": 1.0, "noise_share": 0.5,
        "n_iterations": 150,
    },
    "fast-bn": _FAST | {
        "conditional": False, "head": "batchnorm", "entropy_weight": 5.0,
        "bn_weight": 1.0, "adversarial_weight": 0.0, "feature_weight": 0.0,
        "student_steps": 8, "reinit_every": 0, "augmentation": 0.5,
        "noise_share": 0.0, "batch_size": 64, "n_iterations": 300,
    },
}  # fmt: skip
