"""Claims of the paper and of ours: the one place of this plugin that holds bars, a module a subject.

Bars change only with a decision in `docs/adr`.
"""

from tian_genco.claims import devices, levels, maps, sampling

CLAIMS = [*levels.CLAIMS, *maps.CLAIMS, *devices.CLAIMS, *sampling.CLAIMS]
