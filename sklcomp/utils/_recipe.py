"""Settings that belong together and are seldom touched, as one parameter."""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from sklcomp.utils._messages import show
from sklcomp.utils._sklearn import validate_parameter_constraints


@dataclass(frozen=True, kw_only=True, repr=False)
class Recipe:
    """Base of all recipes: frozen dataclasses with scikit-learn's parameters.

    An estimator takes one, or the name of a published one, as its parameter ``recipe``;
    a search then reaches the settings as ``recipe__<name>``. Nothing but ``set_params``
    changes a recipe: where other values are used, a new one is made.
    """

    _constraints: ClassVar[dict[str, list]]
    _published: ClassVar[dict[str, Any]]

    @classmethod
    def named(cls, name: str) -> Self:
        """A published recipe."""
        return cls._published[name]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Name -> value of every setting."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def set_params(self, **params: Any) -> Self:
        """Change settings in place, as scikit-learn's searches do with clones."""
        names = self.get_params()
        for name, value in params.items():
            if name not in names:
                msg = (
                    f"{show(name)} is no setting of {type(self).__name__}; choose one "
                    f"of {', '.join(names)}."
                )
                raise ValueError(msg)
            object.__setattr__(self, name, value)
        return self

    def replace(self, **changes: Any) -> Self:
        """The same with other values."""
        return replace(self, **changes)

    def check(self) -> None:
        """Raise ValueError for a setting of a wrong kind or out of its range."""
        validate_parameter_constraints(
            self._constraints, self.get_params(), caller_name=type(self).__name__
        )

    def __repr__(self) -> str:
        # What differs from the defaults, as scikit-learn prints estimators.
        changed = [
            f"{field.name}={show(value)}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


def recipe_of(estimator: Any, kind: type[Recipe]) -> Any:
    """The checked recipe of an estimator, by name or its own; never a changed one."""
    recipe = estimator.recipe
    if isinstance(recipe, str):
        return kind.named(recipe)
    recipe.check()
    return recipe
