"""A plugin of cheap runs and claims of every ending, for the tests of the engine."""

TOY = """
from tian import hookimpl

@hookimpl
def tian_register_recipes(register):
    register("measure", "toy.work:measure", summary="one number", options="toy.work:Options")
    register("absent", "toy.work:measure", summary="needs what is not there", options="toy.work:Options", needs=("no_such_library",))

@hookimpl
def tian_register_configs(register):
    register("toy.conf")

@hookimpl
def tian_register_claims(register):
    register("toy.claims:CLAIMS")
"""
WORK = """
import os
import random
import time
from dataclasses import dataclass, field
from tian.config.compose import options_of
from tian.errors import DataError
from tian.types import Measurement

@dataclass
class Inner:
    at: float = 1.0  # where the number lies
    spread: float = 0.0  # how far seeds move it
    act: str = ""  # raise, refuse, wait, work or nan

@dataclass
class Options:
    it: Inner = field(default_factory=Inner)
    other: int = 0  # a second group

def measure(cfg, run):
    o = options_of(cfg).it
    with open(os.environ["TOY_LOG"], "a") as file:
        file.write(f"{cfg.seed} {o.at}\\n")
    if o.act == "raise":
        raise ValueError("the recipe broke")
    if o.act == "refuse":
        raise DataError("no such data", where="here", hint="bring some")
    if o.act == "wait":
        time.sleep(600)
    while o.act == "work":
        sum(range(1000))
    value = o.at + o.spread * random.Random(int(cfg.seed)).uniform(-1, 1)
    return [Measurement("value", float("nan") if o.act == "nan" else value, by={"of": "it"})]
"""
HEAD = "from tian.claims import Between, Check, Claim, Ge, Le, World\n"


def claims_source(*claims):
    """Source of a claims module; each claim is (name, holds, overrides, control, more keywords of Check, of Claim)."""
    lines = [HEAD, "CLAIMS = ["]
    for name, holds, overrides, control, more, claim in claims:
        check = {"config": "toy/measure", **more}
        lines.append(
            f"Claim(id='toy/{name}', says='{name} < words', where='ours', checks={{'tiny': Check("
            f"metric='value', holds={holds}, overrides={overrides!r}, control={control!r}, **{check!r})}}, **{claim!r}),"
        )
    return "\n".join([*lines, "]\n"])


def install_toy(install_plugin, *claims):
    """Install the toy plugin with these claims; returns the folder of its modules."""
    return install_plugin(
        "tian-plugin-toy",
        modules={
            "toy/__init__.py": "",
            "toy/plugin.py": TOY,
            "toy/work.py": WORK,
            "toy/claims.py": claims_source(*claims),
            "toy/conf/measure.yaml": "# one number\nrecipe: toy/measure\n",
            "toy/conf/absent.yaml": "# cannot run\nrecipe: toy/absent\n",
        },
        entry_points={"toy": "toy.plugin"},
    )
