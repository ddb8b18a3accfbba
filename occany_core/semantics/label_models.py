# SPDX-License-Identifier: Apache-2.0
"""Settings -> the models that a labelling pipeline needs, from files of this machine alone."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor

from occany_core.checkpoints import Model
from occany_core.config import LabelsConfig
from occany_core.errors import ConfigError
from occany_core.semantics.class_probe import known_classes
from occany_core.semantics.detections import Detector
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.grounding_dino import load_grounding_dino
from occany_core.semantics.masks import NetworkPrompter, Prompter, Tracker
from occany_core.semantics.phrases import EVALUATION, PhraseThresholds
from occany_core.semantics.probe_detector import ProbeDetector
from occany_core.semantics.sam2_features import load_sam2
from occany_core.semantics.sam2_model import load_video_model
from occany_core.semantics.sam2_prompter import Sam2Prompter
from occany_core.semantics.sam2_tracker import Sam2Tracker
from occany_core.semantics.sam3 import Sam3Segmenter, load_sam3

BUILTIN = "builtin"
SAM2_DIMS = (256, 64, 32)
"""Channels of the features that SAM2's mask decoder reads."""
SAM2_SIZE = 512
"""Side of the squares in which SAM2 sees pictures, as published [px]."""


@dataclass(frozen=True)
class LabelModels:
    """What is loaded; None where the pipeline does not need it."""

    probe_detector: ProbeDetector | None = None
    """Finds boxes in the network's features."""
    detector: Detector | None = None
    """Finds boxes in pictures."""
    prompter: Prompter | None = None
    tracker: Tracker | None = None
    encoder: Callable[[UInt8[Tensor, "V H W 3"]], PromptableFeatures] | None = None
    """SAM2's own view of pictures."""
    segmenter: Sam3Segmenter | None = None

    @property
    def look_at_pictures(self) -> bool:
        """Whether something is to be found in the pictures themselves."""
        return any((self.detector, self.encoder, self.segmenter))

    @property
    def reads_texts(self) -> bool:
        """Whether any text can be asked for."""
        return self.detector is not None or self.segmenter is not None


def load_label_models(model: Model, config: LabelsConfig) -> LabelModels:
    """Load what a pipeline needs.

    Raises:
        ConfigError: The weights or the installation cannot serve a setting.
        CheckpointError: Weights that are missing or of another kind.
    """
    if config.pipeline == "classes":
        return LabelModels()
    if config.pipeline == "sam3":
        return LabelModels(segmenter=load_sam3(_named(config, "sam3"), model.device))
    probe_detector, detector = None, None
    if config.detector == BUILTIN:
        probe_detector = _probe_detector(model, config)
    else:
        least = PhraseThresholds(config.min_score, min(config.min_score, EVALUATION.text))
        detector = load_grounding_dino(config.detector, model.device, least)
    if config.pipeline == "distilled" and not config.sam2:
        return LabelModels(probe_detector, detector, _own_prompter(model))
    path = _named(config, "sam2")
    if config.pipeline == "pretrained":
        answering = load_video_model(path, SAM2_SIZE, model.device)
        encoder = load_sam2(path, SAM2_SIZE, model.device)
        return LabelModels(probe_detector, detector, Sam2Prompter(answering), encoder=encoder)
    _check_features(model)
    answering = load_video_model(path, model.network.config.segmentation_size, model.device)
    prompter, tracker = Sam2Prompter(answering), Sam2Tracker(answering)
    return LabelModels(probe_detector, detector, prompter, tracker)


def _named(config: LabelsConfig, name: str) -> str:
    """Return the place of weights that a pipeline cannot do without."""
    place = getattr(config, name)
    if not place:
        raise ConfigError(
            f"labels.pipeline {config.pipeline} needs weights: set labels.{name} to their folder "
            "(`occany download` fetches them)"
        )
    return place


def _probe_detector(model: Model, config: LabelsConfig) -> ProbeDetector:
    if not known_classes(model):
        raise ConfigError(
            f"labels.detector is {config.detector}, and the weights {model.name} have no class "
            "probe that finds anything; set it to the folder of a GroundingDINO "
            "(`occany download grounding-dino-base`)"
        )
    return ProbeDetector(model.network.class_probe)


def _check_features(model: Model) -> None:
    """See that SAM2 can be asked about the network's features."""
    dims = model.network.config.segmentation_dims
    if dims != SAM2_DIMS:
        raise ConfigError(
            f"labels.sam2 is set, and the features of the weights {model.name} have "
            f"{dims or 'no'} channels instead of SAM2's {SAM2_DIMS}; leave labels.sam2 empty for "
            "the weights' own mask decoder, or set labels.pipeline to pretrained"
        )


def _own_prompter(model: Model) -> NetworkPrompter:
    if model.network.config.prompt_classes is None:
        raise ConfigError(
            f"the weights {model.name} have no mask decoder of their own; set labels.sam2 to a "
            "SAM2.1 (`occany download sam2.1-hiera-large`), whose features they predict"
        )
    return NetworkPrompter(model.network.prompt_decoder)
