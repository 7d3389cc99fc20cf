"""What looks around must answer at once: nothing heavy is imported for it."""

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "transformers", "lightning", "numpy", "omegaconf", "rich", "yaml", "matplotlib", "safetensors"]
PROBE = """
import json, sys
from tian.cli.main import main
code = main(sys.argv[1:])
print("\\n" + json.dumps([code, sorted(sys.modules)]))
"""


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["--help"], "exit codes"),
        (["--version"], "tian "),
        (["plugins"], "tian-plugin-kvcache"),
        (["plugins", "--fast"], "tian-plugin-kvcache"),
        (["list"], "kvcache/streaming"),
        (["list", "run"], "kvcache/demo"),
    ],
)
def test_looking_around_imports_nothing_heavy(argv, shown):
    done = subprocess.run([sys.executable, "-c", PROBE, *argv], capture_output=True, text=True, check=True, timeout=60)
    *text, last = done.stdout.strip().splitlines()
    code, modules = json.loads(last)
    assert code == 0
    assert shown in "\n".join(text)
    assert "tian.cli.main" in modules  # the probe sees what is imported
    assert [name for name in HEAVY if name in modules] == []


def test_importing_tian_imports_nothing_heavy():
    code = "import sys, json, tian; tian.list(); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert [name for name in HEAVY if name in json.loads(done.stdout)] == []
