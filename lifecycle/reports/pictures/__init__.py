"""Pictures as SVG text: no JavaScript, no dependency, colours by class only. Pure.

Each is a `Picture` with a title, a description and labels that do not collide. `CSS` in `reports.style` colours them.
"""

from __future__ import annotations

from lifecycle.reports.pictures.barchart import Bar, bars
from lifecycle.reports.pictures.canvas import Picture
from lifecycle.reports.pictures.charts import Line, Series, lines, spark, stacked
from lifecycle.reports.pictures.statechart import Arrow, states

__all__ = ["Arrow", "Bar", "Line", "Picture", "Series", "bars", "lines", "spark", "stacked", "states"]
