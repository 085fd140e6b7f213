"""The base class of all sections of the settings."""

import pydantic


class Section(pydantic.BaseModel):
    """A section of the settings: no further keys, no implicit conversions, immutable."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)
