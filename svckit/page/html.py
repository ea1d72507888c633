"""Pages of HTML from templates. All text is escaped, because labels and ids may be anything. A misspelt name is an error."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(
    template: Path, values: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]] = MappingProxyType({})
) -> str:
    """Return the page of a template, which may extend `base.html`: the head, colours and tables that all pages share."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template.name).render(values)
