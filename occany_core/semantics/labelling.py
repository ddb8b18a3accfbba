# SPDX-License-Identifier: Apache-2.0
"""Pictures and promptable features -> a label for every pixel, by the pipeline of the settings.

`classes`: the weights' own probe names every pixel. `distilled`: a detector finds boxes, a mask
decoder asks the network's features for masks (paper 3.4, spec 11.1). `pretrained`: the same on
SAM2's own features of the pictures. `sam3`: texts ask SAM3 for masks (spec 11.2).

What takes long and needs only pictures is apart (`Labeller.look`), so that live use can do it
beside the geometry. `V` views, `M` objects, `H W` pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from occany_core.checkpoints import Model
from occany_core.config import LabelsConfig
from occany_core.datasets.class_tables import SemanticClass
from occany_core.errors import ConfigError, InputError
from occany_core.semantics.class_probe import classify_pixels, known_classes
from occany_core.semantics.class_prompts import UNLABELLED, Vocabulary, vocabulary
from occany_core.semantics.detections import Detections
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.label_models import load_label_models
from occany_core.semantics.masks import NetworkPrompter
from occany_core.semantics.painting import LabelledMasks, merge_masks, paint_observed
from occany_core.semantics.probe_detector import Regions
from occany_core.semantics.things import FoundThings, things_of_boxes, things_of_regions


@dataclass(frozen=True)
class Look:
    """What one picture shows, whatever its geometry."""

    detections: Detections | None = None
    """None where boxes come from the network's features."""
    features: PromptableFeatures | None = None
    """SAM2's own, of this one view; None where the network's are asked."""
    objects: LabelledMasks | None = None
    """SAM3's answers, at the picture's size."""
    asked: tuple[str, ...] = ()
    """`labels.classes` when it was looked at."""
    is_carried: bool = False
    """Whether the boxes were found in an earlier picture of the camera."""


@dataclass(frozen=True)
class ViewLabels:
    """Labels of views."""

    pixels: UInt8[Tensor, "V H W"]
    """Class ids; `UNLABELLED` where nothing is known."""
    objects: tuple[LabelledMasks, ...] = ()
    """Of each view; empty for the pipeline `classes`."""


class Labeller:
    """The pipeline, with the models that it needs.

    Args:
        model: The network.
        config: Pipeline and models, which stay; all else is read anew at every call.

    Raises:
        ConfigError: A setting that the weights or the installation cannot serve.
        CheckpointError: Weights that are missing or of another kind.
    """

    def __init__(self, model: Model, config: LabelsConfig) -> None:
        self.model = model
        self.models = load_label_models(model, config)
        self.check(config)

    def source(self, config: LabelsConfig) -> str:
        """Say who names things; empty where nothing is named."""
        if not self.classes(config):
            return ""
        weights = f"the weights {self.model.name}"
        if config.pipeline == "classes":
            return f"class probe of {weights}"
        if config.pipeline == "sam3":
            return f"texts asked of SAM3, {config.sam3}"
        boxes = f"class probe of {weights}"
        if self.models.detector is not None:
            boxes = f"GroundingDINO, {config.detector}"
        features = "SAM2" if config.pipeline == "pretrained" else weights
        decoder = f"SAM2, {config.sam2}" if config.sam2 else "the weights' own mask decoder"
        return f"boxes of {boxes}, asked of features of {features} by {decoder}"

    def check(self, config: LabelsConfig) -> None:
        """See that everything that is to be labelled can be.

        Raises:
            ConfigError: A text that nothing here understands.
        """
        found = self.vocabulary(config)
        if found is None:
            return
        if self.models.reads_texts:
            self._check_texts(found)
        elif found.foreign:
            self._refuse(found.foreign[0])

    def _check_texts(self, found: Vocabulary) -> None:
        try:
            if self.models.segmenter is not None:
                self.models.segmenter.text_prompts(found.prompts, found.convention)
            else:
                self.models.detector.check(found.prompts)
        except InputError as error:
            raise ConfigError(f"labels.classes: {error}") from error

    def _refuse(self, text: str) -> NoReturn:
        known = ", ".join(one.name for one in vocabulary().classes)
        raise ConfigError(
            f"labels.classes holds {text!r}, which is none of the classes that the weights "
            f"know ({known}); for other texts name a GroundingDINO in labels.detector, or use the "
            "pipeline sam3"
        )

    def vocabulary(self, config: LabelsConfig) -> Vocabulary | None:
        """Return what is labelled; None where nothing is."""
        names_any = config.use and (config.pipeline != "classes" or known_classes(self.model))
        return vocabulary(config.classes) if names_any else None

    def classes(self, config: LabelsConfig) -> tuple[SemanticClass, ...]:
        """Return what the ids mean, in the order of the settings; none where none are used."""
        found = self.vocabulary(config)
        return () if found is None else found.classes

    def needs_features(self, config: LabelsConfig) -> bool:
        """Whether the network's promptable features of the observed views are needed."""
        asks_network = config.pipeline in ("classes", "distilled")
        finds_there = self.models.probe_detector is not None
        return self.vocabulary(config) is not None and (asks_network or finds_there)

    def tracks(self, config: LabelsConfig) -> bool:
        """Whether masks are carried into rendered views."""
        is_possible = self.models.tracker is not None and config.pipeline == "distilled"
        return config.use and is_possible and config.rendered != "none"

    @torch.inference_mode()
    def look(self, rgb: UInt8[Tensor, "V H W 3"], config: LabelsConfig) -> tuple[Look, ...] | None:
        """Do what needs pictures alone, for each; None where nothing does.

        Args:
            rgb: Prepared pictures, at the network's size.
            config: Settings.
        """
        found, models = self.vocabulary(config), self.models
        if found is None or not models.look_at_pictures:
            return None
        if models.segmenter is not None:
            texts = models.segmenter.text_prompts(found.prompts, found.convention)
            answers = models.segmenter.masks_in_pictures(rgb, texts)
            return tuple(Look(objects=objects, asked=config.classes) for objects in answers)
        detections, features = [None] * len(rgb), [None] * len(rgb)
        if models.detector is not None:
            detections = models.detector.detect(rgb, found.prompts)
        if models.encoder is not None:
            seen = models.encoder(rgb)
            features = [seen.views(slice(view, view + 1)) for view in range(len(rgb))]
        return tuple(
            Look(boxes, seen, asked=config.classes)
            for boxes, seen in zip(detections, features, strict=True)
        )

    @torch.inference_mode()
    def label(
        self,
        levels: Sequence[Float[Tensor, "V C s s"]],
        looks: Sequence[Look | None],
        size: tuple[int, int],
        config: LabelsConfig,
    ) -> ViewLabels | None:
        """Label observed views; None where nothing is to be labelled.

        Args:
            levels: The network's promptable features, or nothing where the network has none.
            looks: Of each view; None where it was not looked at (yet): where that is needed, the
                view stays unlabelled.
            size: Height and width of the pictures.
            config: Settings.
        """
        found = self.vocabulary(config)
        if found is None:
            return None
        if config.pipeline == "classes":
            return ViewLabels(_only(classify_pixels(self.model, levels, size), found))
        things = self.things(levels, looks, size, config)
        objects = tuple(one.at(size) for one in things)
        if config.merge and config.pipeline != "sam3":  # as published
            objects = tuple(map(merge_masks, objects))
        pixels = torch.stack([paint_observed(masks, found.convention) for masks in objects])
        return ViewLabels(
            pixels.masked_fill(pixels == found.convention.empty, UNLABELLED), objects
        )

    @torch.inference_mode()
    def things(
        self,
        levels: Sequence[Float[Tensor, "V C s s"]],
        looks: Sequence[Look | None],
        size: tuple[int, int],
        config: LabelsConfig,
    ) -> list[FoundThings]:
        """Return what a prompting pipeline finds in each view; as `label` takes it.

        Raises:
            ConfigError: The pipeline `classes` finds no things.
        """
        found = self.vocabulary(config)
        if found is None or config.pipeline == "classes":
            raise ConfigError(
                f"labels.pipeline is {config.pipeline}, which names pixels and finds no things; "
                "use distilled, pretrained or sam3"
            )
        features = PromptableFeatures(*levels) if levels else None
        regions = [None] * len(looks)
        if self.models.probe_detector is not None:
            prompts = found.prompts.without(found.convention)
            regions = self.models.probe_detector.find(features, prompts)
        views = []
        for view, (look, region) in enumerate(zip(looks, regions, strict=True)):
            own = features and features.views(slice(view, view + 1))
            things = self._things_of_view(look or Look(), region, own, config)
            views.append(things or _nothing(size, self.model.device))
        return views

    def _things_of_view(
        self,
        look: Look,
        regions: Regions | None,
        own: PromptableFeatures | None,
        config: LabelsConfig,
    ) -> FoundThings | None:
        """Return the things of one view; None where it was not looked at."""
        if look.objects is not None:
            return FoundThings.of_masks(look.objects)
        features = own if config.pipeline == "distilled" else look.features
        if features is None or (regions is None and look.detections is None):
            return None
        prompter = self.models.prompter
        if regions is None:
            found = look.detections
            found = found[found.scores > config.min_score]
            return things_of_boxes(features, found, prompter)
        regions = regions[regions.found.scores > config.min_score]
        if isinstance(prompter, NetworkPrompter):
            return things_of_regions(features, regions, prompter)
        return things_of_boxes(features, regions.found, prompter)


def _nothing(size: tuple[int, int], device: torch.device) -> FoundThings:
    """Return the answer for a view in which nothing was found."""
    nothing = torch.zeros(0, device=device)
    found = Detections(nothing.new_zeros(0, 4), nothing, nothing.long())
    return FoundThings(found, nothing.new_zeros(0, *size))


def _only(pixels: UInt8[Tensor, "V H W"], found: Vocabulary) -> UInt8[Tensor, "V H W"]:
    """Take the label away from pixels of classes that were not asked for."""
    kept = torch.full((256,), UNLABELLED, dtype=torch.uint8, device=pixels.device)
    for one in found.classes:
        kept[one.id] = one.id
    return kept[pixels.long()]
