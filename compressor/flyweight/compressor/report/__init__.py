"""The report of a compression: one HTML file that needs nothing else, made from the JSON document alone."""

from flyweight.compressor.report.document import ReportError
from flyweight.compressor.report.page import render_report

__all__ = ["ReportError", "render_report"]
