"""Commands whose many options stand under headings in their help."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

_REST: Final = "Other"


class SectionedCommand(click.Command):
    """A command whose help groups its options; `sections` maps headings to names like "--port".

    An option that is in none stands at the end. Arguments stand in the line of usage alone.
    """

    def __init__(self, *arguments: Any, sections: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sections = sections
        for param in self.params:
            # The range stands at the end of the text.
            if isinstance(param.type, click.IntRange) and param.metavar is None:
                param.metavar = "N"

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, heading by heading."""
        left = {
            param.opts[0]: record
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None
        }
        for heading, names in self.sections.items():
            records = [left.pop(name) for name in names if name in left]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
        if left:
            with formatter.section(_REST):
                formatter.write_dl(list(left.values()))
