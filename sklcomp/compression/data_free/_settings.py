"""Checks of a training without data: what these networks and inputs allow.

``DataFreeDistiller`` calls them before and after the training.
"""

import math
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from sklcomp.compression._classes import name_classes
from sklcomp.compression.data_free._recipe import DataFreeRecipe
from sklcomp.compression.data_free._sources import Inputs
from sklcomp.nn import BatchNormStatistics
from sklcomp.nn._features import PENULTIMATE, capturing, check_layer
from sklcomp.nn._running import evaluating
from sklcomp.training._nets import first_output
from sklcomp.utils._layout import as_flat_rows, as_shape, check_row_length
from sklcomp.utils._messages import show, warn_user


def settle_recipe(
    recipe: DataFreeRecipe,
    params: dict[str, Any],
    teacher: nn.Module,
    inputs: Inputs,
    n_classes: int,
    n_norms: int,
) -> DataFreeRecipe:
    """The recipe without "auto", and with what these networks and inputs allow."""
    has_own = params["generator"] is not None
    conditional, head = recipe.conditional, recipe.head
    entropy_weight = recipe.entropy_weight
    if conditional == "auto":
        # The forward of a user's generator need not take labels.
        conditional = not has_own
    if entropy_weight == "auto":
        # Without classes to make, something else must ask for all of them.
        # 5 is the published weight for MNIST and CIFAR-10. It belongs to the base 10 of
        # the loss.
        entropy_weight = 5.0 if has_own or not conditional else 0.0
    if head == "auto":
        head = "batchnorm" if inputs.limits is None else "range"
    # A batch norm would give each batch moments that the limits rule out.
    if not inputs.has_possible_moments:
        head = "range"
    recipe = recipe.replace(
        conditional=conditional, entropy_weight=entropy_weight, head=head
    )
    if params["n_iterations"] is not None:
        recipe = recipe.replace(n_iterations=params["n_iterations"])
    if params["synthesis"] == "structured_noise":
        recipe = recipe.replace(noise_share=1.0)
    if recipe.bn_weight and not n_norms:
        warn_user(
            f"bn_weight={recipe.bn_weight} compares with the statistics of batch "
            f"norms, and the {type(teacher).__name__} has none that runs: it is left "
            "out."
        )
        recipe = recipe.replace(bn_weight=0.0)
    _warn_of_doubts(recipe, params["synthesis"], inputs, n_classes)
    return recipe


def _warn_of_doubts(
    recipe: DataFreeRecipe, synthesis: str, inputs: Inputs, n_classes: int
) -> None:
    """Warn of batches too small for their losses, and of moments that cannot be."""
    # Balance is a property of a batch: 64 images cannot hold 100 classes equally.
    least = 4 * n_classes
    is_small = recipe.generator_batch_size < least
    if synthesis == "generator" and recipe.entropy_weight and is_small:
        warn_user(
            f"generator_batch_size={recipe.generator_batch_size} is too small to "
            f"hold all of {n_classes} classes, which entropy_weight asks for; choose "
            f"{least} or more."
        )
    if inputs.limits is not None and not inputs.has_possible_moments:
        warn_user(
            f"values between {inputs.limits[0]} and {inputs.limits[1]} cannot have "
            f"input_mean={inputs.mean} and input_std={inputs.std}; give those of the "
            "teacher's training data."
        )


def check_inputs(params: dict[str, Any], X: np.ndarray | None) -> Inputs:
    """Shape and range of an example, as far as they are told."""
    shape = params["input_shape"]
    if shape is None:
        if X is None:
            msg = (
                "input_shape=None: without X, give the shape of one example, "
                "(channels, height, width) or (n_features,)."
            )
            raise ValueError(msg)
        shape = X.shape[1:]
    shape = as_shape(shape, "input_shape", example="(3, 32, 32) or (64,)")
    if len(shape) not in (1, 3):
        msg = (
            f"input_shape={show(shape)}: give (channels, height, width) or "
            "(n_features,)."
        )
        raise ValueError(msg)
    if X is not None:
        check_row_length(as_flat_rows(X), shape, "input_shape")
    limits = params["input_range"]
    if limits is not None:
        ends = [_numbers(end, "input_range", shape) for end in limits]
        if len(ends) != 2 or not np.less(*ends).all():
            msg = f"input_range={show(limits)}: give two values, the smaller one first."
            raise ValueError(msg)
        low, high = np.broadcast_arrays(*ends)
        limits = (low.tolist(), high.tolist())
    mean, std = (
        _numbers(params[name], name, shape) for name in ("input_mean", "input_std")
    )
    if np.min(std) <= 0:
        msg = f"input_std={std}: all must be positive; add a little to those of zero."
        raise ValueError(msg)
    return Inputs(shape, limits, mean, std)


def _numbers(values: Any, name: str, shape: tuple[int, ...]) -> Any:
    """A number, or a list of one for each channel."""
    values = np.asarray(values, float)
    if values.shape not in ((), (1,), shape[:1]):
        msg = f"{name} has {values.size} values: give one, or {shape[0]}."
        raise ValueError(msg)
    if not np.isfinite(values).all():
        msg = f"{name} holds {values[~np.isfinite(values)][0]}: all must be finite."
        raise ValueError(msg)
    return float(values.item()) if values.size == 1 else values.tolist()


def choose_classes(classes: Any, teacher: Any, y: Any, n_outputs: int) -> np.ndarray:
    """What the outputs of a trained teacher stand for: ``classes``, or its own."""
    if classes is not None:
        if len(classes) != n_outputs:
            msg = (
                f"classes has {len(classes)} entries, the teacher {n_outputs} outputs: "
                "name each output."
            )
            raise ValueError(msg)
        return np.asarray(classes)
    return name_classes(teacher, None if y is None else np.unique(y), n_outputs)


def count_norms(module: nn.Module, X: Tensor) -> int:
    """Number of batch norms with running statistics that a forward reaches."""
    # By a forward: a norm that no example passes has nothing to compare with.
    watch = BatchNormStatistics(module)
    if watch.n_layers:
        with evaluating(module), watch:
            module(X.clone())
    return watch.n_passed


def find_layer(module: nn.Module, layer: str, X: Tensor, is_needed: bool) -> str | None:
    """The layer whose output is the features; None if a module shows none.

    ValueError if they are needed, and not of the examples one by one.
    """
    if layer != PENULTIMATE:
        check_layer(module, layer, "feature_layer")
        return layer
    try:
        with (
            evaluating(module),
            capturing(module, layer, len(X), must_run=False) as seen,
        ):
            module(X.clone())
    except ValueError:
        if is_needed:
            raise
        return None
    return layer if seen else None


def without_features(
    recipe: DataFreeRecipe, what: str, names: tuple[str, ...]
) -> DataFreeRecipe:
    """The recipe without these losses of features, with a warning that names them."""
    lost = [name for name in names if getattr(recipe, name)]
    if lost:
        warn_user(
            f"the {what} shows no features, having no Linear that is seen to take a "
            f"row of each example: {' and '.join(lost)} are left out."
        )
    return recipe.replace(**dict.fromkeys(names, 0.0))


def check_gradients(module: nn.Module, X: Tensor) -> None:
    """Raise ValueError if no gradients reach the input of a teacher."""
    X = X.clone().requires_grad_()
    with torch.enable_grad():
        # A network that works in place may not do so on the leaf itself.
        output = first_output(module(X.clone()))
        gradient = None
        if output.requires_grad:
            # A teacher that detaches its input gives None here, and no error.
            (gradient,) = torch.autograd.grad(output.sum(), X, allow_unused=True)
    if gradient is None:
        msg = (
            f"no gradients come through the teacher {type(module).__name__}, by which "
            'a generator could learn; choose synthesis="structured_noise".'
        )
        raise ValueError(msg)


def check_shape(examples: Tensor, inputs: Inputs) -> None:
    """Raise ValueError if a generator makes examples of another shape."""
    if examples[0].shape != inputs.shape:
        msg = (
            f"the generator makes examples of shape {tuple(examples[0].shape)}; "
            f"input_shape={inputs.shape}: make one fit the other."
        )
        raise ValueError(msg)


def warn_of_collapse(counts: np.ndarray, classes: np.ndarray) -> None:
    """Warn if late batches hold hardly any examples of a class."""
    n_iter, n_classes = counts.shape
    # Of the last quarter: a generator may find a class late. A fifth of an equal share
    # is hardly any.
    late = counts[-max(10, n_iter // 4) :].sum(axis=0)
    rare = late < late.sum() / (5 * n_classes)
    if n_iter >= 10 and rare.any():
        shown = ", ".join(map(str, classes[rare][:10]))
        warn_user(
            f"the teacher sees hardly any of the classes {shown} in the generated "
            "examples, so the student will not know them; raise entropy_weight or "
            "n_iterations, or lower generator_lr."
        )


def has_failed(losses: dict[str, float], n_iter: int) -> bool:
    """Whether a loss is not finite; the student has good weights again then."""
    for name, value in losses.items():
        if not math.isfinite(value):
            what = f"the {name} loss became {value} in iteration {n_iter}"
            cure = "choose a smaller student_lr or generator_lr."
            # There are no earlier weights to go back to.
            if n_iter == 1:
                raise ValueError(f"{what}; {cure}")
            warn_user(
                f"{what}; the last good weights are kept: {cure}", ConvergenceWarning
            )
            return True
    return False
