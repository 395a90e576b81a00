"""Options and arguments under headings, so that a command with many of them can be read."""

from collections.abc import Callable
from typing import Any

import click


class GroupedOption(click.Option):
    """An option that says under which heading of --help it belongs."""

    def __init__(self, *declarations: Any, group: str = "Options", **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self.group = group


class GroupedArgument(click.Argument):
    """An argument that is told with the options it belongs to."""

    def __init__(self, *declarations: Any, group: str, explanation: str, **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self.group = group
        self.explanation = explanation

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:  # noqa: ARG002 - click's signature
        """Return what stands in the two columns of --help."""
        return (self.name or "").upper(), self.explanation


class GroupedCommand(click.Command):
    """A command whose --help lists its options by heading, in the order in which headings first appear."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = (
                    parameter.group if isinstance(parameter, GroupedOption | GroupedArgument) else "Other"
                )
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def options_under(heading: str) -> Callable[..., Callable[[Any], Any]]:
    """Return click.option for options under `heading`."""

    def option(*declarations: Any, **settings: Any) -> Callable[[Any], Any]:
        return click.option(*declarations, cls=GroupedOption, group=heading, **settings)

    return option


def argument_under(heading: str, name: str, explanation: str, **settings: Any) -> Callable[[Any], Any]:
    """Return click.argument for the argument `name`, told under `heading`."""
    return click.argument(name, cls=GroupedArgument, group=heading, explanation=explanation, **settings)
