"""From the command line to validated settings, or to a one-sentence error (`UserError`) that says what to type instead.

Hydra composes the configuration and pydantic checks it. TensorFlow takes seconds to import, so nothing here may import it.

command_line  parses a command line of `src.run` into the settings of each job
compose       composes conf/ and the overrides with Hydra
checks        validates a composed configuration
differences   differences between settings, and the names of runs that show them
files         the user's own files that a data set is read from
schema        the settings, with the type and range of every value
tasks         the registry of tasks, with the settings of each
section       the base class of the sections of the settings
signature     inputs, outputs and hyperparameters of a recipe, read from its source
search_space  sweep overrides
messages      error messages
renamed       old names of settings and metrics
hydra_patches private parts of Hydra and OmegaConf
"""

from src.config.checks import check_even_split, reference_classifier_settings, validate
from src.config.command_line import BASIC_LAUNCHER, LAUNCHER, SWEEPER, ParsedCommand, parse
from src.config.compose import CONF, CONFIG_DIR, builders, dataset, option_names, recipe_targets, to_dict
from src.config.differences import run_name, sweep_name
from src.config.files import with_digest
from src.config.messages import describe_invalid

__all__ = [
    "BASIC_LAUNCHER", "CONF", "CONFIG_DIR", "LAUNCHER", "SWEEPER", "ParsedCommand", "builders", "check_even_split", "dataset",
    "describe_invalid", "option_names", "parse", "recipe_targets", "reference_classifier_settings", "run_name", "sweep_name",
    "to_dict", "validate", "with_digest",
]  # fmt: skip
