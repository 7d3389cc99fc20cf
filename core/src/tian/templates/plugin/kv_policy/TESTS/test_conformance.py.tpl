"""@@name@@ keeps the contract of role kv_policy; `tian show kv_policy` prints it."""

from tian.testing import conformance

Test@@Class@@ = conformance.kv_policy(
    "@@name@@/@@name@@",
    options=[{"budget": 8}, {"budget": 1}],
    bad_options=[{"budget": 0}],
)
