"""The results of a sweep so far: one row per level of its factor.

A job's overrides fall into parts: the factor's keys (their values are the level), the seed (which pairs jobs), tuned
keys (each level counts with their best values), and all other swept keys, the setting, within which levels are
compared. An unfinished sweep has a summary of its finished jobs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.statistics import CONFIDENCE, Difference, Ratio, Sample, describe, differences, ratio
from alexnet_lab.sweeps.columns import literal, parsed
from alexnet_lab.sweeps.definition import SEED

Pairs = tuple[tuple[str, str], ...]
"""Keys and their values, as in the overrides."""

LEFT_OUT = {
    "failed": "failed", "interrupted": "interrupted", "unreadable": "unreadable", "to_go": "to go",
    "pruned": "ended early", "other_images": "on other images", "empty": "without a value",
    "other_hardware": "on other hardware than the base's",
}  # fmt: skip
"""Why a job does not count, in a record and in words. `pruned`: a search ended it early; `other_images`: its images
differ from those of the other jobs; `empty`: it never reached what is measured. `other_hardware`: it has a value, but
is not compared with the base, whose run of this seed used another kind of hardware."""

Partner = tuple[str, str]
"""A seed and a kind of hardware: two runs form a pair if both are equal."""


class Outcome(NamedTuple):
    """The outcome of one job of a sweep."""

    overrides: dict[str, str]  # its differences from the others
    status: str  # completed, failed, interrupted, to_go, pruned, other_images
    value: float | None = None  # of the sweep's metric
    choice: float | None = None  # the metric that selects tuned keys; lower is better
    also: tuple[float | None, ...] = ()  # of the sweep's further metrics
    hardware: str = ""  # the kind that computed it; empty: unknown


class Cell(NamedTuple):
    """The place of a job in the table."""

    level: Pairs
    setting: Pairs


@dataclass(frozen=True)
class Row:
    """One level of the factor, in one setting."""

    cell: Cell
    tuned: Pairs  # the chosen values of the tuned keys
    sample: Sample
    against_base: Difference | None  # None for the base itself, or without a comparison
    ratio: Ratio | None  # of the means, or None likewise; its interval is corrected as the difference's
    counts: dict[str, int]  # of the jobs that `sample` or `against_base` leaves out, by the names of LEFT_OUT
    is_base: bool = False
    also: tuple[float | None, ...] = ()  # means of the sweep's further metrics
    group: Pairs = ()  # model and data, if a table has several; rows are compared within the same data


@dataclass(frozen=True)
class Effect:
    """The effect of one of several factors, averaged over the others."""

    key: str
    level: str
    base: str
    against_base: Difference


@dataclass(frozen=True)
class Summary:
    """The table of a sweep."""

    about: dict[str, Any]  # name, factor, base, metric, claim, paper: as in sweep.json
    rows: list[Row]  # the base first, then in the sweep's order
    effects: list[Effect] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """The number of jobs that do not count, over all rows, by the names of LEFT_OUT."""
        return {name: sum(row.counts[name] for row in self.rows) for name in LEFT_OUT}


def base_level(about: Mapping[str, Any], jobs: Sequence[Mapping[str, str]]) -> Pairs:
    """The level that the others are compared with: the one in `sweep.base`, or the first.

    Args:
        about: The sweep's description.
        jobs: The overrides of all jobs.

    Raises:
        ConfigError: A factor or tuned key is not swept, a factor has only one level, or no job has the base's.
    """
    keys = about["factor"]
    for key in (*keys, *(about.get("tuned") or ())):
        values = list(dict.fromkeys(job[key] for job in jobs if key in job))
        if not values:
            raise ConfigError(f"the sweep is over `{key}`, which no job sets; give its values: {key}=A,B")
        if len(values) == 1 and key in keys:
            raise ConfigError(f"`{key}` is {values[0]} in all jobs, so there is nothing to compare; set {key}=A,B")
    if not about.get("base"):
        return tuple((key, jobs[0][key]) for key in keys)
    if len(about["base"]) != len(keys):
        raise ConfigError(f"`sweep.base` has {len(about['base'])} values for {len(keys)} factors: {', '.join(keys)}")
    return tuple(_named_level(key, base, jobs) for key, base in zip(keys, about["base"], strict=True))


def _named_level(key: str, base: Any, jobs: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    values = list(dict.fromkeys(job[key] for job in jobs))
    for value in values:
        if value in (str(base), literal(base)) or base == parsed(value):
            return key, value
    raise ConfigError(f"`sweep.base` is {base} for `{key}`, which no job has; set one of {', '.join(values)}")


def summarise(about: Mapping[str, Any], outcomes: Sequence[Outcome]) -> Summary:
    """Computes the table of a sweep.

    Args:
        about: Its description, as in sweep.json: name, factor, base, tuned, metric, claim, paper.
        outcomes: Of all jobs in the sweep's order, including those that have not run.

    Raises:
        ConfigError: See `base_level`.
    """
    base = base_level(about, [outcome.overrides for outcome in outcomes])
    tuned = tuple(about.get("tuned") or ())
    cells: dict[Cell, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        cells[_cell(outcome, about["factor"], tuned)].append(outcome)
    chosen = {cell: _best(members, tuned) for cell, members in cells.items()}
    values = {cell: by_partner(members) for cell, members in chosen.items()}
    ordered = sorted(cells, key=lambda cell: cell.level != base)  # stable
    others = [cell for cell in ordered if cell.level != base]
    bases = {cell: values.get(Cell(base, cell.setting), {}) for cell in ordered}
    against = [comparable(values[cell], bases[cell]) for cell in others]
    gaps = dict(zip(others, differences(against), strict=True))
    rows = [_row(cell, tuned, chosen[cell], gaps.get(cell), bases[cell]) for cell in ordered]
    rows = [replace(row, is_base=bool(base) and row.cell.level == base) for row in rows]
    return Summary(dict(about), rows, _effects(base, values) if len(base) > 1 else [])


def _cell(outcome: Outcome, factor: Sequence[str], tuned: Sequence[str]) -> Cell:
    others = sorted(key for key in outcome.overrides if key not in (*factor, *tuned, SEED))
    return Cell(_part(outcome, factor), _part(outcome, others))


def _part(outcome: Outcome, keys: Sequence[str]) -> Pairs:
    return tuple((key, outcome.overrides[key]) for key in keys)


def by_partner(outcomes: Sequence[Outcome]) -> dict[Partner, float]:
    """The available values by seed and hardware."""
    return {
        (outcome.overrides.get(SEED, ""), outcome.hardware): outcome.value
        for outcome in outcomes
        if outcome.value is not None
    }


def comparable(
    values: Mapping[Partner, float], base: Mapping[Partner, float]
) -> tuple[dict[Partner, float], dict[Partner, float]]:
    """Removes results from both sides that only other hardware could be compared with.

    Example:
        >>> comparable({("0", "A"): 0.1, ("1", "A"): 0.2}, {("0", "A"): 0.3, ("1", "B"): 0.4})
        ({('0', 'A'): 0.1}, {('0', 'A'): 0.3})
    """
    return _with_partners(values, base), _with_partners(base, values)


def _with_partners(values: Mapping[Partner, float], others: Mapping[Partner, float]) -> dict[Partner, float]:
    """Values whose seed the others have on the same hardware, or lack while they have other seeds on it."""
    seeds, kinds = {seed for seed, _ in others}, {kind for _, kind in others}
    return {
        (seed, kind): value
        for (seed, kind), value in values.items()
        if (seed, kind) in others or (seed not in seeds and kind in kinds)
    }


def _best(outcomes: list[Outcome], tuned: Sequence[str]) -> list[Outcome]:
    """The jobs with one choice of the tuned keys: fewest failed, then the lowest mean over the seeds that all have."""
    groups: dict[Pairs, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[_part(outcome, tuned)].append(outcome)

    def choices(members: list[Outcome]) -> dict[str, float]:
        return {item.overrides.get(SEED, ""): item.choice for item in members if item.choice is not None}

    measured = [found.keys() for members in groups.values() if (found := choices(members))]
    shared = set.intersection(*map(set, measured)) if measured else set()

    def rank(members: list[Outcome]) -> tuple[bool, int, float, int]:
        found = choices(members)
        compared = [found[seed] for seed in found if seed in shared or not shared]
        failed = sum(item.choice is None and item.status in ("completed", "failed") for item in members)
        return not found, failed, sum(compared) / max(1, len(compared)), -len(found)

    return min(groups.values(), key=rank)


def _row(
    cell: Cell, tuned: Sequence[str], outcomes: list[Outcome], gap: Difference | None, base_values: dict[Partner, float]
) -> Row:
    values = by_partner(outcomes)
    sample = describe(list(values.values()))
    without = [outcome.status for outcome in outcomes if outcome.value is None]
    counts = {reason: without.count("completed" if reason == "empty" else reason) for reason in LEFT_OUT}
    if base_values:
        counts["other_hardware"] = len(values) - len(_with_partners(values, base_values))
    times = ratio(*comparable(values, base_values), 1 - (1 - CONFIDENCE) / gap.family) if gap else None
    counted = [outcome.also for outcome in outcomes if outcome.value is not None]
    also = tuple(
        describe([value for value in column if value is not None]).mean for column in zip(*counted, strict=True)
    )
    return Row(cell, _part(outcomes[0], tuned), sample, gap, times, counts, also=also)


def _effects(base: Pairs, values: Mapping[Cell, dict[Partner, float]]) -> list[Effect]:
    """Each factor's own effect: the mean over all other cells within a seed, then over seeds."""
    places: list[tuple[str, str, str]] = []
    pairs: list[tuple[dict[Partner, float], dict[Partner, float]]] = []
    for key, reference in base:
        grids: dict[str, dict[Any, dict[Partner, float]]] = defaultdict(dict)
        for cell, results in values.items():
            others = tuple(pair for pair in cell.level if pair[0] != key)
            grids[dict(cell.level)[key]][others, cell.setting] = results
        base_grid = grids.pop(reference)
        for level, grid in grids.items():
            shared = [place for place in grid if place in base_grid]
            pairs.append(comparable(_averaged([grid[p] for p in shared]), _averaged([base_grid[p] for p in shared])))
            places.append((key, level, reference))
    return [Effect(*place, gap) for place, gap in zip(places, differences(pairs), strict=True) if gap is not None]


def _averaged(cells: Sequence[Mapping[Partner, float]]) -> dict[Partner, float]:
    """The mean over all cells by seed and hardware, for those that every cell has."""
    partners = set.intersection(*(set(cell) for cell in cells)) if cells else set()
    return {partner: sum(cell[partner] for cell in cells) / len(cells) for partner in sorted(partners)}
