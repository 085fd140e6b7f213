"""Models that were logged before `src.export.serving` had that name are loaded by MLflow through this one."""

from src.export.serving import _load_pyfunc

__all__ = ["_load_pyfunc"]
