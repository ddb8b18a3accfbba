# SPDX-License-Identifier: Apache-2.0
"""Full pictures of a street: cameras at given times -> colour, depth, class, instance, normal.

Visibility first (`visibility.py`), then normals, materials, sun and shadows per visible point,
then the camera's tone, vignette and noise.
"""

from dataclasses import dataclass

import torch

from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.ground import ground_surface
from occany_core.synthetic.imaging import NOISE_SEED_STRIDE, developed, motion_blurred
from occany_core.synthetic.intersections import in_body_axes, rotate_about_z
from occany_core.synthetic.materials import Hits, surface_of
from occany_core.synthetic.noise import value_noise
from occany_core.synthetic.primitives import Material, Shape
from occany_core.synthetic.ragged import rows
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.shadows import sunlit
from occany_core.synthetic.sky import sky_color
from occany_core.synthetic.visibility import GROUND, SKY, Visibility, cast

AHEAD_COSINE = 0.95
VELOCITY_PROBE = 0.05  # seconds


@dataclass(frozen=True)
class Frames:
    """F rendered pictures of H x W pixels.

    rgb (F,H,W,3) float32 in 0..1 (display values); depth (F,H,W) float32 z-depth in metres, inf
    in the sky; semantics (F,H,W) int64 Occ3D class, `FREE` in the sky; instance (F,H,W) int64,
    0 where ground or sky; normal (F,H,W,3) unit, world frame, 0 in the sky.
    """

    rgb: torch.Tensor
    depth: torch.Tensor
    semantics: torch.Tensor
    instance: torch.Tensor
    normal: torch.Tensor
    rays: torch.Tensor
    """(F,H,W,3) world directions of unit camera depth through the pixel centres."""

    def rgb_uint8(self) -> torch.Tensor:
        """Colours (F,H,W,3) rounded to uint8."""
        return (self.rgb * 255).round().byte()


@dataclass
class _Points:
    """Visible points of all frames, (M,...): where they are and how they look so far."""

    frame: torch.Tensor
    primitive: torch.Tensor
    depth: torch.Tensor
    ray: torch.Tensor
    world: torch.Tensor
    normal: torch.Tensor
    albedo: torch.Tensor
    gloss: torch.Tensor
    emitted: torch.Tensor
    semantics: torch.Tensor
    instance: torch.Tensor


@torch.no_grad()
def render(  # noqa: PLR0913 - cameras, time and picture size are separate things
    scene: Scene,
    K: torch.Tensor,
    world_from_cam: torch.Tensor,
    seconds: torch.Tensor,
    height: int,
    width: int,
    noise_seed: int = 0,
) -> Frames:
    """Renders F cameras, each at its own time.

    K (F,3,3) pixels; world_from_cam (F,4,4); seconds (F,); all float32 on the scene's device.
    `noise_seed` varies the sensor noise of the same world.
    """
    seen = cast(scene, K, world_from_cam, seconds, height, width)
    rgb = torch.zeros_like(seen.rays)
    semantics = torch.full_like(seen.primitive, int(SemanticClass.FREE))
    instance = torch.zeros_like(seen.primitive)
    normal = torch.zeros_like(seen.rays)

    is_sky = seen.primitive.view(-1) == SKY
    sky, solid = torch.nonzero(is_sky)[:, 0], torch.nonzero(~is_sky)[:, 0]
    directions = rows(seen.rays.view(-1, 3), sky)
    rgb.view(-1, 3)[sky] = sky_color(scene, directions)
    points = _visible_points(scene, seen, world_from_cam, solid)
    rgb.view(-1, 3)[solid] = _lit_color(scene, points, seen, seconds)
    semantics.view(-1)[solid] = points.semantics
    instance.view(-1)[solid] = points.instance
    normal.view(-1, 3)[solid] = points.normal
    if scene.imaging.exposure_time:
        rgb = motion_blurred(rgb, _shift(scene, K, world_from_cam, seconds, seen))
    seed = scene.world.seed * NOISE_SEED_STRIDE + noise_seed
    ahead = _looks_ahead(scene, world_from_cam, seconds)
    rgb = developed(rgb, scene.light, scene.imaging, seed, ahead)
    return Frames(rgb, seen.depth, semantics, instance, normal, seen.rays)


def _visible_points(
    scene: Scene, seen: Visibility, world_from_cam: torch.Tensor, pixel: torch.Tensor
) -> _Points:
    """Points at the flat pixel indices `pixel` (M,) of all frames."""
    frame = torch.div(pixel, seen.depth[0].numel(), rounding_mode="floor")
    primitive, depth = rows(seen.primitive.view(-1), pixel), rows(seen.depth.view(-1), pixel)
    ray = rows(seen.rays.view(-1, 3), pixel)
    world = rows(world_from_cam[:, :3, 3], frame) + depth[:, None] * ray
    zeros = torch.zeros_like(world)
    points = _Points(
        frame=frame,
        primitive=primitive,
        depth=depth,
        ray=ray,
        world=world,
        normal=zeros.clone(),
        albedo=zeros.clone(),
        gloss=torch.zeros_like(depth),
        emitted=zeros.clone(),
        semantics=torch.zeros_like(primitive),
        instance=torch.zeros_like(primitive),
    )
    on_ground = torch.nonzero(primitive == GROUND)[:, 0]
    if on_ground.numel():
        albedo, semantics, normal = ground_surface(scene, rows(world, on_ground))
        points.albedo[on_ground], points.semantics[on_ground] = albedo, semantics
        points.normal[on_ground] = normal
        if scene.light.rain:
            _make_wet(points, on_ground, scene.light.rain)
    on_object = torch.nonzero(primitive >= 0)[:, 0]
    if on_object.numel():
        _paint_objects(scene, points, on_object, seen)
    return points


def _make_wet(points: _Points, index: torch.Tensor, rain: float) -> None:
    """Darkens the ground at `index` and lets roads mirror the sky, most in puddles."""
    x, y, _ = rows(points.world, index).unbind(-1)
    is_road = rows(points.semantics, index) == int(SemanticClass.DRIVEABLE_SURFACE)
    puddles = ((value_noise(x * 0.5, y * 0.5) - 0.45) * 5).clamp(0, 1)
    points.gloss[index] = is_road * rain * (0.35 + 0.6 * puddles)
    points.albedo[index] *= 1 - 0.4 * rain


def _paint_objects(scene: Scene, points: _Points, index: torch.Tensor, seen: Visibility) -> None:
    """Fills normal and look of the points on primitives."""
    primitive, world = rows(points.primitive, index), rows(points.world, index)
    cos, sin = rows(scene.cos, primitive), rows(scene.sin, primitive)
    body = rows(points.frame, index) * len(scene) + primitive
    offset = world - rows(seen.centers.view(-1, 3), body)
    shear = rows(seen.shears.view(-1, 2), body)
    local = torch.stack(in_body_axes(offset.unbind(-1), (cos, sin), shear.unbind(-1)), -1)
    normal = _local_normals(scene, primitive, local)
    material = rows(scene.material, primitive)
    leafy = (material == int(Material.FOLIAGE)) | (material == int(Material.HEDGE))
    leafy = torch.nonzero(leafy)[:, 0]
    if leafy.numel():
        normal[leafy] = _rough_normals(rows(normal, leafy), rows(world, leafy))
    x, y, z = rotate_about_z(normal.unbind(-1), cos, -sin)
    normal = torch.stack([x - z * shear[:, 0], y - z * shear[:, 1], z], -1)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    # Through a hole one sees the inside of the far face.
    away = (normal * rows(points.ray, index)).sum(-1, keepdim=True) > 0
    points.normal[index] = torch.where(away, -normal, normal)
    surface = surface_of(Hits(scene, primitive, local, world))
    points.albedo[index] = surface.albedo
    points.gloss[index] = surface.gloss
    points.emitted[index] = surface.emitted
    points.semantics[index] = rows(scene.semantics, primitive)
    points.instance[index] = rows(scene.instance, primitive)


def _local_normals(scene: Scene, primitive: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """Outward unit normals (M,3) in the primitive's axes."""
    half_extent = rows(scene.half_extent, primitive)
    shape = rows(scene.shape, primitive)[:, None]
    reach = local / half_extent
    axis = reach.abs().argmax(-1, keepdim=True)
    box = torch.zeros_like(reach).scatter_(1, axis, torch.gather(reach.sign(), 1, axis))
    ellipsoid = reach / half_extent
    mantle = ellipsoid * torch.tensor([1.0, 1.0, 0.0], device=local.device)
    cap = torch.tensor([0.0, 0.0, 1.0], device=local.device) * reach[:, 2:].sign()
    cylinder = torch.where((reach[:, 2].abs() > 0.999)[:, None], cap, mantle)
    normal = torch.where(shape == int(Shape.CYLINDER), cylinder, ellipsoid)
    normal = torch.where(shape == int(Shape.BOX), box, normal)
    return normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def _rough_normals(normal: torch.Tensor, world: torch.Tensor) -> torch.Tensor:
    """Normals of leaves: bent by noise over the position."""
    x, y, z = world.unbind(-1)
    bend = torch.stack(
        [
            value_noise(x * 5 + 11, y * 5 + z * 3),
            value_noise(y * 5 + 7, z * 5 + x),
            value_noise(z * 5, x * 5 + 3),
        ],
        -1,
    )
    return torch.nn.functional.normalize(normal + 1.3 * (bend - 0.5), dim=-1)


def _lit_color(
    scene: Scene, points: _Points, seen: Visibility, seconds: torch.Tensor
) -> torch.Tensor:
    """Linear light (M,3) that reaches the camera from the visible points."""
    light = scene.light
    sun_share = _sun_share(scene, points, seen)
    x, y, z = points.world.unbind(-1)
    near_base = torch.exp(-(z - scene.ground.relief.height(x, y)).clamp_min(0) * 1.2)
    occlusion = 1 - 0.35 * (near_base * (points.primitive >= 0))[:, None]
    ambient = light.ambient * (0.62 + 0.38 * points.normal[:, 2:3]) * occlusion
    arriving = ambient + sun_share[:, None] * light.sun_color
    if scene.night_lights:
        arriving += scene.night_lights.on(seconds, points.frame, points.world, points.normal)
    color = points.albedo * arriving
    _add_reflections(scene, points, color)
    color = color + points.emitted
    if light.fog:
        clear = torch.exp(-light.fog * points.depth)[:, None]
        color = color * clear + (1 - clear) * (light.sky_color * 0.85 + 0.1 * light.daylight)
    return color


def _sun_share(scene: Scene, points: _Points, seen: Visibility) -> torch.Tensor:
    """Cosine to the sun, zero in shadow (M,); overcast days cast no shadows."""
    share = (points.normal @ scene.light.sun).clamp_min(0)
    if scene.light.overcast:
        return share
    facing = torch.nonzero(share > 0)[:, 0]
    if facing.numel():
        frame, world, normal = (
            rows(part, facing) for part in (points.frame, points.world, points.normal)
        )
        share[facing] *= sunlit(scene, seen, frame, world, normal)
    return share


def _add_reflections(scene: Scene, points: _Points, color: torch.Tensor) -> None:
    """Blends the reflected sky into the colours of glossy points, in place."""
    glossy = torch.nonzero(points.gloss > 0)[:, 0]
    if glossy.numel() == 0:
        return
    ray, normal = rows(points.ray, glossy), rows(points.normal, glossy)
    ray = ray / ray.norm(dim=-1, keepdim=True)
    facing = (ray * normal).sum(-1, keepdim=True)
    mirrored = ray - 2 * facing * normal
    strength = (0.04 + 0.7 * (1 - facing[:, 0].abs()) ** 4).clamp(0, 0.8) * rows(
        points.gloss, glossy
    )
    upward = torch.cat([mirrored[:, :2], mirrored[:, 2:].clamp_min(0.02)], -1)
    street = torch.full_like(mirrored, 0.25) * scene.light.ambient
    seen = torch.where((mirrored[:, 2] > 0.02)[:, None], sky_color(scene, upward), street)
    strength = strength[:, None]
    color[glossy] = rows(color, glossy) * (1 - strength) + seen * strength


def _looks_ahead(
    scene: Scene, world_from_cam: torch.Tensor, seconds: torch.Tensor
) -> torch.Tensor:
    """Bool (F,): cameras whose optical axis runs along the ego vehicle."""
    forward = scene.world.ego_poses(seconds.tolist())[:, :3, 0]
    forward = torch.tensor(forward, device=world_from_cam.device).float()
    return (world_from_cam[:, :3, 2] * forward).sum(-1) > AHEAD_COSINE


def _shift(
    scene: Scene,
    K: torch.Tensor,
    world_from_cam: torch.Tensor,
    seconds: torch.Tensor,
    seen: Visibility,
) -> torch.Tensor:
    """How far each pixel's point moves in the picture while it is exposed, (F,H,W,2) pixels.

    The vehicle moves straight ahead and all else stands still.
    """
    times = seconds.tolist()
    later = scene.world.ego_poses([second + VELOCITY_PROBE for second in times])
    moved = later[:, :3, 3] - scene.world.ego_poses(times)[:, :3, 3]
    velocity = torch.tensor(moved / VELOCITY_PROBE, device=K.device).float()
    rotation = world_from_cam[:, :3, :3]
    step = torch.einsum("fji,fj->fi", rotation, velocity * scene.imaging.exposure_time)
    step = step[:, None, None]
    ray = torch.einsum("fji,fyxj->fyxi", rotation, seen.rays)
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1)[:, None, None]
    return focal * (ray[..., :2] * step[..., 2:] - step[..., :2]) / seen.depth[..., None]
