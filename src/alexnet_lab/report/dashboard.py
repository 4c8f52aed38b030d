"""A study in Weights & Biases, as code: a workspace to explore and a report to read.

wandb-workspaces builds both. W&B has the config of a run under flat keys (`model.norm`) and stores them with `value` at
the end (`model.norm.value`), where the package would expect nested keys (`model.value.norm`).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import wandb
import wandb_workspaces.reports.v2.interface as wr
import wandb_workspaces.workspaces as ws
from pydantic.dataclasses import dataclass
from wandb_workspaces import expr

from alexnet_lab.base.errors import RunError, one_line
from alexnet_lab.base.files import write_json
from alexnet_lab.base.flatten import flat
from alexnet_lab.config.wandb_checks import OURS_AT_WANDB
from alexnet_lab.report.comparison import Run, Study
from alexnet_lab.report.text_tables import summary_of
from alexnet_lab.run import tracking
from alexnet_lab.run.tolerant_loggers import steady
from alexnet_lab.run.wandb_media import shown
from alexnet_lab.run.wandb_names import short_name
from alexnet_lab.sweeps.summary_tables import markdown

log = logging.getLogger(__name__)

CURVES = ("val/top1_error", "train/top1_error", "val/loss", "train/loss", "learning_rate", "images_per_second")
"""The curves to draw over the epochs, if the runs have them."""

PICTURES = ("augmentation", "confusion_matrix", "kernels")
"""Keys under which runs log pictures and charts at their end."""

FOREST = "differences"
"""The report's figure of the differences from the base with their intervals."""

NOBODY = "ENTITY"
"""The placeholder in a specification for a user or team."""


class Place(NamedTuple):
    """The location of the study's runs in W&B."""

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
    """Writes `wandb_workspace.json` and `wandb_report.json`, and saves both to W&B if there is a login.

    Args:
        study: A study whose runs W&B has, or will have after synchronisation.
        folder: The folder of the specifications.
        entity: User or team; None: that of the runs, or the login's default.
        project: None: that of the runs.

    Raises:
        RunError: W&B cannot be reached, or rejects them.
    """
    login = tracking.has_login()
    own = next((known for run in study.runs if (known := _tracker(run).get("entity"))), None)
    place = find_place(study, entity or own or (_default_entity() if login else None), project)
    forest = folder / f"figures{study.suffix}" / f"{FOREST}.png"
    workspace, report = build_workspace(study, place), build_report(study, place, forest=forest.is_file())
    paths = {name: folder / f"wandb_{name}{study.suffix}.json" for name in ("workspace", "report")}
    write_json(paths["workspace"], specification(workspace))
    write_json(paths["report"], specification(report))
    if forest.is_file():
        log_forest(forest, study, place, online=login)
    if not login:
        log.info("W&B: no login, so the workspace and the report are written as JSON: %s, %s", *paths.values())
        return
    try:
        for runset in runsets(report):  # with these the package looks up the project, which needs a login
            runset.entity, runset.project = place.entity, place.project
        workspace.save()
        report.save()
    except Exception as error:  # the network or the server may raise anything
        raise RunError(f"W&B: {type(error).__name__}: {one_line(error)}; the specification is in {folder}") from error
    log.info("W&B workspace: %s", workspace.url)
    log.info("W&B report: %s", report.url)


def log_forest(picture: Path, study: Study, place: Place, *, online: bool) -> None:
    """Logs the forest plot as a W&B run of its own; a report that is made again continues the same run.

    Another metric than the sweep's own has a picture of its own there.
    Without a login the run is kept in the report's folder, for `wandb sync`.
    """
    folder = picture.parent.parent
    parts = len(list(folder.glob("wandb/*run-*")))  # each comes after the earlier ones
    entity = None if place.entity == NOBODY else place.entity
    loggers = steady(
        OURS_AT_WANDB,
        lambda: tracking.wandb_logger(
            folder, {"tags": ["report"]}, project=place.project, entity=entity,
            mode="online" if online else "offline", name=report_name(study), job_type="report",
        ),
    )  # fmt: skip
    tracking.show(loggers, lambda: {f"{FOREST}{study.suffix}": shown([picture])[FOREST]}, parts)
    tracking.finish(loggers, 0)


def report_name(study: Study) -> str:
    """The name of the W&B run that has the figures of a report."""
    return f"report of {study.title}"[:128]


def _default_entity() -> str | None:
    try:
        return wandb.Api(timeout=20).default_entity
    except Exception as error:
        raise RunError(f"W&B: {type(error).__name__}: {one_line(error)}; name the entity: entity=...") from error


def _tracker(run: Run) -> dict[str, Any]:
    """The logger's part of a run's config."""
    return run.config.get("logger") or {}


def find_place(study: Study, entity: str | None, project: str | None) -> Place:
    """The runs' project, and the filter that selects them: the sweep's group, otherwise their names."""
    trackers = [_tracker(run) for run in study.runs if run.config]
    projects = [tracker["project"] for tracker in trackers if tracker.get("project")]
    groups = {tracker.get("group") for tracker in trackers}
    if len(groups) == 1 and None not in groups:
        chosen = expr.Metric("Group") == groups.pop()
    else:
        chosen = expr.Metric("Name").isin([_shown_name(run) for run in study.runs])
    return Place(entity or NOBODY, project or (projects or ["alexnet-lab"])[0], expr.And(chosen))


def _shown_name(run: Run) -> str:
    return _tracker(run).get("name") or short_name(run.path.name)


def group_keys(study: Study) -> list[str]:
    """The config keys that distinguish the levels, flat as in W&B.

    If a factor chooses a whole group (`augment=none`), or the runs are no sweep, this is the one key that distinguishes
    most levels.
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
"""The groups in which experiments differ, without directories and loggers."""


def panels(study: Study) -> list[Any]:
    """The metric by level, curves by level, parallel coordinates, layers, run differences and pictures."""
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
"""The measurements of callbacks.layer_statistics for each layer."""


def _layout(column: int, row: int, *, wide: bool = False) -> wr.Layout:
    """A cell in a grid of two columns; a section is 24 units wide."""
    return wr.Layout(x=12 * column, y=8 * row, w=24 if wide else 12, h=8)


def build_workspace(study: Study, place: Place) -> ws.Workspace:
    """Builds a workspace with the study's runs grouped by level, and one section of panels."""
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
"""The most runs that W&B draws at once."""


def build_report(study: Study, place: Place, *, forest: bool = False) -> wr.Report:
    """Builds a report: claim, table of levels, panels, forest plot, and the command that computes the runs."""
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
    table = wr.MarkdownBlock(markdown(summary_of(study, study.metric)))
    blocks: list[Any] = [table, wr.H2("Runs"), grid]
    if forest:
        blocks += [wr.H2("Differences from the base"), forest_panel(study)]
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


def forest_panel(study: Study) -> wr.PanelGrid:
    """Shows the forest plot of the run that `publish` logs."""
    filters = expr.And(expr.Metric("Name") == report_name(study), expr.Metric("JobType") == "report")
    keys = [f"{FOREST}{study.suffix}"]
    browser = wr.MediaBrowser(title="forest plot", media_keys=keys, num_columns=1, layout=_layout(0, 0, wide=True))
    return wr.PanelGrid(runsets=[wr.Runset(name=report_name(study), filters=filters)], panels=[browser])


def specification(built: ws.Workspace | wr.Report) -> dict[str, Any]:
    """The JSON that would be sent to W&B."""
    model = built._to_model()
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def runsets(report: wr.Report) -> list[wr.Runset]:
    """The sets of runs in a report's panels."""
    return [runset for block in report.blocks if isinstance(block, wr.PanelGrid) for runset in block.runsets]
