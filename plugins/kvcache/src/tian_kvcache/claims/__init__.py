"""Claims of the two papers and of ours: the one place of this plugin that holds bars, a module a subject.

Bars change only with a decision in `docs/adr`.
"""

from tian_kvcache.claims import streaming

CLAIMS = [*streaming.CLAIMS]
