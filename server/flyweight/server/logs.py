"""Log lines on standard error, for people or for machines. No tensor's contents are ever logged.

Nor are tokens or other metadata. What callers send reaches a line only as a name or an id, and with its line
breaks escaped, so that nobody writes lines of their own into the log.
"""

import json
import logging
import sys
import time
from typing import Final

from flyweight.server.settings import LogFormat, LogLevel, ServerSettings, is_loopback

logger = logging.getLogger(__name__)

# Where a record carries what it says as names and values, beside its sentence.
FIELDS: Final = "fields"

_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    # Line breaks too, to some who read lines.
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


class JsonFormatter(logging.Formatter):
    """Writes a log line as one JSON object: time (RFC 3339, UTC), level, logger, message, and exception.

    A record's fields stand beside them, under their own names.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line = {**getattr(record, FIELDS, {}), **line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # Escaped where it is not ASCII: a half of a surrogate pair cannot be written otherwise.
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """Writes a log line for people; what breaks lines in a message is escaped, an exception has its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """Return the line without the exception."""
        record.message = record.message.translate(_ESCAPES)
        return super().formatMessage(record)


def configure_logging(log_format: LogFormat, level: LogLevel = LogLevel.INFO) -> None:
    """Send the log of the whole process to standard error in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def warn_of_open_doors(settings: ServerSettings) -> None:
    """Log what a server does that its operator may not mean, on an address that others reach."""
    if is_loopback(settings.host):
        return
    if settings.access is not None and settings.tls is None:
        # Refusing would be too much: a proxy beside the server may well do the TLS.
        logger.warning(
            "Tokens travel unencrypted to %s; give --tls-cert and --tls-key, unless a proxy there has TLS.",
            settings.host,
        )
    if settings.allow_control and settings.access is None:
        logger.warning(
            "Whoever reaches %s may load, unload and steer models; name the callers with --access, or start "
            "without --allow-control.",
            settings.host,
        )
