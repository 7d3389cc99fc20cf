"""Checks of role model: the fingerprint, and every protocol the model satisfies."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from hypothesis import strategies as st

from tian.errors import DataError, InvalidInput
from tian.spec import CausalLM, InstanceGenerator, Site, TextGenerator, TorchModel, TrajectoryModel
from tian.testing.conformance.base import Option, prop, require, skip
from tian.testing.conformance.common import CommonChecks, accepts
from tian.testing.conformance.role_sparsity_predictor import raises, through_a_file
from tian.testing.conformance.watch import global_randomness_untouched, same, unchanged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

PROTOCOLS = (TorchModel, TextGenerator, CausalLM, TrajectoryModel, InstanceGenerator)
SEEDS = st.integers(0, 2**16)
GREEDY = {"temperature": 0.0}


class ModelChecks(CommonChecks):
    """Contract of `tian.spec.Model` and of the protocols beside it."""

    role: ClassVar[str] = "model"
    batch: ClassVar[Any] = None
    state_dim: ClassVar[int] = 3
    action_dim: ClassVar[int] = 2
    z_dim: ClassVar[int] = 4
    vocab: ClassVar[int] = 16

    # -- fingerprint ---------------------------------------------------------------------------------------------------

    def test_md01_the_fingerprint_is_a_hex_digest(self, option: Option) -> None:
        """`fingerprint` is a str of at least 16 hexadecimal digits."""
        found = self.make(option).fingerprint()
        good = isinstance(found, str) and len(found) >= 16 and set(found) <= set("0123456789abcdef")
        require(good, f"fingerprint is {found!r}")

    def test_md02_equal_models_have_equal_fingerprints(self, option: Option) -> None:
        """Models of the same options have the same fingerprint, whenever it is asked for."""
        one, two = self.make(option), self.make(option)
        require(one.fingerprint() == one.fingerprint() == two.fingerprint(), "the fingerprint changes")

    def test_md03_different_models_have_different_fingerprints(self) -> None:
        """Models of different option sets have different fingerprints."""
        found = [self.make(o).fingerprint() for o in self.options]
        if len(found) < 2:
            skip("one option set only")
        require(len(set(found)) == len(found), "two option sets share a fingerprint")

    def test_md04_the_fingerprint_follows_the_weights(self, option: Option) -> None:
        """Changing one weight changes the fingerprint; changing it back restores it."""
        model = self.torch_model(option)
        before = model.fingerprint()
        for name, p in model.module().named_parameters():
            with torch.no_grad():
                old = p.flatten()[-1].item()
                p.view(-1)[-1] = old + 1.0
                require(model.fingerprint() != before, f"the fingerprint ignores {name}")
                p.view(-1)[-1] = old
        require(model.fingerprint() == before, "the fingerprint does not return with the weights")

    def test_md05_what_it_can_do_has_the_signatures_of_the_protocols(self, option: Option) -> None:
        """Every method of a protocol the model satisfies takes the protocol's arguments by name."""
        model = self.make(option)
        for protocol in PROTOCOLS:
            if isinstance(model, protocol):
                for name, method in vars(protocol).items():
                    function = getattr(method, "__func__", method)
                    if callable(function) and not name.startswith("_"):
                        accepts(model, name, function)

    # -- TorchModel ----------------------------------------------------------------------------------------------------

    def test_md06_the_module_is_one_object(self, option: Option) -> None:
        """`module` returns the same torch module each time, and another one for another instance."""
        model = self.torch_model(option)
        require(isinstance(model.module(), torch.nn.Module), f"module is a {type(model.module()).__name__}")
        require(model.module() is model.module(), "module returns a new object each time")
        mine = {id(p) for p in model.module().parameters()}
        others = {id(p) for p in self.torch_model(option).module().parameters()}
        require(not mine & others, "two instances share a parameter")

    def test_md07_sites_are_listed(self, option: Option) -> None:
        """`sites` are different `Site`s of kind attention or mlp with layer >= 0 and width >= 1."""
        model = self.torch_model(option)
        found = list(model.sites())
        require(all(isinstance(s, Site) for s in found), "not every entry is a Site")
        for s in found:
            require(s.kind in ("attention", "mlp") and s.layer >= 0 and s.width >= 1, f"{s}")
        require(len(set(found)) == len(found), "a site is listed twice")

    @prop(seed=SEEDS, n=st.integers(1, 4), examples=8)
    def test_md08_forward_gives_finite_tensors_and_a_loss(self, option: Option, seed: int, n: int) -> None:
        """`forward` returns finite tensors by name, with a scalar `loss` when the batch holds targets."""
        out = self.forward(self.torch_model(option), self.some(seed, n))
        for name, x in out.items():
            require(isinstance(x, torch.Tensor), f"{name} is a {type(x).__name__}")
            require(torch.isfinite(x).all(), f"{name} holds NaN or infinity")
        require("loss" in out and out["loss"].dim() == 0, f"no scalar loss among {sorted(out)}")

    @prop(seed=SEEDS, n=st.integers(1, 4), examples=8)
    def test_md09_forward_leaves_the_batch_and_global_randomness_alone(self, option: Option, seed: int, n: int) -> None:
        """`forward` in eval mode changes neither its batch nor the global random states."""
        model, batch = self.torch_model(option), self.some(seed, n)
        with unchanged("forward", batch=batch), global_randomness_untouched("forward in eval mode"):
            self.forward(model, batch)

    @prop(seed=SEEDS, n=st.integers(2, 4), examples=8)
    def test_md10_rows_are_independent(self, option: Option, seed: int, n: int) -> None:
        """In eval mode a row's outputs are those it has alone (1e-5), and the same when asked again."""
        model, batch = self.torch_model(option), self.some(seed, n)
        whole = {k: v.clone() for k, v in self.forward(model, batch).items()}
        for i in range(n):
            alone = self.forward(model, {k: v[i : i + 1] for k, v in batch.items()})
            for name, x in alone.items():
                if x.dim() and whole[name].shape[0] == n:
                    gap = float(((x[0] - whole[name][i]).abs() / x[0].abs().clamp(min=1.0)).max())
                    require(gap <= 1e-5, f"{name} of row {i} differs by {gap:.2g} when the row is alone")
        require(same(self.forward(model, batch), whole), "the same batch gave other outputs later")

    def test_md11_weights_survive_a_folder(self, option: Option) -> None:
        """`load_weights` of what `save_weights` wrote has the same fingerprint, changed weights included."""
        model = self.torch_model(option)
        with torch.no_grad():
            for p in model.module().parameters():
                p.add_(0.25)
        with tempfile.TemporaryDirectory() as folder:
            model.save_weights(Path(folder))
            back = type(model).load_weights(Path(folder))
        require(isinstance(back, type(model)), f"load_weights returned a {type(back).__name__}")
        require(back.fingerprint() == model.fingerprint(), "a loaded model has another fingerprint")
        mine, theirs = model.module().state_dict(), back.module().state_dict()
        require(same(dict(mine), dict(theirs)), "a loaded model has other weights")

    def test_md12_weights_are_safetensors_and_json(self, option: Option) -> None:
        """`save_weights` writes `.safetensors` and a `.json` config, and nothing that holds pickled code."""
        with tempfile.TemporaryDirectory() as folder:
            self.torch_model(option).save_weights(Path(folder))
            names = sorted(p.name for p in Path(folder).rglob("*") if p.is_file())
            for p in Path(folder).rglob("*.json"):
                json.loads(p.read_text(encoding="utf-8"))
        endings = {Path(n).suffix for n in names}
        require({".safetensors", ".json"} <= endings, f"the folder holds {names}")
        require(not endings & {".pt", ".pth", ".bin", ".pkl", ".ckpt"}, f"pickled files among {names}")

    def test_md13_damaged_weights_are_refused(self, option: Option) -> None:
        """An absent folder, and a truncated weights file, raise DataError."""
        model = self.torch_model(option)
        with tempfile.TemporaryDirectory() as folder:
            absent = Path(folder) / "absent"
            raises(DataError, "an absent folder", lambda: type(model).load_weights(absent))
            model.save_weights(Path(folder))
            for file in Path(folder).rglob("*.safetensors"):
                file.write_bytes(file.read_bytes()[:-8])
            raises(DataError, "a truncated file", lambda: type(model).load_weights(Path(folder)))

    def test_md14_the_state_of_the_module_is_plain_data(self, option: Option) -> None:
        """The module's `state_dict` passes `torch.save` and `torch.load(weights_only=True)` and restores a model."""
        model, other = self.torch_model(option), self.torch_model(option)
        with torch.no_grad():
            for p in model.module().parameters():
                p.mul_(0.5)
        other.module().load_state_dict(through_a_file(model.module().state_dict()))
        require(other.fingerprint() == model.fingerprint(), "a restored module has another fingerprint")

    # -- text ----------------------------------------------------------------------------------------------------------

    def test_md15_one_completion_a_prompt(self, option: Option) -> None:
        """`complete` returns one str a prompt, in order, the same as for each prompt alone; none for none."""
        model: Any = self.capable(option, TextGenerator)
        prompts = ["It rained.", "", "The sea rose, and then"]
        found = model.complete(prompts, GREEDY)
        require(isinstance(found, list) and all(isinstance(t, str) for t in found), "complete returned no list of str")
        require(len(found) == len(prompts), f"{len(found)} completions of {len(prompts)} prompts")
        alone = [model.complete([p], GREEDY)[0] for p in prompts]
        require(found == alone, "a prompt is completed otherwise in a batch, or the order is lost")
        require(model.complete([], GREEDY) == [], "no prompts give no empty list")

    @prop(seed=SEEDS, n=st.integers(1, 5), examples=6)
    def test_md16_generation_continues_the_prompt(self, option: Option, seed: int, n: int) -> None:
        """`generate` returns `[B, T+n]` int64 ids that begin with the prompt, lengths and known reasons to finish."""
        model, ids = self.capable(option, CausalLM), self.ids(seed)
        g = model.generate(ids, max_new_tokens=n, kv=None, sampling=GREEDY, seed=seed)
        T = ids.shape[1]
        require(g.ids.dtype == torch.int64 and g.ids.shape[0] == ids.shape[0], f"ids {g.ids.dtype} {list(g.ids.shape)}")
        require(T < g.ids.shape[1] <= T + n, f"{g.ids.shape[1] - T} new tokens, {n} were asked for")
        require(torch.equal(g.ids[:, :T], ids), "the ids do not begin with the prompt")
        good = g.lengths.dtype == torch.int64 and ((g.lengths > T) & (g.lengths <= g.ids.shape[1])).all()
        require(good, f"lengths {g.lengths.tolist()}")
        require(len(g.finish) == len(ids) and set(g.finish) <= {"eos", "length", "stop"}, f"finish {g.finish}")
        require(min(g.seconds_prefill, g.seconds_decode, g.kv_bytes_peak, g.flops) >= 0, "a negative cost")

    @prop(seed=SEEDS, examples=6)
    def test_md17_generation_follows_from_the_seed(self, option: Option, seed: int) -> None:
        """`generate` gives the same ids for the same seed, leaving prompt and global random states alone."""
        model, ids = self.capable(option, CausalLM), self.ids(seed)
        arguments = {"max_new_tokens": 4, "kv": None, "sampling": {"temperature": 1.0}, "seed": seed}
        with unchanged("generate", ids=ids), global_randomness_untouched("generate"):
            one = model.generate(ids, **arguments).ids
        two = self.capable(option, CausalLM).generate(ids, **arguments).ids
        require(torch.equal(one, two), "the same seed gave other ids")

    def test_md18_an_empty_prompt_is_refused(self, option: Option) -> None:
        """`generate` with an empty prompt raises InvalidInput."""
        model, empty = self.capable(option, CausalLM), torch.zeros(1, 0, dtype=torch.int64)
        arguments = {"max_new_tokens": 1, "kv": None, "sampling": GREEDY, "seed": 0}
        raises(InvalidInput, "an empty prompt", lambda: model.generate(empty, **arguments))

    # -- trajectories and instances ------------------------------------------------------------------------------------

    @prop(seed=SEEDS, B=st.integers(1, 3), T=st.integers(2, 6), examples=6)
    def test_md19_trajectories_are_encoded_and_decoded(self, option: Option, seed: int, B: int, T: int) -> None:
        """`encode` gives int64 codes `[B, L]`, `decode` finite states and actions, `prior` finite logits `[B, L, K]`."""
        model = self.capable(option, TrajectoryModel)
        g = torch.Generator().manual_seed(seed)
        states = torch.randn(B, T, self.state_dim, generator=g)
        actions = torch.randn(B, T, self.action_dim, generator=g)
        with unchanged("encode, decode or prior", states=states, actions=actions):
            codes = model.encode(states, actions)
            require(codes.dtype == torch.int64 and codes.dim() == 2 and len(codes) == B, f"codes {list(codes.shape)}")
            s, a = model.decode(codes, states[:, 0])
            logits = model.prior(codes, states[:, 0])
        for name, x, wanted in (("states", s, self.state_dim), ("actions", a, self.action_dim)):
            good = x.dim() == 3 and x.shape[0] == B and x.shape[2] == wanted and bool(torch.isfinite(x).all())
            require(good, f"decoded {name} {list(x.shape)}, or not finite")
        require(s.shape[1] == a.shape[1], "decoded states and actions differ in length")
        require(logits.dim() == 3 and logits.shape[:2] == codes.shape, f"logits {list(logits.shape)}")
        require(torch.isfinite(logits).all() and int(codes.max()) < logits.shape[2], "a code beyond the codebook")

    @prop(seed=SEEDS, B=st.integers(1, 3), examples=6)
    def test_md20_noise_becomes_instances(self, option: Option, seed: int, B: int) -> None:
        """`instances` gives one `Instance` a row of z, with finite float64 costs, the same again for the same z."""
        model = self.capable(option, InstanceGenerator)
        z = torch.randn(B, self.z_dim, generator=torch.Generator().manual_seed(seed))
        with unchanged("instances", z=z):
            found = model.instances(z)
        require(len(found) == B, f"{len(found)} instances for {B} rows")
        for inst in found:
            require(inst.cost.dtype == np.float64 and np.isfinite(inst.cost).all(), f"cost {inst.cost.dtype}")
        again = model.instances(z)
        require(same([i.cost for i in again], [i.cost for i in found]), "the same z gave other instances")

    # -- help ----------------------------------------------------------------------------------------------------------

    def capable(self, option: Option, protocol: type) -> Any:
        """A model that satisfies the protocol, else the check does not apply."""
        model = self.make(option)
        if not isinstance(model, protocol):
            skip(f"the model is no {protocol.__name__}")
        return model

    def torch_model(self, option: Option) -> Any:
        """A TorchModel in eval mode."""
        model = self.capable(option, TorchModel)
        model.module().eval()
        return model

    def some(self, seed: int, n: int) -> Mapping[str, Tensor]:
        """A batch of n rows with targets, made by the author's function."""
        if self.batch is None:
            skip("no batch= was given to the kit")
        found: Mapping[str, Tensor] = self.batch(seed, n)
        return found

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`forward` without gradients."""
        with torch.no_grad():
            found: Mapping[str, Tensor] = model.forward(batch)
        return found

    def ids(self, seed: int) -> Tensor:
        """Two prompts of three ids."""
        return torch.randint(1, self.vocab, (2, 3), generator=torch.Generator().manual_seed(seed))
