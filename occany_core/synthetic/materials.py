# SPDX-License-Identifier: Apache-2.0
"""Colour programs: hits on primitives -> albedo, gloss, emitted light, one program per `Material`.

Windows, bricks, lamps and leaves are computed from the position on the primitive, so nothing is
stored and every view of a surface agrees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from occany_core.synthetic.noise import lattice_hash, value_noise
from occany_core.synthetic.primitives import FOUNDATION, Material
from occany_core.synthetic.ragged import rows
from occany_core.synthetic.scene import Scene

BRIGHTEST_ALBEDO = 1.2
WINDOW_GLOW, VEHICLE_LAMPS = 0.3, 1.5  # linear light at night
SIGNAL_COLORS = ((1.0, 0.1, 0.05), (1.0, 0.75, 0.1), (0.1, 1.0, 0.4))  # red, amber, green


@dataclass(frozen=True)
class Hits:
    """M surface points on primitives of one scene.

    primitive (M,); local (M,3) in the primitive's axes from its centre; world (M,3); metres.
    """

    scene: Scene
    primitive: torch.Tensor
    local: torch.Tensor
    world: torch.Tensor

    def select(self, index: torch.Tensor) -> "Hits":
        """The hits at these positions."""
        return Hits(
            self.scene,
            rows(self.primitive, index),
            rows(self.local, index),
            rows(self.world, index),
        )

    @cached_property
    def half_extent(self) -> torch.Tensor:
        """Half extents (M,3) of the primitives, metres."""
        return rows(self.scene.half_extent, self.primitive)

    @cached_property
    def color(self) -> torch.Tensor:
        """First colour (M,3)."""
        return rows(self.scene.color, self.primitive)

    @cached_property
    def second_color(self) -> torch.Tensor:
        """Second colour (M,3)."""
        return rows(self.scene.second_color, self.primitive)

    @cached_property
    def pattern(self) -> torch.Tensor:
        """Numbers of the material (M,4)."""
        return rows(self.scene.pattern, self.primitive)

    @cached_property
    def velocity(self) -> torch.Tensor:
        """Velocities (M,2) of the primitives, m/s."""
        return rows(self.scene.velocity, self.primitive)

    @cached_property
    def variation(self) -> torch.Tensor:
        """Random number of the primitive (M,) in [0,1)."""
        return rows(self.scene.variation, self.primitive)

    @cached_property
    def _reach(self) -> torch.Tensor:
        """How far out each coordinate lies, 1 on the face."""
        return self.local.abs() / self.half_extent

    @cached_property
    def on_end(self) -> torch.Tensor:
        """Whether the point lies on a front or back face rather than on a long side."""
        return self._reach[:, 0] > self._reach[:, 1]

    @cached_property
    def on_top(self) -> torch.Tensor:
        """Whether the point lies on the top or bottom."""
        return self._reach[:, 2] >= torch.maximum(self._reach[:, 0], self._reach[:, 1])

    @cached_property
    def across(self) -> torch.Tensor:
        """Horizontal coordinate along the face, metres."""
        return torch.where(self.on_end, self.local[:, 1], self.local[:, 0])

    @cached_property
    def above_base(self) -> torch.Tensor:
        """Height above the primitive's bottom, metres."""
        return self.local[:, 2] + self.half_extent[:, 2]

    @cached_property
    def height_share(self) -> torch.Tensor:
        """0 at the bottom, 1 at the top."""
        return self.above_base / (2 * self.half_extent[:, 2])


@dataclass(frozen=True)
class Surface:
    """Look of M points: albedo (M,3), gloss (M,) 0..1, emitted (M,3) linear light."""

    albedo: torch.Tensor
    gloss: torch.Tensor
    emitted: torch.Tensor


def surface_of(hits: Hits) -> Surface:
    """Albedo, gloss and emitted light of all hits."""
    albedo = torch.zeros_like(hits.local)
    gloss = torch.zeros_like(hits.local[:, 0])
    emitted = torch.zeros_like(hits.local)
    material = rows(hits.scene.material, hits.primitive)
    for kind, program in PROGRAMS.items():
        index = torch.nonzero(material == int(kind))[:, 0]
        if index.numel() == 0:
            continue
        part = program(hits.select(index))
        albedo[index] = part.albedo
        gloss[index] = part.gloss
        emitted[index] = part.emitted
    return Surface(albedo.clamp(0, BRIGHTEST_ALBEDO), gloss, emitted)


def _matte(albedo: torch.Tensor) -> Surface:
    return Surface(albedo, torch.zeros_like(albedo[:, 0]), torch.zeros_like(albedo))


def _glossy(albedo: torch.Tensor, gloss: torch.Tensor | float) -> Surface:
    gloss = torch.as_tensor(gloss, device=albedo.device).expand_as(albedo[:, 0])
    return Surface(albedo, gloss, torch.zeros_like(albedo))


def _choose(
    mask: torch.Tensor, yes: torch.Tensor | Sequence[float] | float, no: torch.Tensor
) -> torch.Tensor:
    """`yes` (a number, a colour or (M,3)) where `mask` (M,), else `no` (M,3)."""
    if not isinstance(yes, torch.Tensor):
        yes = torch.tensor(yes, device=no.device)
    return torch.where(mask[:, None], yes, no)


def _angle(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Polar angle (M,) radians; contiguous input, so that torch takes one code path for all."""
    return torch.atan2(y.contiguous(), x.contiguous())


def _plain(hits: Hits) -> Surface:
    x, y, z = hits.world.unbind(-1)
    blotches = value_noise(x * 2.3 + y * 1.7, z * 2.9)
    return _matte(hits.color * (0.92 + 0.16 * blotches)[:, None])


def _facade(hits: Hits) -> Surface:
    """Wall in one of four styles with a window grid, a roof and perhaps shops on the ground."""
    floor_height, spacing, window_share, style = hits.pattern.unbind(-1)
    u, z, seed = hits.across + 50, hits.above_base - FOUNDATION, hits.variation
    row, column = torch.floor(z / floor_height), torch.floor(u / spacing)
    fu, fz = u / spacing - column, z / floor_height - row
    aside = (fu - 0.5).abs()
    tall = torch.where(style == 2, 0.46, 0.30)
    below_roof = hits.above_base < 2 * hits.half_extent[:, 2] - 0.6
    window = (aside < window_share / 2) & ((fz - 0.52).abs() < tall) & ~hits.on_top & below_roof
    frame = ((aside > window_share / 2 - 0.05) | (aside < 0.025)) & window

    wall = _wall(hits, u, z, fu, fz)
    mood = lattice_hash(row + seed * 91, column + seed * 17, hits.on_end.float())
    lamp = torch.tensor([0.9, 0.85, 0.7], device=wall.device)
    glass = (hits.second_color * 0.5 + 0.03) * (0.5 + mood[:, None])
    glass = glass + 0.35 * (mood > 0.82)[:, None] * lamp
    color = _choose(window, _choose(frame, wall * 0.6 + 0.12, glass), wall)

    shop = (z < 3.1) & ~hits.on_top & (seed > 0.45)
    door = shop & ((u % 4.2) > 0.25) & (z > 0.35) & (z < 2.5)
    shop_seed = lattice_hash(torch.floor(u / 4.2), seed * 53.0)
    green = lattice_hash(shop_seed, shop_seed * 3)
    blue = lattice_hash(shop_seed * 7, shop_seed)
    sign = torch.stack([shop_seed, green, blue], -1)
    color = _choose(door, glass * 0.8 + 0.02, color)
    color = _choose(shop & (z > 2.55), sign * 0.8, color)
    roof = torch.full_like(color, 0.3) * (0.7 + 0.5 * seed[:, None])
    color = _choose(hits.on_top, roof, color)
    glow = ((window & ~frame & (mood > 0.72)) | (door & (shop_seed > 0.4)))[:, None] * lamp
    gloss = torch.where(window | door, 0.6, 0.0)
    return Surface(color, gloss, glow * (WINDOW_GLOW * hits.scene.light.lamps))


def _wall(
    hits: Hits, u: torch.Tensor, z: torch.Tensor, fu: torch.Tensor, fz: torch.Tensor
) -> torch.Tensor:
    """Brick (style 1), panels (style 3) or plaster, with stains."""
    style = hits.pattern[:, 3]
    course = torch.floor(z / 0.26) % 2
    brick_joint = ((z % 0.26) < 0.035) | (((u + 0.12 * course) % 0.5) < 0.03)
    panel_joint = (fz < 0.05) | (fu < 0.03)
    wall = _choose((style == 1) & brick_joint, hits.color * 0.72, hits.color)
    wall = _choose((style == 3) & panel_joint, wall * 0.7, wall)
    stains = value_noise(u * 0.4, z * 0.3, hits.variation * 31)
    return wall * (0.86 + 0.2 * stains + 0.08 * value_noise(u * 5, z * 5))[:, None]


def _vehicle_body(hits: Hits) -> Surface:
    """Paint with a dark sill, a door seam, lamps, grille and plates.

    pattern[3] is the variant: 0 car body, 1 truck box, 2 cabin pillar.
    """
    variant = hits.pattern[:, 3]
    x = hits.local[:, 0] / hits.half_extent[:, 0]
    aside = hits.local[:, 1].abs() / hits.half_extent[:, 1]
    share = hits.height_share
    front, back, is_car = x > 0.985, x < -0.985, variant == 0
    lamp = (aside > 0.62) & (share > 0.42) & (share < 0.75) & is_car
    grille = front & (aside < 0.5) & (share > 0.3) & (share < 0.62) & is_car
    plate = (front | back) & (hits.local[:, 1].abs() < 0.26)
    plate = plate & (share > 0.3) & (share < 0.48) & is_car
    color = _choose((share < 0.28) & (variant < 2), hits.color * 0.25, hits.color)
    color = _choose((x.abs() < 0.012) & ~front & ~back, color * 0.5, color)
    color = _choose(front & lamp, (0.95, 0.95, 0.85), color)
    color = _choose(back & lamp, (0.75, 0.03, 0.03), color)
    color = _choose(grille, 0.04, color)
    color = _choose(plate, 0.85, color)
    shine = hits.scene.light.lamps * (hits.velocity.abs().amax(-1) > 0)
    lit = (lamp & (front | back))[:, None] * color * (VEHICLE_LAMPS * shine)[:, None]
    return Surface(color, torch.full_like(variant, 0.5), lit)


def _vehicle_glass(hits: Hits) -> Surface:
    """Window band with pillars in body colour.

    pattern[3] is the variant: 0 car cabin, 1 truck cab, 2 bus, 3 a slanted screen.
    """
    variant, share = hits.pattern[:, 3], hits.height_share
    cabin = (share > 0.08) & (share < 0.86)
    cab = (share > 0.5) & (share < 0.88)
    bus = (share > 0.42) & (share < 0.82)
    band = torch.where(variant == 0, cabin, torch.where(variant == 1, cab, bus))
    x, y, _ = hits.local.unbind(-1)
    end_pillar = y.abs() / hits.half_extent[:, 1] > 0.9
    side_pillar = ((x / hits.half_extent[:, 0]).abs() > 0.92) | (((x + 20) % 1.25) < 0.1)
    pillar = torch.where(hits.on_end, end_pillar, side_pillar)
    body = torch.where(variant == 3, ~hits.on_top | end_pillar, ~band | pillar | hits.on_top)
    return _glossy(_choose(body, hits.second_color, hits.color), torch.where(body, 0.45, 0.9))


def _foliage(hits: Hits) -> Surface:
    x, y, z = hits.world.unbind(-1)
    clumps = value_noise(x * 3.1 + z * 1.3, y * 3.1 - z * 2.1)
    leaves = value_noise(x * 9, y * 9 + z * 11)
    return _matte(hits.color * (0.35 + 1.15 * (clumps * 0.6 + leaves * 0.6))[:, None])


def _hedge(hits: Hits) -> Surface:
    x, y, z = hits.world.unbind(-1)
    leaves, patches = value_noise(x * 6 + y * 5, z * 7), value_noise(x * 0.3, y * 0.3)
    return _matte(hits.color * (0.5 + 0.6 * leaves + 0.3 * patches)[:, None])


def _bark(hits: Hits) -> Surface:
    around = _angle(hits.local[:, 0], hits.local[:, 1])
    grain = value_noise(around * 5, hits.above_base * 1.5)
    return _matte(hits.color * (0.6 + 0.7 * grain)[:, None])


def _wheel(hits: Hits) -> Surface:
    x, _, z = hits.local.unbind(-1)
    radius = (x**2 + z**2).sqrt() / hits.half_extent[:, 0]
    spoke = ((_angle(x, z) * 2.5).sin() > 0)[:, None]
    rim = torch.full_like(hits.color, 0.45) * (0.6 + 0.6 * spoke)
    return _matte(_choose(radius < 0.6, rim, hits.color))


def _sign(hits: Hits) -> Surface:
    """A framed plate with a bar, or (pattern[0] = 1) a traffic light with one lamp on."""
    y = hits.local[:, 1] / hits.half_extent[:, 1]
    z = hits.local[:, 2] / hits.half_extent[:, 2]
    marking = (y.abs().maximum(z.abs()) > 0.78) | ((y.abs() < 0.5) & (z.abs() < 0.18))
    plate = _choose(marking, hits.second_color, hits.color)
    lamp = torch.where(z > 0.33, 0, torch.where(z > -0.33, 1, 2))
    is_on = (hits.variation * 3).long() == lamp
    lamp_color = torch.tensor(SIGNAL_COLORS, device=plate.device)[lamp]
    disc = y**2 + (((z + 1) % 0.667) - 0.333) ** 2 * 8 < 0.5
    signal = _choose(disc & is_on, lamp_color, _choose(disc, lamp_color * 0.12, hits.color))
    is_signal = hits.pattern[:, 0] == 1
    albedo = _choose(is_signal, signal, plate)
    emitted = _choose(is_signal & disc & is_on, lamp_color * 0.8, torch.zeros_like(albedo))
    return Surface(albedo, torch.zeros_like(y), emitted)


def _lamp(hits: Hits) -> Surface:
    """Head of a street lamp; it shines at night."""
    glow = torch.full_like(hits.color, hits.scene.light.lamps) * hits.second_color
    return Surface(hits.color, torch.zeros_like(hits.variation), glow)


def _stripes(hits: Hits) -> Surface:
    first = ((hits.above_base * 1.0 + hits.across * 0.35) % 0.5) < 0.25
    return _matte(_choose(first, hits.color, hits.second_color))


def _brick_wall(hits: Hits) -> Surface:
    u, z = hits.across, hits.above_base
    course = torch.floor(z / 0.2)
    joint = ((z % 0.2) < 0.03) | (((u + 0.1 * (course % 2)) % 0.4) < 0.03)
    shade = 0.8 + 0.4 * lattice_hash(torch.floor(u / 0.4), course)
    return _matte(_choose(joint, hits.color * 0.65, hits.color * shade[:, None]))


def _cloth(hits: Hits) -> Surface:
    folds = value_noise(hits.above_base * 9, hits.across * 6)
    return _matte(hits.color * (0.75 + 0.4 * folds)[:, None])


PROGRAMS = {
    Material.PLAIN: _plain,
    Material.FACADE: _facade,
    Material.VEHICLE_BODY: _vehicle_body,
    Material.VEHICLE_GLASS: _vehicle_glass,
    Material.FOLIAGE: _foliage,
    Material.BARK: _bark,
    Material.WHEEL: _wheel,
    Material.SIGN: _sign,
    Material.CLOTH: _cloth,
    Material.STRIPES: _stripes,
    Material.HEDGE: _hedge,
    Material.BRICK_WALL: _brick_wall,
    Material.RAILS: _plain,
    Material.LAMP: _lamp,
}
