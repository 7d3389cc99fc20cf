"""@@name@@ keeps the contract of role planner; `tian show planner` prints it."""

from tian.testing import conformance

Test@@Class@@ = conformance.planner(
    "@@name@@/@@name@@",
    options=[{"horizon": 3, "population": 12, "elites": 3, "iterations": 3}, {"horizon": 1, "actions": 1}],
    bad_options=[{"horizon": 0}, {"elites": 9, "population": 8}],
    obs_dim=4,
    bounds=(-1.0, 1.0),
)
