"""Our policies pass the conformance kit."""

from tian.testing import conformance

TestFull = conformance.kv_policy("kvcache/full")
TestWindow = conformance.kv_policy(
    "kvcache/window", options=[{"recent": 1}, {"recent": 7}, {}], bad_options=[{"recent": 0}, {"recent": "7"}]
)
TestStreaming = conformance.kv_policy(
    "kvcache/streaming",
    options=[{"sinks": 4, "recent": 8}, {"sinks": 0, "recent": 1}, {"sinks": 3, "recent": 1}, {}],
    bad_options=[{"sinks": -1}, {"recent": 0}, {"recent": 2.5}],
)
