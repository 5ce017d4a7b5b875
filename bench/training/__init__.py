"""Training: a recipe is a method (a loss with declared parameters) and a schedule; one trainer runs them all."""

from bench.training.recipe import Recipe
from bench.training.recipes import list_recipes, make_recipe
from bench.training.trainer import TrainingRun, train

__all__ = ["Recipe", "TrainingRun", "list_recipes", "make_recipe", "train"]
