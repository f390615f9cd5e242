"""Templates of the report's HTML; every value is made presentable and escaped."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from vendor_assets.presentable import presentable


@cache
def template(name: str) -> Template:
    """A template of this folder; the output of one may be used in another without escaping."""
    return Environment(
        loader=PackageLoader("vendor_assets.analytics"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if hasattr(value, "__html__") else presentable(value, 1000),
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)
