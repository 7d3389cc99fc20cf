"""Kernels below tian: each a torch reference, a triton kernel of the same meaning, and a launcher that picks one.

Nothing here imports tian. A caller's mistake is a ValueError; triton is optional and its absence changes no result.
"""

from tian_kernels.colsum import prefill_colsum
from tian_kernels.decode import decode_attention
from tian_kernels.dispatch import choose
from tian_kernels.rotate import Rotary, rotate_by_table, rotate_by_table_
from tian_kernels.slots import Slots, Victim

__all__ = [
    "Rotary",
    "Slots",
    "Victim",
    "choose",
    "decode_attention",
    "prefill_colsum",
    "rotate_by_table",
    "rotate_by_table_",
]
