"""What foreign tools say when they fail, in the words that a reader without their source code can use.

onnxruntime, onnx and torch put the place in their own C++ source before the reason: a path, a line number,
the signature of the function and the condition that did not hold.
"""

import re
from typing import Final

_LONGEST: Final = 300

# "Fail : [ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed:": the caller names the path itself.
_CODES: Final = re.compile(
    r"(?:\w+: )?\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"(?:Load model from \S+ failed:)?(?:Exception during \w+: )?"
)
_NODE: Final = re.compile(
    r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: "
)
_FILE: Final = r"\w+\.(?:h|hpp|cc|cpp|cxx|cu):\d+"
# A status carries the file's name and the bare function; an assertion the whole path and the signature.
_STATUS_PLACE: Final = re.compile(rf"(?<![\w/]){_FILE} \w+ (?=\S)")
_ASSERTION_PLACE: Final = re.compile(rf"(?<![\w/])/\S*/{_FILE} (?=[^()]*\w\()")
_ADAPTER_PLACE: Final = re.compile(
    rf"(?<![\w/])(?:/\S*/)?{_FILE}: \w+: Assertion `[^`]*` failed: |\[enforce fail at {_FILE}\] "
)
_AFTER_PARAMETERS: Final = re.compile(r"(?: const| noexcept| mutable|::<lambda\([^)]*\)>| \[with [^]]*\])* ?")
_CONDITION: Final = re.compile(r"^.{1,200}? was false\. (?=\S)")


def in_one_line(error: BaseException) -> str:
    """Return the exception's type and the reason it gives, at most 300 characters, without a final dot."""
    reason = _first_line(str(error))
    return _cut(plain(f"{type(error).__name__}: {reason}" if reason else type(error).__name__))


def first_line(error: BaseException) -> str:
    """Return the reason an exception gives, at most 300 characters, without a final dot."""
    return _cut(plain(_first_line(str(error)) or type(error).__name__))


def plain(text: str) -> str:
    """Return a message without error codes and without places in the source code of its tool."""
    text = _CODES.sub("", text)
    text = _NODE.sub(lambda found: f"at the {found[1]} node{f' {found[2]!r}' if found[2] else ''}: ", text)
    text = _ADAPTER_PLACE.sub("", text)
    while (place := _ASSERTION_PLACE.search(text)) and (end := _end_of_signature(text, place.end())):
        text = text[: place.start()] + _CONDITION.sub("", text[end:])
    return _STATUS_PLACE.sub("", text)


def _end_of_signature(text: str, start: int) -> int | None:
    """Return where a C++ signature that begins at `start` ends; None if its parentheses do not close."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if text[index] == ")" and depth == 0:
            rest = _AFTER_PARAMETERS.match(text, index + 1)
            return rest.end() if rest else index + 1
    return None


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _cut(text: str) -> str:
    return text.rstrip(" .") if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
