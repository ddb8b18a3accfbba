# SPDX-License-Identifier: Apache-2.0
"""Full pictures of a street: cameras at given times -> colour, depth, class, instance, normal.

Visibility first (`visibility.py`), then normals, materials, sun and shadows per visible point,
then the camera's tone, vignette and noise.
"""

from dataclasses import dataclass

import torch

from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.ground import ground_color
from occany_core.synthetic.intersections import rotate_about_z
from occany_core.synthetic.materials import Hits, surface_of
from occany_core.synthetic.noise import value_noise
from occany_core.synthetic.primitives import Material, Shape
from occany_core.synthetic.ragged import rows
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.shadows import sunlit
from occany_core.synthetic.sky import sky_color
from occany_core.synthetic.visibility import GROUND, SKY, Visibility, cast

NOISE_SEED_STRIDE = 7
GAMMA = 2.2


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
    rgb.view(-1, 3)[solid] = _lit_color(scene, points, seen.centers)
    semantics.view(-1)[solid] = points.semantics
    instance.view(-1)[solid] = points.instance
    normal.view(-1, 3)[solid] = points.normal
    rgb = _expose(scene, rgb, noise_seed)
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
    points.normal[:, 2] = 1
    on_ground = torch.nonzero(primitive == GROUND)[:, 0]
    if on_ground.numel():
        points.albedo[on_ground], points.semantics[on_ground] = ground_color(
            scene, rows(world, on_ground)
        )
    on_object = torch.nonzero(primitive >= 0)[:, 0]
    if on_object.numel():
        _paint_objects(scene, points, on_object, seen.centers)
    return points


def _paint_objects(
    scene: Scene, points: _Points, index: torch.Tensor, centers: torch.Tensor
) -> None:
    """Fills normal and look of the points on primitives."""
    primitive, world = rows(points.primitive, index), rows(points.world, index)
    cos, sin = rows(scene.cos, primitive), rows(scene.sin, primitive)
    frame = rows(points.frame, index)
    center = rows(centers.view(-1, 3), frame * len(scene) + primitive)
    local = torch.stack(rotate_about_z((world - center).unbind(-1), cos, sin), -1)
    normal = _local_normals(scene, primitive, local)
    material = rows(scene.material, primitive)
    leafy = (material == int(Material.FOLIAGE)) | (material == int(Material.HEDGE))
    leafy = torch.nonzero(leafy)[:, 0]
    if leafy.numel():
        normal[leafy] = _rough_normals(rows(normal, leafy), rows(world, leafy))
    points.normal[index] = torch.stack(rotate_about_z(normal.unbind(-1), cos, -sin), -1)
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


def _lit_color(scene: Scene, points: _Points, centers: torch.Tensor) -> torch.Tensor:
    """Linear light (M,3) that reaches the camera from the visible points."""
    light = scene.light
    sun_share = _sun_share(scene, points, centers)
    near_base = torch.exp(-points.world[:, 2:3].clamp_min(0) * 1.2)
    occlusion = 1 - 0.35 * near_base * (points.primitive >= 0)[:, None]
    ambient = light.ambient * (0.62 + 0.38 * points.normal[:, 2:3]) * occlusion
    color = points.albedo * (ambient + sun_share[:, None] * light.sun_color)
    _add_reflections(scene, points, color)
    color = color + points.emitted
    if light.fog:
        clear = torch.exp(-light.fog * points.depth)[:, None]
        color = color * clear + (1 - clear) * (light.sky_color * 0.85 + 0.1)
    return color


def _sun_share(scene: Scene, points: _Points, centers: torch.Tensor) -> torch.Tensor:
    """Cosine to the sun, zero in shadow (M,); overcast days cast no shadows."""
    share = (points.normal @ scene.light.sun).clamp_min(0)
    if scene.light.overcast:
        return share
    for frame in range(len(centers)):
        facing = torch.nonzero((points.frame == frame) & (share > 0))[:, 0]
        if facing.numel():
            lit = sunlit(
                scene, rows(points.world, facing), rows(points.normal, facing), centers[frame]
            )
            share[facing] = share[facing] * lit
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


def _expose(scene: Scene, light_field: torch.Tensor, noise_seed: int) -> torch.Tensor:
    """Linear light (F,H,W,3) -> display values 0..1 with vignette and sensor noise."""
    light, device = scene.light, light_field.device
    height, width = light_field.shape[1:3]
    gains = torch.tensor([light.red_gain, 1.0, 2 - light.red_gain], device=device)
    picture = light_field * light.exposure * gains
    picture = picture / (1 + 0.35 * picture)
    picture = picture.clamp(0, 1) ** (1 / GAMMA)
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=device),
        torch.linspace(-1, 1, width, device=device),
        indexing="ij",
    )
    picture = picture * (1 - light.vignette * (x**2 + y**2)[None, ..., None] * 0.5)
    seed = scene.world.seed * NOISE_SEED_STRIDE + noise_seed
    generator = torch.Generator(device=device).manual_seed(seed)
    noise = torch.randn(picture.shape, generator=generator, device=device)
    return (picture + noise * light.noise).clamp(0, 1)
