"""MLflow loads models through this module that were logged before `src.export.serving` had its present name."""

from src.export.serving import _load_pyfunc

__all__ = ["_load_pyfunc"]
