"""Exceptions that are messages to the user."""


class UserError(Exception):
    """Something the user can put right. Its text is one sentence saying what is wrong and what to type instead.

    It is printed without a traceback and ends the command with exit status 2, as a wrong option does everywhere else.
    """


class ResumableError(UserError):
    """One that ends a run which can go on, once that is put right."""


class OutOfMemoryError(ResumableError):
    """The memory did not suffice; on another day, or beside fewer processes, it may."""
