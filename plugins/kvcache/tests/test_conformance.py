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
TestH2O = conformance.kv_policy(
    "kvcache/h2o",
    options=[{"heavy": 6, "recent": 5}, {"heavy": 0, "recent": 3}, {"budget": 12, "layers": "pyramid"}],
    bad_options=[{"recent": 0}, {"heavy": -1}, {"budget": 1}, {"budget": 1.5}, {"layers": "ring"}],
)
TestH2ODecay = conformance.kv_policy(
    "kvcache/h2o-decay", options=[{"heavy": 6, "recent": 5, "decay": 0.9}], bad_options=[{"decay": 0.0}, {"decay": 2}]
)
TestSinkH2O = conformance.kv_policy(
    "kvcache/sink-h2o", options=[{"sinks": 2, "heavy": 4, "recent": 5}], bad_options=[{"sinks": -1}]
)
TestTova = conformance.kv_policy("kvcache/tova", options=[{"budget": 9}], bad_options=[{"budget": 0}])
TestRandom = conformance.kv_policy(
    "kvcache/random",
    options=[{"budget": 9, "sinks": 2}, {"budget": 9, "sinks": 0, "seed": 3}],
    bad_options=[{"sinks": -1}],
)
