"""Makes Hydra know this project's own sweeper and launcher."""

from hydra.core.plugins import Plugins

from src.sweeps.optuna_sweeper import OptunaSweeper
from src.sweeps.ray_launcher import RayLauncher


def register() -> None:
    """Under the names that conf/hydra gives them: Hydra finds plugins in the package hydra_plugins alone."""
    for plugin in (OptunaSweeper, RayLauncher):
        Plugins.instance().class_name_to_class[f"hydra_plugins.{plugin.__module__}.{plugin.__name__}"] = plugin
