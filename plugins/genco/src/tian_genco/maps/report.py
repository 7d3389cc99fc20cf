"""Report of `genco/warcraft`: maps with their paths, every measure beside that of the data, and the trade by weight."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tian.plots import COLOURS, new_axes, to_svg
from tian.types import Section
from tian_genco.learn.judge import HINT
from tian_genco.learn.report import measures_table
from tian_genco.maps.names import DATA, OURS, WITHOUT

if TYPE_CHECKING:
    from tian.runs.rundir import Run
