[project]
name = "@@dist@@"
version = "0.1.0"
description = "@@summary@@ (a plugin for tian)"
readme = "README.md"
requires-python = ">=3.11"
license = "@@license@@"
dependencies = @@requires@@

[project.optional-dependencies]
test = ["pytest>=8", "hypothesis>=6"]

[project.entry-points."tian.plugins"]
@@name@@ = "@@package@@.plugin"

[build-system]
requires = ["setuptools>=77,<82"]
build-backend = "setuptools.build_meta"

[tool.setuptools.packages.find]
where = ["src"]

[tool.setuptools.package-data]
@@package@@ = ["py.typed", "conf/**/*.yaml"]

[tool.pytest.ini_options]
testpaths = ["tests"]

[tool.ruff]
line-length = 120

[tool.ruff.lint.isort]
known-first-party = ["tian", "@@package@@"]
