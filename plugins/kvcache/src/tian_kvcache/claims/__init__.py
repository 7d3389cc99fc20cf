"""Claims of the two papers and of ours: the one place of this plugin that holds bars, a module a subject.

Bars change only with a decision in `docs/adr`.
"""

from tian_kvcache.claims import accuracy, heavy, long_stream, optimum, recall, sinks, speed, streaming

CLAIMS = [
    *streaming.CLAIMS,
    *long_stream.CLAIMS,
    *sinks.CLAIMS,
    *speed.CLAIMS,
    *heavy.CLAIMS,
    *accuracy.CLAIMS,
    *recall.CLAIMS,
    *optimum.CLAIMS,
]
