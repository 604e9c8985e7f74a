"""Recipe: settings that belong together and are seldom touched, as one parameter.

The recipes of the pruners and of DataFreeDistiller inherit from it.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from sklcomp.utils._messages import show
from sklcomp.utils._sklearn import check_parameters


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
        """A published recipe, as an object of its own: ``set_params`` may change it.

        Parameters
        ----------
        name : str
            Such as "paper"; the Notes of the class tell what there is.

        Returns
        -------
        recipe : Recipe
            A copy.

        Raises
        ------
        ValueError
            If there is no recipe of that name.
        """
        if name not in cls._published:
            msg = (
                f"there is no recipe {show(name)}; choose one of "
                f"{', '.join(map(show, cls._published))}, or give a {cls.__name__}."
            )
            raise ValueError(msg)
        return cls._published[name].replace()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get all settings.

        Parameters
        ----------
        deep : bool, default=True
            Not used: no setting has settings of its own.

        Returns
        -------
        params : dict
            Name -> value.
        """
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def set_params(self, **params: Any) -> Self:
        """Change settings in place, as scikit-learn's searches do with clones.

        Parameters
        ----------
        **params
            Name -> value.

        Returns
        -------
        self : Recipe
            This one.

        Raises
        ------
        ValueError
            If a name is unknown.
        """
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
        """Make a recipe with other values; this one stays as it is.

        Parameters
        ----------
        **changes
            Name -> value.

        Returns
        -------
        recipe : Recipe
            The new one.
        """
        return replace(self, **changes)

    def check(self) -> None:
        """Check all settings; ``fit`` does so first.

        Raises
        ------
        ValueError
            For a setting of a wrong kind or out of its range.
        """
        check_parameters(self._constraints, self.get_params(), type(self).__name__)

    def __repr__(self) -> str:
        # What differs from the defaults, as scikit-learn prints estimators.
        changed = [
            f"{field.name}={show(value)}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


class RecipeMixin:
    """An estimator's ``recipe__<name>``, also where its recipe is a name.

    ``_recipe_type`` says which recipes it takes.
    """

    _recipe_type: ClassVar[type[Recipe]]

    def set_params(self: Any, **params: Any) -> Any:
        """Set parameters; those of the recipe are set in a copy.

        Recipes are shared, between estimators and with whoever made them; and a name
        has nothing to set, so the recipe of that name takes its place.

        Parameters
        ----------
        **params : dict
            Parameters, and ``recipe__<name>`` for a setting of the recipe.

        Returns
        -------
        self : estimator
            This object.

        Raises
        ------
        ValueError
            For an unknown name, and for settings of ``recipe="auto"``.
        """
        prefix = "recipe__"
        names = [name for name in params if name.startswith(prefix)]
        changes = {name.removeprefix(prefix): params.pop(name) for name in names}
        super().set_params(**params)  # type: ignore[misc]
        if not changes:
            return self
        recipe = self.recipe
        if isinstance(recipe, str):
            if recipe == "auto":
                kind = self._recipe_type
                msg = (
                    f'recipe="auto" is chosen in fit, so that {names[0]} has no recipe '
                    f"to be set in; choose recipe={kind.__name__}.named("
                    f"{show(next(iter(kind._published)))}) first."
                )
                raise ValueError(msg)
            recipe = self._recipe_type.named(recipe)
        self.recipe = recipe.replace().set_params(**changes)
        return self


def recipe_of(estimator: Any, kind: type[Recipe], auto: str | None = None) -> Any:
    """The checked recipe of an estimator, by name or its own; never a changed one.

    ``auto`` is the name that "auto" stands for.
    """
    recipe = estimator.recipe
    if isinstance(recipe, str):
        return kind.named(auto if auto and recipe == "auto" else recipe)
    recipe.check()
    return recipe
