"""Render a template to one HTML file that needs nothing else and escapes all that it shows.

Templates cannot switch escaping off. The page's own style and script are the only ones that a
browser runs, as its Content-Security-Policy has their digests, and nothing can be fetched.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from job.printable import visible

# What they return would not be escaped any more. Nothing that a template gets is HTML.
FILTERS_THAT_MAKE_HTML = ("safe", "tojson", "urlize", "xmlattr")
# HTML shows these as blanks; `visible` would show their codes.
_BLANKS = str.maketrans("\t\r\f\v", "    ")


def render(package: str, template: str, **values: Any) -> str:
    """Return the page of a template in `package`, which extends `page.html` of this package.

    All text is escaped, and its control characters are shown as their codes.
    """
    return environment(package).get_template(template).render(**values)


@cache
def environment(package: str) -> Environment:
    """Return the environment of the templates in `package`, which compiles each of them once."""
    made = Environment(
        # A package has its templates beside its modules; the kit's have a folder.
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("job.pages")]),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in FILTERS_THAT_MAKE_HTML:
        del made.filters[name]
    style, script = _own("page.css"), _own("page.js")
    made.globals.update(style=style, script=script, policy=_policy(style, script))
    return made


def _shown(value: Any) -> Any:
    """Return what a template prints: text without control characters, and macros as they are."""
    if value is None:
        return ""
    if isinstance(value, Markup):
        return value
    text = str(value).replace("\r\n", "\n")
    return visible(text.translate(_BLANKS))


@cache
def _own(name: str) -> Markup:
    """Return the style or the script, which are part of this program and must not be escaped."""
    text = files("job.pages").joinpath(name).read_text(encoding="utf-8")
    assert "</" not in text, f"{name} would end its element"
    return Markup(text)


def _policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy for these two elements alone."""
    rules = {
        "default-src": "'none'",
        "style-src": _digest(style),
        "script-src": _digest(script),
        "base-uri": "'none'",
        "form-action": "'none'",
        # The script cannot write HTML either.
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {rule}" for name, rule in rules.items())


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
