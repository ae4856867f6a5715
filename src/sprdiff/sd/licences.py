"""Licences of pretrained parts, as their model cards state them in 2026-11. This is not legal advice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """The licence of a pretrained model.

    Attributes:
        model: id on the hub.
        part: what preset `sd` uses it for: ``base`` (UNet, VAE) or ``semantic``.
        name, link: of the licence.
        restricts: what it restricts, in one phrase.
        megabytes: of the files that are used, in float32 unless the hub has half precision only.
    """

    model: str
    part: str
    name: str
    link: str
    restricts: str
    megabytes: int


_STABILITY = "https://stability.ai/license"
_RAIL = "https://huggingface.co/spaces/CompVis/stable-diffusion-license"
_RAIL_PLUS = "https://github.com/Stability-AI/stablediffusion/blob/main/LICENSE-MODEL"

LICENCES = (
    Licence(
        "stabilityai/sd-turbo",
        "base",
        "Stability AI Community License",
        _STABILITY,
        "commercial use: registration, free below a yearly revenue only; early revisions: research only",
        3800,
    ),
    Licence(
        "stabilityai/stable-diffusion-2-1",
        "base",
        "CreativeML Open RAIL++-M",
        _RAIL_PLUS,
        "listed harmful uses; the same terms must be passed on; gone from its hub in 2025, mirrors only",
        3800,
    ),
    Licence(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "base",
        "CreativeML Open RAIL-M",
        _RAIL,
        "listed harmful uses; the same terms must be passed on",
        3800,
    ),
    Licence(
        "facebook/dinov2-base",
        "semantic",
        "Apache-2.0",
        "https://www.apache.org/licenses/LICENSE-2.0",
        "nothing beyond notice",
        350,
    ),
    Licence(
        "facebook/dinov2-with-registers-base",
        "semantic",
        "Apache-2.0",
        "https://www.apache.org/licenses/LICENSE-2.0",
        "nothing beyond notice",
        350,
    ),
)


def licence_of(model: str) -> Licence:
    """Return the licence of a model by its id; if it is not known, one that says so."""
    known = next((licence for licence in LICENCES if licence.model == model), None)
    return known or Licence(model, "", "not known here: see its page", "", "see its page", 0)
