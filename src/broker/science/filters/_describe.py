"""Write the reference page of filters from the filters themselves."""

from collections.abc import Iterable

from broker.science.filters._base import Cut, Filter, Variant

_HEAD = "| cut | passes when | unit | a missing value means | reference |\n|---|---|---|---|---|\n"


def describe(filters: Iterable[Filter]) -> str:
    """Describe every cut of every filter, as Markdown."""
    return "\n".join(_filter_text(one) for one in filters)


def _filter_text(one: Filter) -> str:
    head = (
        f"## `{one.name}`\n\n{one.summary}\n\n"
        f"Topic `{{survey}}-{one.topic}`, message attribute `{one.attribute}`.\n"
    )
    return head + "".join(_variant_text(variant) for variant in one.variants)


def _variant_text(variant: Variant) -> str:
    needs = ", ".join(f"`{path}`" for path in sorted(variant.needs))
    note = f"\n{variant.note}\n" if variant.note else ""
    rows = "".join(_cut_text(cut) for cut in variant.cuts)
    return f"\n### Alerts with {needs}\n{note}\n{_HEAD}{rows}"


def _cut_text(cut: Cut) -> str:
    condition = f"{cut.comparison} {cut.threshold}".strip()
    missing = cut.when_missing if isinstance(cut.when_missing, str) else ""
    cells = (f"`{cut.name}`", condition, cut.unit, missing, cut.reference)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
