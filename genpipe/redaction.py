"""Secrets are masked in what stages and Git print, before anybody sees or keeps it."""

import os
import re
from collections.abc import Callable, Mapping
from urllib.parse import quote

MASK = "***"
SHORTEST = 8  # characters; a shorter value would mask ordinary words
SECRET = re.compile(r"TOKEN|SECRET|PASSW|PASSPHRASE|KEY|CREDENTIAL|AUTH_STRING|DSN", re.IGNORECASE)
NO_SECRET = re.compile(r"_(PATH|FILE|DIR|MODE)$", re.IGNORECASE)  # says where it is, or how it is used
IN_URL = re.compile(
    r"\b([a-z][a-z0-9+.-]*://)(?:[^\s/:@]*:[^\s/]*|(?<=http://)[^\s/@]+|(?<=https://)[^\s/@]+)@", re.I
)


def masker(environment: Mapping[str, str] = os.environ) -> Callable[[str], str]:
    """What masks a line: the secrets of these environment variables, and what URLs carry before their host."""
    values = sorted(_secrets(environment), key=len, reverse=True)  # the longest first: one may begin another
    known = re.compile("|".join(map(re.escape, values))) if values else None

    def mask(line: str) -> str:
        line = IN_URL.sub(rf"\1{MASK}@", line)
        return known.sub(MASK, line) if known else line

    return mask


def _secrets(environment: Mapping[str, str]) -> set[str]:
    """Each line of each secret, as it is and as a URL spells it."""
    lines = {
        line.strip()
        for name, value in environment.items()
        if SECRET.search(name) and not NO_SECRET.search(name)
        for line in value.splitlines()
    }
    return {form for line in lines if len(line) >= SHORTEST for form in (line, quote(line, safe=""))}
