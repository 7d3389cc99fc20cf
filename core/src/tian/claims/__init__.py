"""Claims: a config, a bar, and a control that must miss it. The words a plugin's `claims.py` needs; nothing heavy."""

from __future__ import annotations

from tian.claims.model import Between, Check, Claim, Ge, Le, World

__all__ = ["Between", "Check", "Claim", "Ge", "Le", "World"]
