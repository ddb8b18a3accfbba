# SPDX-License-Identifier: Apache-2.0
"""The training loop: stages of a recipe over a pack, with checkpoints by time and resume.

A run is a folder: `state.pt` (everything needed to go on), `log.jsonl` (scalars). Killing the
process loses at most `CHECKPOINT_SECONDS` of work; starting it again goes on from there.
"""

import copy
import dataclasses
import json
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from occany_core import camera, rigid
from occany_core.network import NetworkConfig, OccAnyNetwork, RawMaps
from occany_core.network.heads import Heads, log_points
from occany_core.projection import project_points, source_features
from occany_core.training.batches import Batch, BatchSampler
from occany_core.training.losses import PointLoss, depth_scores, point_loss
from occany_core.training.pack import Pack
from occany_core.training.recipe import Draw, Recipe, Stage

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 20.0
VALIDATE_SECONDS = 240.0


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    stage: int = 0
    stage_seconds: float = 0.0
    steps: int = 0
    views: int = 0


class Training:
    """One run of a recipe; `run` trains until the recipe's time is used up."""

    def __init__(self, config: NetworkConfig, recipe: Recipe, pack: Pack, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        folder.mkdir(parents=True, exist_ok=True)
        held_back = recipe.validation_samples
        self.sampler = BatchSampler(_part(pack, slice(0, len(pack) - held_back)), recipe.seed)
        self.validation = _part(pack, slice(len(pack) - held_back, len(pack)))
        self.network = OccAnyNetwork(config)
        set_prior(self.network, self.sampler.pack)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.progress = Progress()
        self.optimizer: torch.optim.Optimizer | None = None
        self._begin_stage()
        if (folder / "state.pt").exists():
            self._restore()

    @property
    def stage(self) -> Stage:
        """The stage that is being trained."""
        return self.recipe.stages[self.progress.stage]

    def run(self) -> OccAnyNetwork:
        """Train to the end of the recipe and return the averaged network."""
        last_report = last_save = last_validation = time.monotonic()
        while self.progress.stage < len(self.recipe.stages):
            started = time.monotonic()
            loss = self._step()
            now = time.monotonic()
            self.progress.stage_seconds += now - started
            if now - last_report > REPORT_SECONDS:
                last_report = now
                self._report(loss)
            if now - last_validation > VALIDATE_SECONDS:
                last_validation = now
                self._log({"validation": self.validate()})
            if now - last_save > CHECKPOINT_SECONDS:
                last_save = now
                self.save()
            if self.progress.stage_seconds >= 60 * self.stage.minutes:
                self._log({"validation": self.validate()})
                self._finish_stage()
                self.save()
        return self.average

    def summary(self) -> dict:
        """Return what a card says about this run."""
        return {
            "recipe": dataclasses.asdict(self.recipe),
            "data": "procedural streets only; no real picture was seen",
            "training_worlds": len(self.sampler.pack),
            "steps": self.progress.steps,
            "views": self.progress.views,
        }

    def _begin_stage(self) -> None:
        """Freeze what the stage leaves alone; rendering starts from the reconstruction."""
        renders = self.stage.num_novel > 0
        novel = ("novel_view_encoder.", "novel_view_decoder.", "novel_view_heads.")
        if renders and self.progress.stage_seconds == 0:
            centre_confidence(self.network, self.validation)
            _copy_matching(self.network.decoder, self.network.novel_view_decoder)
            _copy_matching(self.network.heads, self.network.novel_view_heads)
            self.average.load_state_dict(self.network.state_dict())
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith(novel) == renders)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {
                "params": [p for p in trained if p.dim() > 1],
                "weight_decay": self.recipe.weight_decay,
            },
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
        self._stage_steps = 0

    def _finish_stage(self) -> None:
        """Go on from the averaged weights of the finished stage."""
        self.network.load_state_dict(self.average.state_dict())
        self.progress = replace(self.progress, stage=self.progress.stage + 1, stage_seconds=0.0)
        if self.progress.stage < len(self.recipe.stages):
            self._begin_stage()

    def _rate(self) -> float:
        passed = min(self.progress.stage_seconds / (60 * self.stage.minutes), 1.0)
        warm = min((self._stage_steps + 1) / self.recipe.warmup_steps, 1.0)
        return self.stage.peak_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * passed)))

    def _draw(self) -> Batch:
        passed = self.progress.stage_seconds / (60 * self.stage.minutes)
        phases = self.stage.phases
        phase = next((phase for phase in phases if passed < phase.until), phases[-1])
        weights = np.array([draw.weight for draw in phase.draws])
        draw: Draw = phase.draws[self.sampler.rng.choice(len(weights), p=weights / weights.sum())]
        scenes = max(self.recipe.views_per_step // (draw.num_views + self.stage.num_novel), 1)
        return self.sampler.draw(draw.kind, scenes, draw.num_views, self.stage.num_novel)

    def _step(self) -> PointLoss:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.network.train()
        batch = self._draw()
        if self.stage.num_novel:
            raw, targets = rendering_maps(self.network, batch), batch.novel
        else:
            raw, targets = reconstruction_maps(self.network, batch), batch.observed
        loss = point_loss(raw, targets, self.recipe.alpha, batch.world_weight)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        trained = [p for p in self.network.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(trained, self.recipe.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self._stage_steps += 1
        self.progress.steps += 1
        self.progress.views += raw.shape[0] * raw.shape[1]
        self._average_weights()
        return loss

    @torch.no_grad()
    def _average_weights(self) -> None:
        decay = min(self.recipe.ema, (1 + self._stage_steps) / (10 + self._stage_steps))
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for slow, fast in pairs:
            if fast.requires_grad:
                slow.lerp_(fast, 1 - decay)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Score the averaged weights on the held-back samples."""
        sampler = BatchSampler(self.validation, seed=1)
        scores: dict[str, float] = {}
        for kind, views in (("single", 1), ("surround", 6), ("sequence", 5)):
            novel = self.stage.num_novel
            batches = [sampler.draw(kind, max(24 // views, 4), views, novel) for _ in range(2)]
            found = torch.stack([self._score(batch) for batch in batches]).mean(dim=0)
            names = ("abs_rel", "within_1.25", "world_log_error")
            scores |= {
                f"{kind}_{name}": round(float(value), 4)
                for name, value in zip(names, found, strict=True)
            }
        return scores

    def _score(self, batch: Batch) -> Tensor:
        if self.stage.num_novel:
            raw, targets = rendering_maps(self.average, batch), batch.novel
        else:
            raw, targets = reconstruction_maps(self.average, batch), batch.observed
        loss = point_loss(raw, targets, self.recipe.alpha)
        return torch.stack((*depth_scores(raw, targets), loss.world_error))

    def _report(self, loss: PointLoss) -> None:
        stage, done = self.stage, self.progress
        left = stage.minutes - done.stage_seconds / 60
        left += sum(later.minutes for later in self.recipe.stages[done.stage + 1 :])
        logger.info(
            "%s step %d, %d views, loss %.3f, world %.3f, camera %.3f, %.1f min left",
            stage.name, done.steps, done.views, float(loss.total), loss.world_error,
            loss.camera_error, left,
        )  # fmt: skip
        self._log({"loss": float(loss.total), "camera_error": float(loss.camera_error)})

    def _log(self, values: dict) -> None:
        entry = {"stage": self.stage.name, **vars(self.progress)} | values
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if "validation" in values:
            logger.info("validation %s", values["validation"])

    def save(self) -> None:
        """Write everything needed to go on; the old state survives an interruption."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
            "stage_steps": self._stage_steps,
            "sampler": self.sampler.rng.bit_generator.state,
        }
        unfinished = self.folder / "state.tmp"
        torch.save(state, unfinished)
        unfinished.rename(self.folder / "state.pt")

    def _restore(self) -> None:
        state = torch.load(self.folder / "state.pt", weights_only=True)
        self.progress = Progress(**state["progress"])
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        if self.progress.stage < len(self.recipe.stages):
            self._begin_stage()
            # `_begin_stage` may have copied weights for a stage that had just begun.
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        self._stage_steps = state["stage_steps"]
        self.sampler.rng.bit_generator.state = state["sampler"]
        logger.info("resumed at step %d", self.progress.steps)


def _part(pack: Pack, picked: slice) -> Pack:
    return Pack(**{name: array[picked] for name, array in vars(pack).items()})


def _copy_matching(source: nn.Module, target: nn.Module) -> None:
    weights = {k: v for k, v in source.state_dict().items() if k in target.state_dict()}
    target.load_state_dict(weights, strict=False)


@torch.no_grad()
def set_prior(network: OccAnyNetwork, pack: Pack, samples: int = 300) -> None:
    """Set the mean-scene prior of the convolutional point heads from the pack's observed views."""
    views = pack.rgb.shape[1]
    depth = torch.from_numpy(pack.depth[:samples, :views]).float()
    rays = torch.from_numpy(pack.rays[:samples, :views]).float()
    points = torch.cat((rays, torch.ones_like(rays[..., :1])), dim=-1) * depth[..., None]
    hit = (depth > 0.3)[..., None]
    count = hit.sum(dim=(0, 1))
    mean = (log_points(points) * hit).sum(dim=(0, 1)) / count.clamp_min(1)
    far = torch.cat((rays.mean(dim=(0, 1)), torch.ones_like(mean[..., :1])), dim=-1)
    mean = torch.where(count < 20, log_points(60 * far), mean).permute(2, 0, 1)
    both = torch.cat((mean, mean, torch.zeros_like(mean[:1])))[None]
    for heads in (network.heads, network.novel_view_heads):
        size = heads.points.prior.shape[-2:]
        heads.points.prior.copy_(nn.functional.interpolate(both, size=size, mode="bilinear"))


@torch.no_grad()
def centre_confidence(network: OccAnyNetwork, pack: Pack) -> None:
    """Shift the confidence logits so that the median confidence of observed surfaces is 2.

    Only the order of confidences is learned; this makes thresholds mean the same for every run.
    """
    network.eval()
    sampler = BatchSampler(pack, seed=2)
    logits = []
    for kind, num_views in (("single", 1), ("sequence", 5), ("surround", 6)):
        batch = sampler.draw(kind, 24 // num_views, num_views)
        logits.append(reconstruction_maps(network, batch)[:, :, 6][batch.observed.valid])
    network.heads.points.prior[:, 6] -= torch.cat(logits).median()


def _quarter_maps(
    heads: Heads, features: Tensor, grid: tuple[int, int], finer: tuple[Tensor, ...]
) -> Tensor:
    """Run the point head up to 1/4 resolution: (B, V, T, D) features -> (B, V, 7, h, w)."""
    sizes = features.shape[:2]
    patches = features.flatten(0, 1)[:, 1:] + heads.point_token
    maps = heads.points.quarter(patches, grid, [part.flatten(0, 1) for part in finer])
    return maps.unflatten(0, sizes)


def reconstruction_maps(network: OccAnyNetwork, batch: Batch) -> Tensor:
    """Return raw maps (B, V, 7, h, w) of the observed views after the re-rendering pass."""
    tokens = network.encode(batch.images)
    memory = network.update_memory(tokens)
    features = network.decoder.render(tokens.tokens, tokens.grid, memory)
    return _quarter_maps(network.heads, features, tokens.grid, tokens.finer)


def _calibrated_points(seen: RawMaps, batch: Batch) -> Tensor:
    """Put predicted depths on true rays and poses, as the pipeline does for known rigs."""
    height, width = seen.confidence.shape[-2:]
    K = camera.pinhole(batch.focal_px, height, width)
    points_cam = camera.backproject(K, seen.points_cam[..., 2].clamp_min(0))
    poses = batch.observed_world_from_cam
    return rigid.apply(poses, points_cam.flatten(2, 3)).view_as(points_cam)


def rendering_maps(network: OccAnyNetwork, batch: Batch) -> Tensor:
    """Return raw maps (B, R, 7, h, w) of the novel views, rendered from the predicted scene."""
    with torch.no_grad():
        tokens = network.encode(batch.images)
        memory = network.update_memory(tokens)
        seen = network.render(tokens, memory)
        features = source_features(batch.images, seen.confidence, seen.segmentation)
        K = camera.pinhole(batch.novel_focal_px, *batch.images.shape[-2:])
        points = _calibrated_points(seen, batch) if batch.is_calibrated else seen.points_world
        projected = project_points(points, features, K, batch.novel_world_from_cam)
    novel_tokens = network.novel_view_encoder(
        network.tokenize(projected), tokens.grid, tokens.tokens
    )
    features = network.novel_view_decoder.render(novel_tokens, tokens.grid, memory)
    return _quarter_maps(network.novel_view_heads, features, tokens.grid, ())
