"""TensorFlow Datasets builders of this project. Every module here is imported, which registers its builders with TFDS.

Most take their data from installed packages, so they need no network; the metadata of the prepared data has the versions of
these packages. Modules with a `URL` download theirs, and checksums.tsv has the checksums of the downloads.
"""

import importlib
import pkgutil

MODULES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
