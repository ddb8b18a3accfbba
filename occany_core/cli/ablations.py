# SPDX-License-Identifier: Apache-2.0
"""`occany evaluate ablations`: the tiny recipe, trained and scored with a part missing.

The output folder has a run for each variant; what is finished is not done again.
"""

import argparse
import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from occany_core.checkpoints import Model, load_model
from occany_core.checkpoints.store import choose_device
from occany_core.cli import held_back_streets, train
from occany_core.cli.ablation_report import DATA, Report, table, write_report
from occany_core.config import OccAnyConfig, from_flat, to_flat
from occany_core.errors import ConfigError
from occany_core.evaluation import score_table, view_augmentation
from occany_core.evaluation.synthocc import check_grid, evaluate
from occany_core.evaluation.view_augmentation import INGREDIENTS, VariantScore
from occany_core.training.ablations import FULL, Variant, variants, with_minutes
from occany_core.training.overrides import with_overrides
from occany_core.training.ranks import Ranks
from occany_core.training.recipes import RECIPES
from occany_core.training.supply import SupplyPlan, supplied

RECIPE = "tiny"
MINUTES = 20.0
WORLDS = 1200
CPU_VIEWS = 8
"""Views of a step beside a CPU, where the recipe's own number takes many seconds."""
PLAN = "plan.json"
SCORES = "scores.json"
SWEEP = "ttva.json"
OPTIONS = ("out", "minutes", "steps", "data", "worlds", "recipe_set")


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options of this protocol."""
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="folder of the runs and of the report"
    )
    parser.add_argument(
        "--minutes", type=float, default=MINUTES,
        help="training of each of up to seven variants (default: %(default)g, about the recipe's "
        "length, which is made for a GPU; on a CPU, differences show after hours)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="steps of every stage instead of minutes")
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="shards with held_back/; by default streets are rendered once, for all variants",
    )  # fmt: skip
    parser.add_argument(
        "--worlds", type=int, default=WORLDS, help="streets to render (default: %(default)s)"
    )
    parser.add_argument(
        "--recipe-set", metavar="KEY=VALUE", action="append", default=[],
        help="one value of the recipe, for all variants; may be repeated "
        "(--recipe-set views_per_step=32)",
    )  # fmt: skip


def run(config: OccAnyConfig, arguments: argparse.Namespace) -> None:
    """Train and score all variants, then the view augmentation of the full one.

    Raises:
        ConfigError: An option that cannot be, or a folder of another plan.
        InputError: Data that cannot be used.
    """
    if arguments.out is None:
        raise ConfigError("ablations need a folder for their runs; give one with -o DIR")
    work = Ablations(config, arguments)
    work.check_plan()
    work.render_streets()
    for variant in work.variants:
        if not variant.no_difference:
            work.do(variant)
    work.sweep()
    print(f"\n\n{score_table.plain(*table(work.report()))}")
    print(f"\nwrote {arguments.out / DATA}, with a table and a picture beside it")
    if arguments.json:
        print((arguments.out / DATA).read_text(encoding="utf-8").replace("\n", ""))


class Ablations:
    """The folder of all variants."""

    def __init__(self, config: OccAnyConfig, arguments: argparse.Namespace) -> None:
        check_grid(config)
        self.config, self.folder, self.limit = config, arguments.out, arguments.limit
        self.judged = _judged(self.limit, config)
        self.steps, self.worlds = arguments.steps, arguments.worlds
        self.streets = arguments.data or self.folder / "streets"
        self.renders = arguments.data is None
        self.device = choose_device(config.runtime.device)
        if self.worlds < 1 or arguments.minutes <= 0 or (self.steps or 1) < 1:
            raise ConfigError("--minutes, --steps and --worlds must be above 0")
        sets = list(arguments.recipe_set)
        if self.device.type == "cpu" and not any(s.startswith("views_per_step") for s in sets):
            sets.append(f"views_per_step={CPU_VIEWS}")
        self.recipe = with_overrides(RECIPES[RECIPE](), sets)
        if self.steps is None:
            sets += with_minutes(self.recipe, arguments.minutes)
        self.sets = tuple(sets)
        self.variants = variants(self.recipe)
        self.minutes = arguments.minutes if self.steps is None else None
        self.took: list[float] = []
        """Seconds of the variants that this call trained and scored."""

    # --- what is to be done ---------------------------------------------------------------------

    @property
    def trained(self) -> list[Variant]:
        """The variants with a run of their own."""
        return [v for v in self.variants if v.weights_of is None and not v.no_difference]

    def weights(self, variant: Variant) -> Path:
        """Return the file that a variant is scored with."""
        return self.folder / (variant.weights_of or variant.name) / f"{RECIPE}.safetensors"

    def words(self, variant: Variant) -> list[str]:
        """Return the arguments of `occany train` for a variant."""
        sets = [word for one in (*self.sets, *variant.changes) for word in ("--set", one)]
        steps = [] if self.steps is None else ["--steps", str(self.steps)]
        folder, data = str(self.folder / variant.name), str(self.streets)
        return [RECIPE, "-o", folder, "--data", data, "--device", str(self.device), *sets, *steps]

    def check_plan(self) -> None:
        """Write down what the runs have in common, or see that it is still the same.

        Raises:
            ConfigError: The folder holds runs of another kind.
        """
        for variant in self.trained:
            with_overrides(self.recipe, variant.changes)
        plan = {"recipe": list(self.sets), "steps": self.steps, "streets": str(self.streets)}
        plan["worlds"] = self.worlds if self.renders else None
        path = self.folder / PLAN
        self.folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != plan:
            raise ConfigError(
                f"the runs in {self.folder} were begun with other lengths, recipe values or data "
                f"({path}); give the same, or another folder"
            )
        path.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
        left = sum(not self.weights(one).exists() for one in self.trained)
        print(f"{left} of {len(self.trained)} variants to train; {self._time_left(left)}")

    def _time_left(self, runs: int) -> str:
        """Estimate from the variants that are done, else from the minutes asked for."""
        if self.took:
            seconds = sum(self.took) / len(self.took) * runs
        elif self.minutes is not None:
            seconds = 60 * self.minutes * runs
        else:
            return "the time left shows after the first"
        minutes = round(seconds / 60)
        return f"{minutes // 60}:{minutes % 60:02d} h left" + (
            "" if self.took else " for training, and a few minutes each for scoring"
        )

    # --- doing it -------------------------------------------------------------------------------

    def render_streets(self) -> None:
        """Render what all variants train on, unless it is there."""
        if not self.renders or not any(not self.weights(one).exists() for one in self.trained):
            return
        plan = SupplyPlan(folder=self.streets, worlds=self.worlds, helpers=os.cpu_count() or 1)
        with supplied(plan, self.recipe, Ranks(self.device), _say):
            print("\nstreets are ready")

    def do(self, variant: Variant) -> None:
        """Train and score one variant, as far as that is still to be done, and report."""
        started = time.monotonic()
        is_new = not self.weights(variant).exists()
        if is_new:
            self._train(variant)
        path = self.folder / variant.name / SCORES
        path.parent.mkdir(exist_ok=True)
        if _finished(path, self.judged) is None:
            plain = {"novel_views.steps": 0} if variant.weights_of else {}
            model, show = self._model(variant), held_back_streets.show_setting
            print(f"\nscoring: {variant.title}")
            scores = evaluate(model, self.limit, from_flat(plain, self.config), show)
            _finish(path, self.judged, scores)
        if is_new:
            self.took.append(time.monotonic() - started)
        write_report(self.report(), self.folder)

    def _train(self, variant: Variant) -> None:
        left = self._time_left(sum(not self.weights(one).exists() for one in self.trained))
        number = self.trained.index(variant) + 1
        print(f"\nvariant {number} of {len(self.trained)}: {variant.title}; {left}")
        parser = argparse.ArgumentParser(prog="occany train")
        train.add_arguments(parser)
        train.run(parser.parse_args(self.words(variant)))

    def _model(self, variant: Variant) -> Model:
        return load_model(self.weights(variant), str(self.device))

    def sweep(self) -> None:
        """Score the ingredients of view augmentation with the full weights."""
        path = self.folder / FULL / SWEEP
        if _finished(path, self.judged) is None:
            print("\nview augmentation")
            scores = view_augmentation.sweep(
                self._model(self.variants[0]),
                view_augmentation.variants(*INGREDIENTS),
                self.limit,
                self.config,
                held_back_streets.show_progress,
            )
            _finish(path, self.judged, [asdict(one) for one in scores])
        write_report(self.report(), self.folder)

    def report(self) -> Report:
        """Gather what is finished."""
        found = {
            one.name: _finished(self.folder / one.name / SCORES, self.judged)
            for one in self.variants
        }
        length = f"{self.steps} steps per stage" if self.steps else f"{self.minutes:g} minutes"
        return Report(
            title=f"Ablations of the recipe {RECIPE}, {length} each",
            scenes=self.limit,
            variants=self.variants,
            commands={
                v.name: shlex.join(["occany", "train", *self.words(v)]) for v in self.trained
            },
            scores={name: scores for name, scores in found.items() if scores is not None},
            sweep=[
                VariantScore(**one)
                for one in _finished(self.folder / FULL / SWEEP, self.judged) or ()
            ],
        )


def _judged(limit: int, config: OccAnyConfig) -> dict:
    """Say what scores depend on besides the weights, as plain JSON data."""
    settings = {k: v for k, v in to_flat(config).items() if not k.startswith("runtime.")}
    return json.loads(json.dumps({"scenes": limit, "settings": settings}))


def _finished(path: Path, judged: dict) -> dict | list | None:
    """Return scores of the same scenes with the same settings, or None where there are none."""
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["scores"] if content["judged"] == judged else None


def _finish(path: Path, judged: dict, scores: dict | Sequence) -> None:
    unfinished = path.with_name(f".{path.name}")
    text = json.dumps({"judged": judged, "scores": scores}, indent=2)
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(path)


def _say(line: str) -> None:
    print(f"\r{line:<110}", end="", flush=True)
