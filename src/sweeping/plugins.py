"""Makes Hydra know this project's own sweeper and launcher."""

from hydra.core.plugins import Plugins

from src.sweeping.ray import RayLauncher
from src.sweeping.search import OptunaSweeper


def register() -> None:
    """Under the names that conf/hydra gives them: Hydra finds plugins in the package hydra_plugins alone."""
    for plugin in (OptunaSweeper, RayLauncher):
        Plugins.instance().class_name_to_class[f"hydra_plugins.{plugin.__module__}.{plugin.__name__}"] = plugin
