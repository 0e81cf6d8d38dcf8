"""The errors a person can mend: shown as one message without a traceback."""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """Something the user can mend; its text is the whole message: expected, found, what to do."""

    exit_code: ClassVar[int] = 2
    """Exit code of a command that ends with this error."""


class ManifestError(UserError):
    """A dataset description that cannot be used: all its faults in one message."""


class SettingsError(UserError):
    """Settings that cannot be used: all their faults in one message."""
