"""A study in Weights & Biases, as code: a workspace to look around in, a report to read.

wandb-workspaces builds both. The config of a run lies in W&B under flat keys (`model.norm`), which W&B stores with
their `value` at the end (`model.norm.value`), where the package would expect nested ones (`model.value.norm`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import wandb_workspaces.reports.v2.interface as wr
import wandb_workspaces.workspaces as ws
from pydantic.dataclasses import dataclass
from wandb_workspaces import expr

from alexnet_lab.base.errors import RunError, one_line
from alexnet_lab.base.files import write_json
from alexnet_lab.base.flatten import flat
from alexnet_lab.report.text_tables import summary_of
from alexnet_lab.sweeps.summary_tables import markdown

if TYPE_CHECKING:
    from pathlib import Path

    from alexnet_lab.report.comparison import Run, Study

log = logging.getLogger(__name__)

CURVES = ("val/top1_error", "train/top1_error", "val/loss", "train/loss", "learning_rate", "images_per_second")
"""What is drawn over the epochs, of what the runs have."""

PICTURES = ("augmentation", "confusion_matrix", "kernels")
"""Keys under which runs log pictures and charts at their end."""

NOBODY = "ENTITY"
"""Stands in a specification for a user or team that nobody named."""


class Place(NamedTuple):
    """Where the study's runs are in W&B."""

    entity: str
    project: str
    filters: expr.And


@dataclass(repr=False)
class FlatColumn(wr.ParallelCoordinatesPlotColumn):
    """A column of a flat config key."""

    def _to_model(self) -> Any:
        model = super()._to_model()
        if isinstance(self.metric, wr.Config):
            model.accessor = f"config:{self.metric.name}.value"
        return model


def publish(study: Study, folder: Path, *, entity: str | None, project: str | None) -> None:
    """Writes `wandb_workspace.json` and `wandb_report.json`, and with a login saves both to W&B.

    Args:
        study: Whose runs W&B has, or will have once they are synchronised.
        folder: Where the specifications go.
        entity: User or team; None: that of the runs, or the login's default.
        project: None: that of the runs.

    Raises:
        RunError: W&B cannot be reached, or does not accept them.
    """
    login = _login()
    place = find_place(study, entity or _own_entity(study) or (_default_entity() if login else None), project)
    workspace, report = build_workspace(study, place), build_report(study, place)
    paths = {"workspace": folder / "wandb_workspace.json", "report": folder / "wandb_report.json"}
    write_json(paths["workspace"], specification(workspace))
    write_json(paths["report"], specification(report))
    if not login:
        log.info("W&B: no login, so the workspace and the report are written as JSON: %s, %s", *paths.values())
        return
    try:
        for runset in runsets(report):  # with these the package looks the project up, which needs a login
            runset.entity, runset.project = place.entity, place.project
        workspace.save()
        report.save()
    except Exception as error:  # whatever the network or the server comes up with
        raise RunError(f"W&B: {type(error).__name__}: {one_line(error)}; the specification is in {folder}") from error
    log.info("W&B workspace: %s", workspace.url)
    log.info("W&B report: %s", report.url)


def _login() -> bool:
    """Whether there is one, without asking anybody."""
    from alexnet_lab.run.tracking import has_login  # noqa: PLC0415 - imports Lightning

    return has_login()


def _default_entity() -> str | None:
    import wandb  # noqa: PLC0415

    try:
        return wandb.Api(timeout=20).default_entity
    except Exception as error:
        raise RunError(f"W&B: {type(error).__name__}: {one_line(error)}; name the entity: entity=...") from error


def _own_entity(study: Study) -> str | None:
    return next((entity for run in study.runs if (entity := _tracker(run).get("entity"))), None)


def _tracker(run: Run) -> dict[str, Any]:
    """The logger's part of a run's config."""
    return run.config.get("logger") or {}


def find_place(study: Study, entity: str | None, project: str | None) -> Place:
    """Where the runs are: their project, and what picks them out of it, the sweep's group or else their names."""
    trackers = [_tracker(run) for run in study.runs if run.config]
    projects = [tracker["project"] for tracker in trackers if tracker.get("project")]
    groups = {tracker.get("group") for tracker in trackers}
    if len(groups) == 1 and None not in groups:
        chosen = expr.Metric("Group") == groups.pop()
    else:
        chosen = expr.Metric("Name").isin([_shown_name(run) for run in study.runs])
    return Place(entity or NOBODY, project or (projects or ["alexnet-lab"])[0], expr.And(chosen))


def _shown_name(run: Run) -> str:
    return _tracker(run).get("name") or run.path.name


def group_keys(study: Study) -> list[str]:
    """The config keys that tell the levels apart, as W&B has them: flat.

    Of a factor that chooses a whole group (`augment=none`), and of runs that are no sweep, the one key that tells most
    levels apart.
    """
    configs = [flat(dict(run.config)) for run in study.runs if run.config]
    names = sorted({name for config in configs for name in config})
    values = {name: {str(config.get(name)) for config in configs} for name in names}
    found: list[str] = []
    for key in study.definition["factor"]:
        under = [name for name in names if name == key or name.startswith(f"{key}.")]
        candidates = under or [name for name in names if name.startswith(EXPERIMENT)]
        best = max(candidates, key=lambda name: len(values[name]), default=None)
        if best is not None and len(values[best]) > 1:
            found.append(best)
    return found


EXPERIMENT = ("model.", "data.", "augment.", "loss.", "optimizer.", "schedule.", "trainer.")
"""The groups in which experiments differ; places and trackers say nothing about them."""


def panels(study: Study) -> list[Any]:
    """The metric by level, curves by level, parallel coordinates, layers, what differs between runs, their pictures."""
    keys = group_keys(study)
    by = wr.Config(f"{keys[0]}.value") if keys else None
    columns: list[Any] = [FlatColumn(metric=wr.Config(key)) for key in [*keys, "seed"]]
    columns.append(FlatColumn(metric=wr.SummaryMetric(study.metric)))
    curves = [name for name in CURVES if name in study.curve_names()]
    drawn = [(name, [name]) for name in curves] + [
        (kind, names)
        for kind in LAYER_KINDS
        if (names := [name for name in study.curve_names() if name.endswith(kind)])
    ]
    last = 1 + -(-len(drawn) // 2)
    return [
        wr.BarPlot(
            title=f"{study.metric} by level", metrics=[wr.SummaryMetric(study.metric)], groupby=by,
            groupby_aggfunc="mean", groupby_rangefunc="stddev", layout=_layout(0, 0),
        ),
        wr.ParallelCoordinatesPlot(title=f"config and {study.metric}", columns=columns, layout=_layout(1, 0)),
        *(
            wr.LinePlot(
                title=title, x="epoch", y=list(names), groupby=by, groupby_aggfunc="mean", groupby_rangefunc="stddev",
                layout=_layout(number % 2, 1 + number // 2),
            )
            for number, (title, names) in enumerate(drawn)
        ),
        wr.RunComparer(diff_only="split", layout=_layout(0, last, wide=True)),
        wr.MediaBrowser(
            title="pictures", media_keys=list(PICTURES), num_columns=3, layout=_layout(0, last + 1, wide=True)
        ),
    ]  # fmt: skip


LAYER_KINDS = ("update_ratio", "dead_share")
"""What callbacks.layer_statistics tells of each layer."""


def _layout(column: int, row: int, *, wide: bool = False) -> wr.Layout:
    """A place in a grid of two columns; a section is 24 units wide."""
    return wr.Layout(x=12 * column, y=8 * row, w=24 if wide else 12, h=8)


def build_workspace(study: Study, place: Place) -> ws.Workspace:
    """The study's runs grouped by level, with one section of panels."""
    keys = group_keys(study)
    runs = ws.RunsetSettings(
        filters=place.filters,
        groupby=[expr.Config(f"{key}.value") for key in keys],
        pinned_columns=[
            "run:displayName",
            *(f"config:{key}.value" for key in [*keys, "seed"]),
            f"summary:{study.metric}",
        ],
    )
    return ws.Workspace(
        entity=place.entity,
        project=place.project,
        name=study.title,
        sections=[ws.Section(name=study.title, panels=panels(study), is_open=True)],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=MOST_RUNS),
        runset_settings=runs,
        auto_generate_panels=False,
    )


MOST_RUNS = 100
"""What W&B draws at once."""


def build_report(study: Study, place: Place) -> wr.Report:
    """Claim, table of levels, panels, and the command that makes the runs."""
    grid = wr.PanelGrid(
        runsets=[
            wr.Runset(
                name=study.title,
                filters=place.filters,
                groupby=[f"config.{key}.value" for key in group_keys(study)],
            )
        ],
        panels=panels(study),
    )
    blocks: list[Any] = [wr.MarkdownBlock(markdown(summary_of(study, study.metric))), wr.H2("Runs"), grid]
    if study.command:
        blocks += [wr.H2("How to reproduce"), wr.MarkdownBlock(f"```bash\n{study.command}\n```")]
    return wr.Report(
        entity=place.entity,
        project=place.project,
        title=study.title,
        description=study.claim,
        width="fluid",
        blocks=blocks,
    )


def specification(built: ws.Workspace | wr.Report) -> dict[str, Any]:
    """What would be sent to W&B."""
    model = built._to_model()
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def runsets(report: wr.Report) -> list[wr.Runset]:
    """The sets of runs of a report's panels."""
    return [runset for block in report.blocks if isinstance(block, wr.PanelGrid) for runset in block.runsets]
