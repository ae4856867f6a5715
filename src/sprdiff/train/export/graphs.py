"""The ONNX graphs: what each computes, and their export with the weights kept outside.

A graph file holds structure only. Its initialisers stay in one ``.npz`` under the torch parameter names, so
there is a single copy of every weight, from which torch loads as strictly as onnxruntime does.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from ...errors import TrainingError
from ...models.config import ModelConfig
from ...models.flow import Conditions
from ...models.sprdiff import SPRDiff, unstandardise
from ...models.triple_encoder import blurred
from ...models.vae import calmed
from ...runtime.weights import GRAPHS

OPSET = 20


class EncoderGraph(nn.Module):
    """The encoder: image [1,3,64a,64b] in 0-1 -> y [1,Cy,2a,2b], z [1,Cz,a,b], both unscaled."""

    def __init__(self, model: SPRDiff, branches: Branches) -> None:
        super().__init__()
        self.triple_encoder, self.latent_codec = model.triple_encoder, model.latent_codec
        self.branches = branches

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self.triple_encoder
        latent = encoder.vae(image, blurred(image))[0] if self.branches.vae else None
        semantic = (
            encoder.semantic(image) if self.branches.semantic and encoder.semantic is not None else None
        )
        y, z = self.latent_codec.analyse(encoder.fuse(encoder.distortion(image), latent, semantic))
        return y, z


class CoarseGraph(nn.Module):
    """The synthesis and the coarse picture: y_hat and means [1,Cy,h,w], features [1,Ch,h,w], level [1] ->
    x_tilde [1,3,32h,32w], f16, f32."""

    def __init__(self, model: SPRDiff) -> None:
        super().__init__()
        self.synthesis, self.reconstruction = model.synthesis, model.reconstruction

    def forward(
        self, y_hat: Tensor, means: Tensor, features: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        f32, f16 = self.synthesis(y_hat, means, features, level)
        return self.reconstruction.coarse(f16), f16, f32


class ConditionGraph(nn.Module):
    """The flow's conditions: x_tilde [1,3,32h,32w] in 0-1, f16, f32 -> features at 1/8, 1/16 and 1/32."""

    def __init__(self, model: SPRDiff) -> None:
        super().__init__()
        self.flow, self.reconstruction = model.flow, model.reconstruction

    def forward(self, x_tilde: Tensor, f16: Tensor, f32: Tensor) -> Conditions:
        return self.flow.condition(x_tilde, *self.reconstruction.conditions(x_tilde, f32, f16))


class FlowGraph(nn.Module):
    """One evaluation of the flow: z_t [1,Z,4h,4w], time, stride and level [1], the conditions -> velocity
    [1,Z,4h,4w]."""

    def __init__(self, model: SPRDiff) -> None:
        super().__init__()
        self.flow = model.flow

    def forward(
        self,
        z_t: Tensor,
        time: Tensor,
        stride: Tensor,
        level: Tensor,
        at8: Tensor,
        at16: Tensor,
        at32: Tensor,
    ) -> Tensor:
        velocity: Tensor = self.flow(z_t, time, stride, level, (at8, at16, at32))
        return velocity


class VAEDecodeGraph(nn.Module):
    """The VAE's decoder: z0 [1,Z,4h,4w], standardised, x_tilde [1,3,32h,32w] in 0-1 -> x_hat
    [1,3,32h,32w]."""

    def __init__(self, model: SPRDiff) -> None:
        super().__init__()
        self.vae_decoder = model.vae_decoder
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", model.latent_mean)
        self.register_buffer("latent_std", model.latent_std)

    def forward(self, z0: Tensor, x_tilde: Tensor) -> Tensor:
        x_hat = self.vae_decoder(unstandardise(z0, self.latent_mean, self.latent_std), x_tilde)
        return calmed(x_hat, x_tilde)


class Branches(NamedTuple):
    """The frozen encoders that the fusion uses; an encoder whose weights there are zero need not be run."""

    vae: bool
    semantic: bool

    @classmethod
    def of(cls, model: SPRDiff) -> Branches:
        """Return the branches that the weights of a model's fusion use."""
        encoder = model.triple_encoder
        semantic = encoder.fuse_semantic
        return cls(bool(encoder.fuse_vae.weight.any()), semantic is not None and bool(semantic.weight.any()))

    @property
    def silent(self) -> tuple[str, ...]:
        """Return the prefixes of the weights that the encoder's graph leaves out."""
        names = [name for name, heard in zip(self._fields, self, strict=True) if not heard]
        return tuple(f"triple_encoder.{prefix}{name}." for name in names for prefix in ("", "fuse_"))


def export_graphs(model: SPRDiff, folder: Path) -> dict[str, list[str]]:
    """Write the graphs; return by the graph's name the sorted names of the weights that each takes.

    Raises:
        TrainingError: the exporter renamed or folded a weight, so that torch could not load it back.
    """
    known, branches = dict(model.state_dict()), Branches.of(model)
    model = _interleaved(_any_weights(model)).eval()
    modules = {
        "encoder": EncoderGraph(model, branches),
        "coarse": CoarseGraph(model),
        "condition": ConditionGraph(model),
        "flow": FlowGraph(model),
        "vae_decode": VAEDecodeGraph(model),
    }
    given = _inputs(model.config)
    graphs = {}
    for name, (inputs, outputs) in GRAPHS.items():
        graphs[name] = _export(
            modules[name], {i: given[i] for i in inputs}, outputs, folder / f"{name}.onnx", known
        )
    return graphs


Input = tuple[Tensor, dict[int, Any]]
"""An example of an input, and which of its sides may have any length."""


def _inputs(config: ModelConfig) -> dict[str, Input]:
    """Return the inputs of every graph, by name."""
    a, b = Dim("a", min=1, max=4096), Dim("b", min=1, max=4096)
    h, w = Dim("h", min=1, max=8192), Dim("w", min=1, max=8192)

    def planes(channels: int, scale: int) -> Input:
        rows, columns = (h, w) if scale == 1 else (scale * h, scale * w)
        return torch.zeros(1, channels, 3 * scale, 4 * scale), {2: rows, 3: columns}

    c32, c16 = config.synthesis
    conditions = {
        name: planes(c, s) for name, c, s in zip(("at8", "at16", "at32"), config.flow, (4, 2, 1), strict=True)
    }
    return {
        "image": (torch.zeros(1, 3, 128, 192), {2: 64 * a, 3: 64 * b}),
        "y_hat": planes(config.y_channels, 1),
        "means": planes(config.y_channels, 1),
        "features": planes(config.hyper_features, 1),
        "x_tilde": planes(3, 32),
        "f16": planes(c16, 2),
        "f32": planes(c32, 1),
        "z_t": planes(config.vae_latent, 4),
        "z0": planes(config.vae_latent, 4),
        # Each input needs its own tensor: the exporter takes one that is given twice for one input.
        **{name: (torch.zeros(1), {}) for name in ("time", "stride", "level")},
        **conditions,
    }


class Interleave(nn.Module):
    """`PixelShuffle(2)` as a concatenation and a move of whole rows: [N,4C,H,W] -> [N,C,2H,2W].

    onnxruntime's own operator for it takes longer, up to 12 ms in decoding 768x512 (dev/LOG.md 52).
    """

    def forward(self, x: Tensor) -> Tensor:
        n, channels, h, w = x.shape
        cells = x.view(n, channels // 4, 2, 2, h, w)
        rows = torch.stack([cells[:, :, :, 0], cells[:, :, :, 1]], -1)
        return rows.movedim(3, 2).reshape(n, channels // 4, 2 * h, 2 * w)


def _interleaved(model: SPRDiff) -> SPRDiff:
    """Replace every `PixelShuffle(2)` of a model, in place; return the model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.PixelShuffle) and child.upscale_factor == 2:
                setattr(module, name, Interleave())
    return model


def _any_weights(model: SPRDiff) -> SPRDiff:
    """Return a copy with random weights, because the exporter merges equal ones and drops an addition of
    zeros."""
    model = copy.deepcopy(model)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.5)
    return model


def _export(
    module: nn.Module, inputs: dict[str, Input], outputs: Sequence[str], path: Path, known: dict[str, Tensor]
) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(v for v, _ in inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(shape for _, shape in inputs.values()),
            optimize=True,
        )
        assert program is not None
    graph: onnx.ModelProto = program.model_proto
    weights: list[str] = []
    kept = []
    for tensor in graph.graph.initializer:
        if tensor.name not in known:
            kept.append(tensor)
            continue
        if tuple(tensor.dims) != tuple(known[tensor.name].shape):
            raise TrainingError(f"{path.name}: the exporter changed the shape of {tensor.name}")
        weights.append(tensor.name)
    if large := [t.name for t in kept if np.prod(t.dims) > 4096]:
        raise TrainingError(f"{path.name}: the exporter folded weights into {', '.join(large[:3])}")
    _externalise(graph, set(weights))
    path.write_bytes(graph.SerializeToString())
    return sorted(weights)


def _externalise(graph: onnx.ModelProto, names: set[str]) -> None:
    """Replace the weights by references that the runtime fills when it loads the graph; nothing else of them
    stays in the file."""
    for tensor in graph.graph.initializer:
        if tensor.name in names:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights.npz")
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del graph.graph.value_info[:]
