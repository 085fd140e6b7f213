"""From the command line to checked settings, or to one sentence (`UserError`) that says what is wrong with it.

Hydra composes the configuration and pydantic checks it. TensorFlow takes seconds to import, so nothing here may import it.

command_line  what a command line of `src.run` asks for: the settings of each job
compose       what Hydra makes of conf/ and of what is typed
checks        from what is composed to the settings
schema        the settings: type and range of every value
signature     what a recipe takes, read from its source
search_space  what a sweep varies
messages      how a mistake is said
renamed       settings with another name than in earlier versions
hydra_patches private parts of Hydra and OmegaConf
"""

from src.config.checks import check_share, checked, judge
from src.config.command_line import JOBLIB, ONE_BY_ONE, SEARCH, Asked, check
from src.config.compose import CONF, dataset, options, plain, recipes
from src.config.messages import must_be

__all__ = [
    "CONF", "JOBLIB", "ONE_BY_ONE", "SEARCH", "Asked", "check", "check_share", "checked", "dataset", "judge", "must_be",
    "options", "plain", "recipes",
]  # fmt: skip
