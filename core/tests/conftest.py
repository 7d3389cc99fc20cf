"""Small random models of every supported architecture."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # conftest_models
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture(scope="session")
def models():
    """A cache of models by their arguments."""
    made = {}

    def get(kind, **options):
        key = (kind, tuple(sorted(options.items())))
        if key not in made:
            from conftest_models import make_model

            made[key] = make_model(kind, **options)
        return made[key]

    return get
