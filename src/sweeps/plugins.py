"""Registers this project's sweeper and launcher with Hydra."""

from src.config import hydra_patches
from src.sweeps.optuna_sweeper import OptunaSweeper
from src.sweeps.ray_launcher import RayLauncher


def register() -> None:
    """Register the plugins under the names that conf/hydra uses; by itself Hydra looks only into the package hydra_plugins."""
    for plugin in (OptunaSweeper, RayLauncher):
        hydra_patches.register_plugin(plugin)
