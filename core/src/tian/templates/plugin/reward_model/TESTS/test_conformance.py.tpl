"""@@name@@ keeps the contract of role reward_model; `tian show reward_model` prints it."""

from tian.testing import conformance

Test@@Class@@ = conformance.reward_model(
    "@@name@@/@@name@@",
    options=[{"target_words": 50}, {"target_words": 1}],
    bad_options=[{"target_words": 0}],
    items="text",
)
