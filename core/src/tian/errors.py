"""Every error a user can meet, one class per remedy, each with its exit code.

The command line prints three lines (what, where, do) and exits with `exit_code`; the table of codes is in
`docs/exit-codes.md`. A bug of ours is anything else and exits with 70.
"""


class TianError(Exception):
    """Base of all errors meant for the user's eyes.

    Args:
        message: what is wrong, with the offending value.
        where: the place to look at: `file:line`, an override, or a plugin with its version. May be empty.
        hint: what to do about it, as an instruction or a command. May be empty.
    """

    exit_code = 70

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def lines(self) -> list[str]:
        """The message as printed: what, then where and what to do when known."""
        out = [f"error: {' '.join(self.message.splitlines())}"]  # libraries' messages may span lines
        if self.where:
            out.append(f"  where: {self.where}")
        if self.hint:
            out.append(f"  do:    {self.hint}")
        return out

    def as_dict(self) -> dict[str, object]:
        """The same for `--json`: `{"error": {class, message, where, hint, exit_code}}`."""
        return {
            "error": {
                "class": type(self).__name__,
                "message": self.message,
                "where": self.where,
                "hint": self.hint,
                "exit_code": self.exit_code,
            }
        }


class ConfigError(TianError):
    """A configuration or command line that cannot be composed: unknown key, wrong type, broken YAML."""

    exit_code = 2


class UnknownName(TianError):
    """No plugin provides the name; the hint gives the nearest one."""

    exit_code = 2


class AmbiguousName(TianError):
    """Several plugins provide the short name; the hint lists the qualified ones."""

    exit_code = 2


class PluginError(TianError):
    """A plugin failed while it was imported, registered or constructed."""

    exit_code = 3


class PluginIncompatible(TianError):
    """A plugin was written for another version of tian."""

    exit_code = 3


class ContractError(TianError):
    """A plugin returned something its role's contract forbids."""

    exit_code = 3


class MissingDependency(TianError):
    """A package the component needs is not installed; the hint is the pip command."""

    exit_code = 4


class UnsupportedModel(TianError):
    """The model's architecture or configuration cannot be served by this feature."""

    exit_code = 4


class NoDevice(TianError):
    """The requested device is not present."""

    exit_code = 4


class InvalidInput(TianError, ValueError):
    """An argument or option value outside its documented range."""

    exit_code = 5


class DataError(TianError):
    """A file or folder the user named is missing, empty, damaged or of another format."""

    exit_code = 5


class NotFitted(TianError):
    """A component was used before it was fitted."""

    exit_code = 5


class RunError(TianError):
    """A run failed for a reason that is neither input nor plugin."""

    exit_code = 6


class PlannerError(TianError):
    """A planner could not produce a plan."""

    exit_code = 6


class NanError(TianError):
    """A computation produced NaN or infinity."""

    exit_code = 6


class RunBusy(TianError):
    """The run directory is owned by a living process."""

    exit_code = 7


class ResumeMismatch(TianError):
    """The run directory cannot be continued by this command."""

    exit_code = 7
