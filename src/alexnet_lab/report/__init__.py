"""Runs side by side: tables, figures, one HTML page, and a W&B report as code. It only reads what runs have left."""

from __future__ import annotations

from alexnet_lab.report.make import make_report

__all__ = ["make_report"]
