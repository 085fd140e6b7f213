"""TensorFlow Datasets builders of this project: every module here is imported, which is what registers them with TFDS.

They are made from data that installed packages bring along, so they need no network. The metadata of the prepared data
says which version of which package it was made from.
"""

import importlib
import pkgutil

MODULES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
