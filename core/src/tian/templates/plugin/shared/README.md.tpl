# @@dist@@

@@Summary@@. A plugin for tian with one component, the @@role@@ `@@name@@/@@name@@`.

@@origin@@```sh
pip install --no-build-isolation -e .
pytest                       # the contract of the role, and the demo
tian show @@name@@/@@name@@  # what it does and its options
tian run @@name@@/demo       # the demo; numbers and report land in runs/@@name@@/demo/
tian claims @@name@@         # does what is claimed hold here, and does the control fail?
```

| file | what it is |
|---|---|
| `src/@@package@@/plugin.py` | what the plugin offers; imported by every `tian` command, so it stays light |
| `src/@@package@@/@@module@@.py` | the component |
| `src/@@package@@/@@options_module@@.py` | its options; the comment behind a field is its documentation |
| `src/@@package@@/demo.py`, `demo_options.py`, `conf/demo.yaml` | the run `@@name@@/demo` |
| `src/@@package@@/claims.py` | what is claimed, with a bar and a control that must miss it |
| `tests/test_conformance.py` | holds the component to the contract of its role (`tian show @@role@@`) |
| `tests/test_demo.py` | the demo meets the bar, the control misses it |

## Licence

@@license@@; set another one in `pyproject.toml` if you wish, and add its text as `LICENSE`.
