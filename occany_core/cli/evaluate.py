# SPDX-License-Identifier: Apache-2.0
"""`occany evaluate`: scores of a model, or of ways to train it, on held-back streets."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from occany_core.checkpoints import load_model, write_metrics
from occany_core.checkpoints.store import complete_or_absent, weights_path
from occany_core.cli import ablations, held_back_streets, settings_arguments
from occany_core.cli.ablation_report import chart_of_sweep
from occany_core.cli.view import refuse_foreign
from occany_core.cli.view_files import check_picture_place, check_place
from occany_core.config import OccAnyConfig
from occany_core.evaluation import score_table, view_augmentation
from occany_core.evaluation.segmentation import evaluate_masks
from occany_core.evaluation.synthocc import WITHOUT_PROBE, evaluate
from occany_core.evaluation.view_augmentation import INGREDIENTS
from occany_core.picture.charts import save_charts
from occany_core.semantics.class_probe import known_classes

NAME = "evaluate"
HELP = "score a model, or a way to train it, on held-back synthetic streets"
EXAMPLE = "occany evaluate synthocc --limit 20 --json"
FOREIGN = {
    "synthocc": ("plot", *ablations.OPTIONS),
    "masks": ("markdown", "plot", *ablations.OPTIONS),
    "ttva": ("markdown", *ablations.OPTIONS),
    "ablations": ("model", "write_card", "markdown", "plot"),
}
"""Options that have no effect there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "protocol",
        choices=list(PROTOCOLS),
        help="synthocc: cells, depth, poses and classes by setting; masks: masks from boxes, "
        "classes of pixels and detected things; ttva: what rendered views are worth; ablations: "
        "train and score the recipe with one part missing at a time",
    )
    held_back_streets.add_arguments(parser)
    parser.add_argument("--model", default="default", help="'default' or a .safetensors file")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line"
    )
    parser.add_argument(
        "--write-card", action="store_true", help="put the scores into the model's card"
    )
    parser.add_argument(
        "--markdown", metavar="FILE", type=Path, help="synthocc: write the table as Markdown"
    )
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help="ttva: draw the scores, for example ttva.png"
    )
    settings_arguments.add_arguments(parser)
    ablations.add_arguments(parser.add_argument_group("ablations"))
    names = {name for foreign in FOREIGN.values() for name in foreign}
    parser.set_defaults(option_defaults={name: parser.get_default(name) for name in names})


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and print a table.

    Raises:
        ConfigError: The limit is out of range, or an option cannot be.
        InputError: An option of another protocol, or a place where no file can be written.
    """
    protocol = arguments.protocol
    refuse_foreign(arguments, FOREIGN[protocol], f"{NAME} {protocol}")
    held_back_streets.check(arguments)
    check_place(arguments.markdown)
    check_picture_place(arguments.plot)
    if arguments.write_card:
        check_place(weights_path(arguments.model).with_suffix(".json"))
    PROTOCOLS[protocol](settings_arguments.read(arguments), arguments)


def _synthocc(config: OccAnyConfig, arguments: argparse.Namespace) -> None:
    model = load_model(arguments.model, config.runtime.device)
    scores = evaluate(model, arguments.limit, config, held_back_streets.show_setting)
    print(f"\n\nCells [%]\n{score_table.plain(scores, score_table.OCCUPANCY)}")
    judged = {name: row for name, row in scores.items() if "abs_rel" in row}
    print(f"\nDepth (shares) and poses\n{score_table.plain(judged, score_table.GEOMETRY)}")
    left_out = {} if known_classes(model) else {"mean_iou": WITHOUT_PROBE}
    for reason in left_out.values():
        print(f"\n{reason}")
    if arguments.markdown:
        columns = (*score_table.OCCUPANCY, *score_table.GEOMETRY)
        arguments.markdown.write_text(score_table.markdown(scores, columns) + "\n")
        print(f"wrote {arguments.markdown}")
    if arguments.write_card:
        metrics = {"scenes": arguments.limit} | scores
        metrics |= {"left_out": left_out} if left_out else {}
        write_metrics(arguments.model, "synthocc", metrics)
    if arguments.json:
        print(json.dumps(scores))


def _masks(config: OccAnyConfig, arguments: argparse.Namespace) -> None:
    """Score what people look at: masks, classes of pixels, boxes."""
    model = load_model(arguments.model, config.runtime.device)
    scores = evaluate_masks(model, arguments.limit, config, held_back_streets.show_setting)
    print()
    for heading, table in score_table.of_segmentation(scores).items():
        print(f"\n{heading} [%]\n{score_table.plain(table, score_table.SEGMENTATION)}")
    if arguments.write_card:
        write_metrics(arguments.model, "masks", {"scenes": arguments.limit} | scores)
    if arguments.json:
        print(json.dumps(scores))


def _ttva(config: OccAnyConfig, arguments: argparse.Namespace) -> None:
    """Score one ingredient of view augmentation after the other."""
    model = load_model(arguments.model, config.runtime.device)
    scores = view_augmentation.sweep(
        model,
        view_augmentation.variants(*INGREDIENTS),
        arguments.limit,
        config,
        held_back_streets.show_progress,
    )
    print(f"\n{'[%]':28}{'views':>6}{'precision':>10}{'recall':>8}{'IoU':>8}{'seconds':>9}")
    for one in scores:
        precision, recall, iou = (one.ratios[key] for key in ("precision", "recall", "iou"))
        print(
            f"{one.name:28}{one.rendered:6}{precision:10.2f}{recall:8.2f}{iou:8.2f}"
            f"{one.seconds:9.2f}"
        )
    if arguments.plot:
        with complete_or_absent(arguments.plot) as unfinished:
            save_charts(unfinished, [chart_of_sweep(scores)], "What rendered views are worth")
        print(f"wrote {arguments.plot}")
    if arguments.write_card:
        write_metrics(arguments.model, "ttva", {one.name: one.ratios for one in scores})
    if arguments.json:
        print(json.dumps([asdict(one) for one in scores]))


PROTOCOLS = {
    "synthocc": _synthocc, "masks": _masks, "ttva": _ttva, "ablations": ablations.run
}  # fmt: skip
