"""The page: one HTML file that asks for nothing from anywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retroprop.analysis.records import Effect, ImageInterval
from retroprop.report import facts, pictures, words
from retroprop.report.choices import shown_arms
from retroprop.report.estimates import family_kind
from retroprop.report.pictures import Picture
from retroprop.report.summary import Summary
from retroprop.report.tables import arm_name, test_range

Cells = dict[str, str | int]


def render(summary: Summary) -> str:
    """Writes the page.

    Args:
        summary: What `retroprop.report.summary.summarise` made of a study. Final weights are read
            from its folder for the Hinton diagrams, where they are.

    Returns:
        HTML without a reference to any other file or address.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("retroprop.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = lambda picture: Markup(picture.svg)
    return environment.get_template("page.html").render(**_context(summary))


def _context(summary: Summary) -> dict[str, Any]:
    results = summary.results
    return {
        "name": results.name,
        "answer": summary.answer,
        "notes": summary.notes,
        "choices": facts.choice_sentences(summary),
        "held": ", ".join(results.held) or "nothing but the network and its recipe",
        "factors": [(f.name, " | ".join(f.labels)) for f in results.factors],
        "design": _design(summary),
        "data_about": results.data_about,
        "coverage": facts.coverage_sentence(results),
        "counts": facts.counts_sentence(results),
        "looks": facts.looks_sentence(results),
        "chance": words.percent(results.chance, 1),
        "seeds": len(summary.seeds),
        "family": _effect_rows(summary, (family_kind(results), "interaction")),
        "extras": _extras(summary),
        "odds": bool(summary.effects),
        "misleading": facts.misleading_sentences(summary),
        "harm": facts.harm_sentences(summary),
        "arms": _arm_rows(summary),
        "references": any(arm.reference for arm in results.arms),
        "seeds_differ": len({row.seeds for row in summary.arms}) > 1,
        "costs": _cost_rows(summary),
        "hinton": pictures.hinton_pictures(summary),
        "gradient_sentence": pictures.gradient_sentence(summary),
        "layers": list(enumerate(summary.gradients.layers, start=1)),
        "settings": as_yaml(results.settings),
        "record": as_yaml(results.record),
        **_pictures(summary),
    }


def _pictures(summary: Summary) -> dict[str, Picture | None]:
    return {
        "family_picture": pictures.family_picture(summary),
        "extras_picture": pictures.extras_picture(summary),
        "curves_picture": pictures.curves_picture(summary),
        "gradient_picture": pictures.gradient_picture(summary),
        "gap_picture": pictures.gap_picture(summary),
        "cost_picture": pictures.cost_picture(summary),
    }


def _design(summary: Summary) -> str:
    arms = [arm for arm in summary.results.arms if not arm.reference]
    references = len(summary.results.arms) - len(arms)
    text = f"{summary.results.design.replace('_', ' ')}, {words.plural(len(arms), 'arm')}"
    if references:
        text += f" and {words.plural(references, 'reference arm')} outside the design"
    return text


def _effect_rows(summary: Summary, kinds: Sequence[str]) -> list[Cells]:
    factors = summary.results.factors
    odds = {_key(e): e for e in summary.effects if e.metric == "log_odds"}
    second = {_key(i): i for i in summary.images}
    rows: list[Cells] = []
    for e in summary.of_kind(*kinds):
        images = second.get(_key(e))
        rows.append(
            {
                "kind": words.KIND_TITLES[e.kind],
                "order": kinds.index(e.kind),
                "name": words.effect_name(factors, e),
                "points": words.points_of(e),
                "range": words.range_of(e.low, e.high),
                "images": words.range_of(images.low, images.high) if images else "",
                "odds": words.signed(odds[_key(e)].estimate),
                "p": words.probability(e.p),
                "p_holm": words.probability(e.p_holm),
                "claim": words.claim_words(e),
                "tone": e.claim if e.claim in {"helps", "hurts"} else "none",
            }
        )
    return rows


def _extras(summary: Summary) -> list[Cells]:
    if family_kind(summary.results) != "main":
        return []
    return _effect_rows(summary, ("add_one_in", "leave_one_out", "shapley"))


def _key(effect: Effect | ImageInterval) -> tuple[str, ...]:
    return effect.kind, effect.factor, effect.level, effect.other_factor, effect.other_level


def _arm_rows(summary: Summary) -> list[dict[str, Any]]:
    return [
        {
            "place": place,
            "name": arm_name(row),
            "reference": row.reference,
            "validation": words.percent(row.validation),
            "test": words.percent(row.test.mean),
            "range": test_range(row),
            "seeds": row.seeds,
            "multiplier": words.short(row.multiplier),
            "rate": words.short(row.rate),
            "flags": ", ".join(row.flags),
            "parameters": words.count(row.parameters),
        }
        for place, row in enumerate(summary.arms, start=1)
    ]


def _cost_rows(summary: Summary) -> list[Cells]:
    rows = [row for arm in shown_arms(summary.results) if (row := summary.row(arm)) and row.seeds]
    return [
        {
            "name": arm_name(row),
            "train": words.percent(row.train),
            "test": words.percent(row.test.mean),
            "gap": words.signed(100 * row.gap.mean),
            "parameters": words.count(row.parameters),
            "flops": words.short(row.flops / 1e6),
            "seconds": words.short(float(f"{row.seconds:.3g}")),
            "joules": words.short(float(f"{row.joules:.3g}")) if np.isfinite(row.joules) else "not measured",
        }
        for row in rows
    ]


def as_yaml(values: Mapping[str, object]) -> str:
    """Settings or records as YAML; what YAML has no word for is written as text."""
    import yaml

    if not values:
        return ""
    text: str = yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True, width=88)
    return text


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
