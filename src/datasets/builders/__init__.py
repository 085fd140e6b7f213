"""TensorFlow Datasets builders of this project: every module here is imported, which is what registers them with TFDS.

Most are made from what installed packages bring along, so they need no network; the metadata of the prepared data says which
version of which package they were made from. Those with a `URL` download, and checksums.tsv holds what is to come.
"""

import importlib
import pkgutil

MODULES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
