"""@@name@@ keeps the contract of role sparsity_predictor; `tian show sparsity_predictor` prints it."""

from tian.testing import conformance

Test@@Class@@ = conformance.sparsity_predictor(
    "@@name@@/@@name@@",
    options=[{"rank": 8}, {"rank": 1, "ridge": 0.1}],
    bad_options=[{"rank": 0}, {"ridge": 0.0}],
)
