"""Comments and messages as markdown: what is meant as plain text must not turn into links or emphasis."""

from __future__ import annotations

import re

_CODE = re.compile(r"(`[^`\n]*`)")
_SIGNS = re.compile(r"([*<])|(?<=\])(\()")


def prose(text: str) -> str:
    """The text with signs of markdown outside of backticks taken for themselves."""
    parts = _CODE.split(text)
    return "".join(part if at % 2 else _SIGNS.sub(r"\\\g<0>", part) for at, part in enumerate(parts))
