"""Mutants of FakeTorchModel."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
from typing import Any

import torch

from tian.errors import DataError
from tian.spec import Instance, Site
from tian.testing import conformance
from tian.testing.fake_models import Affine, FakeTorchModel
from tian.testing.mutants import Mutant, mutant
from tian.testing.mutants.common import common_mutants, count, entropy, first

FAKE = M = FakeTorchModel
ONE = Affine(3, 0)


def batch(seed: int, n: int) -> dict[str, Any]:
    """Rows with targets."""
    g = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(n, 3, generator=g), "y": torch.randn(n, generator=g)}


def conform(target: Any) -> type:
    """Its conformance class."""
    return conformance.model(target, options=[{"seed": 0}, {"seed": 1}], bad_options=[{"width": 0}], batch=batch)


def forwards(name: str, change: Any) -> Mutant:
    """One whose outputs are `change(out, batch)`."""
    return mutant(name, M, forward=lambda s, batch: change(dict(M.forward(s, batch)), batch))


def generates(name: str, change: Any) -> Mutant:
    """One whose generations have other fields: `change(g, ids) -> fields`."""

    def generate(self: Any, ids: Any, *, max_new_tokens: int, kv: Any, sampling: Any, seed: int) -> Any:
        g = M.generate(self, ids, max_new_tokens=max_new_tokens, kv=kv, sampling=sampling, seed=seed)
        return dataclasses.replace(g, **change(g, ids))

    return mutant(name, M, generate=generate)


def seeded(name: str, seed_of: Any) -> Mutant:
    """One that generates from `seed_of(seed)`."""
    return mutant(
        name,
        M,
        generate=lambda s, ids, *, max_new_tokens, kv, sampling, seed: M.generate(
            s, ids, max_new_tokens=max_new_tokens, kv=kv, sampling=sampling, seed=seed_of(seed)
        ),
    )


def _share(self: Any, width: int = 3, seed: int = 0) -> None:
    M.__init__(self, width, seed)
    with torch.no_grad():
        ONE.load_state_dict(self._module.state_dict())
    self._module = ONE


def _no_bias(self: Any) -> str:
    return hashlib.sha256(self._module.weight.detach().numpy().tobytes()).hexdigest()


def _rounded(self: Any) -> str:
    return hashlib.sha256(repr(self._module.weight.detach().norm().round().item()).encode()).hexdigest()


def _fresh(cls: Any, folder: Any) -> Any:
    M.load_weights.__func__(cls, folder)  # type: ignore[attr-defined]
    return cls(**json.loads((folder / "config.json").read_text()))


def _base(cls: Any, folder: Any) -> Any:
    return M.load_weights(folder)


def _tolerant(cls: Any, folder: Any) -> Any:
    try:
        return M.load_weights.__func__(cls, folder)  # type: ignore[attr-defined]
    except DataError:
        return cls()


def _raw(cls: Any, folder: Any) -> Any:
    try:
        return M.load_weights.__func__(cls, folder)  # type: ignore[attr-defined]
    except DataError as error:
        raise FileNotFoundError(str(error)) from error


def _pickled(self: Any, folder: Any) -> None:
    M.save_weights(self, folder)
    torch.save(self._module.state_dict(), folder / "model.pt")


def _no_config(self: Any, folder: Any) -> None:
    M.save_weights(self, folder)
    (folder / "config.json").rename(folder / "config.txt")


class Extra(Affine):
    """A module whose state holds a Python object."""

    def get_extra_state(self) -> Any:
        """An object that is no plain data."""
        return Site("mlp", 0, 1)

    def set_extra_state(self, state: Any) -> None:
        """Nothing."""


def _with_extra(self: Any, width: int = 3, seed: int = 0) -> None:
    M.__init__(self, width, seed)
    self._module = Extra(width, seed)


def _hash_of_extra(self: Any) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in self._module.parameters())).hexdigest()


MUTANTS = [
    *(m for m in common_mutants(M, method="fingerprint") if "position" not in m.name),  # it takes no arguments
    mutant("fingerprint as a number", M, fingerprint=lambda s: int(M.fingerprint(s), 16)),
    mutant("fingerprint is a name", M, fingerprint=lambda s: f"affine-{M.fingerprint(s)}"),
    mutant("fingerprint of the object", M, fingerprint=lambda s: hashlib.sha256(str(id(s)).encode()).hexdigest()),
    mutant("fingerprint counts its calls", M, fingerprint=lambda s: f"{count(s):064x}"),
    mutant("fingerprint constant", M, fingerprint=lambda s: "0" * 64),
    mutant("fingerprint of the options", M, fingerprint=lambda s: f"{s.seed + 10:064x}"),
    mutant("fingerprint without the bias", M, fingerprint=_no_bias),
    mutant("fingerprint of a rounded norm", M, fingerprint=_rounded),
    mutant("forward under another argument name", M, forward=lambda s, inputs: dict(M.forward(s, inputs))),
    mutant("generate without seed", M, generate=lambda s, ids, *, max_new_tokens, kv, sampling: None),
    mutant("a copy of the module each time", M, module=lambda s: copy.deepcopy(s._module)),
    mutant("one module for all instances", M, __init__=_share),
    mutant("a site twice", M, sites=lambda s: [Site("mlp", 0, 3)] * 2),
    mutant("a site of unknown kind", M, sites=lambda s: [Site("conv", 0, 3)]),
    mutant("sites as tuples", M, sites=lambda s: [("mlp", 0, 3)]),
    forwards("no loss with targets", lambda out, b: {"prediction": out["prediction"]}),
    forwards("a loss a row", lambda out, b: out | {"loss": (out["prediction"] - b["y"]).square()}),
    forwards("outputs of NaN", lambda out, b: out | {"prediction": out["prediction"] * math.nan}),
    forwards("targets removed from the batch", lambda out, b: first(out, b.pop("y"))),
    forwards("inputs centred in place", lambda out, b: first(out, b["x"].sub_(1.0))),
    forwards("drops out in eval mode", lambda out, b: out | {"prediction": out["prediction"] * (torch.rand(1) > -1)}),
    forwards(
        "normalises over the batch", lambda out, b: out | {"prediction": out["prediction"] - out["prediction"].mean()}
    ),
    mutant(
        "outputs drift with use",
        M,
        forward=lambda s, batch: {k: v + 0.01 * count(s) for k, v in M.forward(s, batch).items()},
    ),
    mutant("load_weights forgets the weights", M, load_weights=classmethod(_fresh)),
    mutant("load_weights makes another class", M, load_weights=classmethod(_base)),
    mutant("damaged weights become fresh ones", M, load_weights=classmethod(_tolerant)),
    mutant("damaged weights raise what comes", M, load_weights=classmethod(_raw)),
    mutant("weights pickled as well", M, save_weights=_pickled),
    mutant("weights without a config", M, save_weights=_no_config),
    mutant("an object in the state", M, __init__=_with_extra, fingerprint=_hash_of_extra),
    mutant("completions backwards", M, complete=lambda s, prompts, sampling: [p[::-1] for p in prompts[::-1]]),
    mutant(
        "no completion of an empty prompt", M, complete=lambda s, prompts, sampling: [p[::-1] for p in prompts if p]
    ),
    mutant(
        "completions padded to the longest",
        M,
        complete=lambda s, prompts, sampling: [p.ljust(max(map(len, prompts))) for p in prompts],
    ),
    generates("new tokens only", lambda g, ids: {"ids": g.ids[:, ids.shape[1] :]}),
    generates("ids in int32", lambda g, ids: {"ids": g.ids.int()}),
    generates("a token too many", lambda g, ids: {"ids": torch.cat([g.ids, g.ids[:, :1]], dim=1)}),
    generates("finish done", lambda g, ids: {"finish": ("done",) * len(ids)}),
    generates("lengths of the new tokens", lambda g, ids: {"lengths": g.lengths - ids.shape[1]}),
    seeded("seed ignored", lambda seed: entropy()),
    seeded("global generator seeded", lambda seed: first(seed, torch.manual_seed(seed))),
    generates("prompt padded in place", lambda g, ids: first({}, ids.shape[1] and ids.fill_(0))),
    mutant(
        "an empty prompt begins with 0",
        M,
        generate=lambda s, ids, *, max_new_tokens, kv, sampling, seed: M.generate(
            s,
            ids if ids.shape[1] else torch.zeros(len(ids), 1, dtype=torch.int64),
            max_new_tokens=max_new_tokens,
            kv=kv,
            sampling=sampling,
            seed=seed,
        ),
    ),
    mutant("codes as floats", M, encode=lambda s, states, actions: M.encode(s, states, actions).float()),
    mutant("a code beyond the codebook", M, encode=lambda s, states, actions: M.encode(s, states, actions) + 3),
    mutant(
        "decoded actions without T",
        M,
        decode=lambda s, codes, s0: (M.decode(s, codes, s0)[0], M.decode(s, codes, s0)[1][:, 0]),
    ),
    mutant("logits for the last code only", M, prior=lambda s, codes, s0: M.prior(s, codes, s0)[:, -1:]),
    mutant("an instance too few", M, instances=lambda s, z: M.instances(s, z)[1:]),
    mutant(
        "costs in float32",
        M,
        instances=lambda s, z: [Instance(i.kind, i.cost.astype("float32"), 1) for i in M.instances(s, z)],
    ),
    mutant(
        "instances with noise",
        M,
        instances=lambda s, z: [Instance(i.kind, i.cost + entropy() / 2**32, 1) for i in M.instances(s, z)],
    ),
]
