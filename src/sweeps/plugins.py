"""Registers this project's sweeper and launcher with Hydra."""

from hydra.core.plugins import Plugins

from src.sweeps.optuna_sweeper import OptunaSweeper
from src.sweeps.ray_launcher import RayLauncher


def register() -> None:
    """Register the plugins under the names that conf/hydra uses; by itself Hydra looks only into the package hydra_plugins."""
    for plugin in (OptunaSweeper, RayLauncher):
        Plugins.instance().class_name_to_class[f"hydra_plugins.{plugin.__module__}.{plugin.__name__}"] = plugin
