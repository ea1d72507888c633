"""What may be secret in the URLs of messages: they are logged, printed and sent, and whoever reads that need not know how to get in."""

import re

_WITHIN = r"[^\s'\"]"
# Every repetition that something must follow has an end, or long texts would take minutes.
_USER = re.compile(
    rf"(?<=:/)(?P<slash>/?)(?:[^\s/@'\"]{{0,300}}:(?!\d+/){_WITHIN}{{0,300}}@|[^\s/@'\"]{{1,300}}@)"  # of a URL; a password may have a slash in it
    r"|(?<![^\s/'\"=(,])[^\s/@'\"]{1,300}:[^\s/@'\"]{1,300}@(?=[\w\[])"  # of what a library has left of one: `user:password@host`
)
_QUERY = re.compile(rf"(?P<before>\b[A-Za-z][\w+.-]{{0,30}}:/[^\s?#'\"]+)[?#]{_WITHIN}*?(?=[:,;.)]*(?:[\s'\"]|$))")
_QUERY_AFTER_SPACE = re.compile(
    rf"\?(?=[^\s?'\"]{{0,300}}=){_WITHIN}+?(?=[:,;.)]*(?:[\s'\"]|$))"
)  # of a URL with a space in its path


def without_secrets(text: str) -> str:
    """Return the text without the users, passwords, queries and fragments of the URLs in it."""
    if "@" in text:
        text = _USER.sub(lambda found: found["slash"] or "", text)
    if ":/" in text and ("?" in text or "#" in text):
        text = _QUERY.sub(lambda found: f"{found['before']}?...", text)
        text = _QUERY_AFTER_SPACE.sub("?...", text)
    return text
