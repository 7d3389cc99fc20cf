"""What the genco plugin offers. Imported at discovery, hence light."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tian import hookimpl

NEEDS = ("highspy", "numba", "pyomo", "scipy", "matplotlib")
STUDIES = {  # recipe -> module of its report
    "genco/zelda": "tian_genco.learn.report",
    "genco/replication": "tian_genco.replication_report",
    "genco/estimators": "tian_genco.grad.laboratory_report",
    "genco/predict": "tian_genco.grad.predict_report",
    "genco/device": "tian_genco.devices.report",
    "genco/warcraft": "tian_genco.maps.report",
    "genco/sample": "tian_genco.sampling.sample_report",
    "genco/verify": "tian_genco.sampling.verify_report",
    "genco/custom": "tian_genco.sampling.custom_report",
    "genco/agreement": "tian_genco.agreement_report",
}


@hookimpl
def tian_register_solvers(register: Any) -> None:
    """Register the solvers."""
    register(
        "level-oracle",
        "tian_genco.levels.oracle:LevelOracle",
        summary="exact optimum of a level by Steiner trees, a hundred times as fast as a general solver",
        options="tian_genco.levels.options:OracleOptions",
        needs=NEEDS,
    )
    register(
        "grid-path",
        "tian_genco.paths.grid:GridPathSolver",
        summary="shortest paths on grids, exact, some 60 times as fast as a heap in Python",
        options="tian_genco.paths.options:PathOptions",
        needs=NEEDS,
    )
    register(
        "brush",
        "tian_genco.devices.solver:BrushSolver",
        summary="designs a brush can draw, exact, by a dynamic program over the columns of the grid",
        options="tian_genco.devices.options:BrushOptions",
        needs=NEEDS,
    )
    register(
        "highs",
        "tian_genco.solving.highs:HighsSolver",
        summary="any rules as a mixed-integer program, solved by HiGHS",
        options="tian_genco.solving.options:HighsOptions",
        needs=NEEDS,
    )


@hookimpl
def tian_register_models(register: Any) -> None:
    """Register the models."""
    register(
        "generator",
        "tian_genco.learn.model:DesignGenerator",
        summary="noise to the costs of tiles, for a solver to make a design of",
        options="tian_genco.learn.options:DesignGeneratorOptions",
        needs=NEEDS,
    )


@hookimpl
def tian_register_evaluators(register: Any) -> None:
    """Register the evaluators."""
    register(
        "validity",
        "tian_genco.learn.evaluators:ValidityEvaluator",
        summary="share of designs that obey the rules, by a checker that shares no code with the solver",
        needs=NEEDS,
    )
    register(
        "diversity",
        "tian_genco.learn.evaluators:DiversityEvaluator",
        summary="unique and novel designs, and how many cells they differ in",
        needs=NEEDS,
    )


@hookimpl
def tian_register_recipes(register: Any) -> None:
    """Register the recipes."""
    register(
        "zelda",
        "tian_genco.zelda:zelda",
        summary="train a level generator through a solver and draw levels that are all playable",
        options="tian_genco.options:ZeldaOptions",
        needs=NEEDS,
    )
    register(
        "replication",
        "tian_genco.replication:replication",
        summary="repair, penalty, fixed and updated adversary, and every estimator, side by side on the same data",
        options="tian_genco.replication_options:ReplicationOptions",
        needs=NEEDS,
    )
    register(
        "estimators",
        "tian_genco.grad.laboratory:laboratory",
        summary="bias and variance of every gradient estimator against the exact gradient, which is enumerated",
        options="tian_genco.grad.options:LaboratoryOptions",
        needs=NEEDS,
    )
    register(
        "predict",
        "tian_genco.grad.predict:predict",
        summary="predict costs, then optimise: regret of shortest paths by way of training",
        options="tian_genco.grad.options:PredictOptions",
        needs=NEEDS,
    )
    register(
        "device",
        "tian_genco.devices.device:device",
        summary="inverse design under manufacturing rules by way of training; resistors stand in for photonics",
        options="tian_genco.devices.options:DeviceOptions",
        needs=NEEDS,
    )
    register(
        "warcraft",
        "tian_genco.maps.recipe:warcraft",
        summary="train a generator of maps and steer its samples towards cheap shortest paths",
        options="tian_genco.maps.options:WarcraftOptions",
        needs=NEEDS,
    )
    register(
        "sample",
        "tian_genco.sampling.sample:sample",
        summary="designs of a trained generator under rules added now: all valid, certified, as diverse as asked for",
        options="tian_genco.sampling.options:SamplingOptions",
        needs=NEEDS,
    )
    register(
        "verify",
        "tian_genco.sampling.verify:verify_run",
        summary="prove the designs of a run again and name every one that was tampered with",
        options="tian_genco.sampling.options:VerifyOptions",
        needs=NEEDS,
    )
    register(
        "custom",
        "tian_genco.sampling.custom:custom",
        summary="designs that obey the rules of your own Pyomo model, like given ones or all different",
        options="tian_genco.sampling.options:CustomOptions",
        needs=NEEDS,
    )
    register(
        "agreement",
        "tian_genco.agreement:agreement",
        summary="an exact solver of levels against a general one: objectives, validity and CPU time by instance",
        options="tian_genco.agreement_options:AgreementOptions",
        needs=NEEDS,
    )


@hookimpl
def tian_register_configs(register: Any) -> None:
    """Register the folder of run configurations."""
    register("tian_genco.conf")


@hookimpl
def tian_register_claims(register: Any) -> None:
    """Register the claims of the paper and of ours."""
    register("tian_genco.claims:CLAIMS")


@hookimpl
def tian_report_sections(run: Any) -> list[Any]:
    """Sections of the report of a run of ours."""
    module = STUDIES.get(str(run.config.recipe))
    return list(import_module(module).sections(run)) if module else []
