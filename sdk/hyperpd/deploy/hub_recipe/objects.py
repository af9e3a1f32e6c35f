"""The objects of a recipe as hyp can post them, in one of two forms: those of kubernetes, or of inference_operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hyperpd.deploy.hub_recipe import endpoint, fleet, hyp
from hyperpd.deploy.hub_recipe.options import Options
from hyperpd.deploy.target import Document
from hyperpd.recipe import Recipe, RecipeFile


class Form(Protocol):
    """The names that a module of a form has to have."""

    NEEDS: str  # of the cluster
    NAMESPACES: str  # what the parameter `namespace` is
    KUBECTLS: str  # kinds that are not hyp's to post

    def problems(self, recipe: Recipe, options: Options) -> list[str]:
        """Why this recipe cannot be rendered with these options."""

    def losses(self, recipe: Recipe, options: Options) -> list[str]:
        """What this recipe says and these objects do not."""

    def documents(self, file: RecipeFile, options: Options) -> list[Document]:
        """The objects, in the order in which they are applied."""

    def image(self, recipe: Recipe, options: Options) -> str:
        """The containers' image."""

    def machines(self, recipe: Recipe, options: Options) -> list[str]:
        """What hyp init may be given as --instance-type, of a recipe without problems."""

    def asking(self, recipe: Recipe, options: Options) -> list[str]:
        """What is typed for a first answer."""

    def scaled(self, recipe: Recipe, options: Options) -> list[str]:
        """Whose number can be changed."""

    def counted(self, body: Mapping[str, Any], counts: Mapping[str, Any]) -> Mapping[str, Any]:
        """`body` with these numbers, by role."""


_FORMS: Mapping[str, Form] = {"kubernetes": fleet, "inference_operator": endpoint}


def form(options: Options) -> Form:
    return _FORMS[options.objects]


def documents(file: RecipeFile, options: Options) -> tuple[list[Document], list[Document]]:
    """(what has to be there before, what hyp posts), each in the order in which it is applied."""
    before: list[Document] = []
    posted: list[Document] = []
    for document in form(options).documents(file, options):
        assert not isinstance(document.body, str)  # both targets write objects alone
        (posted if hyp.postable(document.body) else before).append(document)
    return before, posted
