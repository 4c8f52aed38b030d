"""Compares runs in tables, figures, one HTML page, and a W&B report as code. It only reads files of runs."""

from __future__ import annotations

from alexnet_lab.report.make import make_report

__all__ = ["make_report"]
