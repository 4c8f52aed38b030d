"""Pages in one file: data and code that are safe within HTML."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from alexnet_lab.base.files import for_json
from alexnet_lab.base.printable import printable_texts


def policy(scripts: Iterable[str], style: str) -> str:
    """A page's content security policy: run these scripts, use this style, fetch nothing."""

    def named(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return f"default-src 'none'; style-src {named(style)}; script-src {' '.join(named(text) for text in scripts)}"


def json_in_script(value: Any) -> str:
    """JSON that is safe in a script element: without `<` there is no end tag and no comment."""
    return json.dumps(printable_texts(for_json(value)), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
