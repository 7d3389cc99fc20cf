"""Settings of hypothesis for the whole suite: no deadlines (a shared machine stalls), the same examples every time in CI."""

import os

from hypothesis import settings

settings.register_profile("tian", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tian")
