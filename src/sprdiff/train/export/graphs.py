"""The four ONNX graphs: what each computes, and their export with the weights kept outside.

A graph file holds structure only. Its initialisers stay in one ``.npz`` as fp16 under the torch parameter names, so
there is a single copy of every weight, from which torch loads as strictly as onnxruntime does.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from ...errors import TrainingError
from ...models.sprdiff import SPRDiff, unstandardise

OPSET = 20


class EncoderGraph(nn.Module):
    """image [1,3,64a,64b] in 0-1 -> y [1,Cy,2a,2b], z [1,Cz,a,b], both unscaled."""

    def __init__(self, model: SPRDiff) -> None:
        super().__init__()
        self.triple_encoder, self.latent_codec = model.triple_encoder, model.latent_codec

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        y, z = self.latent_codec.analyse(self.triple_encoder(image))
        return y, z


class CoarseGraph(nn.Module):
    """y_hat [1,Cy,h,w], level [1] -> x_tilde [1,3,32h,32w], z_est, c_pix [1,·,2h,2w], c_sem [1,S,h,w]."""

    def __init__(self, model: SPRDiff) -> None:
        super().__init__()
        self.synthesis, self.reconstruction = model.synthesis, model.reconstruction

    def forward(self, y_hat: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        f32, f16, z_est = self.synthesis(y_hat, level)
        coarse, c_pix, c_sem = self.reconstruction(f32, f16)
        return coarse, z_est, c_pix, c_sem


class DenoiseGraph(nn.Module):
    """z_t [1,Z,2h,2w], t [1], c_pix, c_sem -> z0."""

    def __init__(self, model: SPRDiff) -> None:
        super().__init__()
        self.denoiser = model.denoiser

    def forward(self, z_t: Tensor, t: Tensor, c_pix: Tensor, c_sem: Tensor) -> Tensor:
        z0: Tensor = self.denoiser(z_t, t, c_pix, c_sem)
        return z0


class VAEDecodeGraph(nn.Module):
    """z0 [1,Z,2h,2w], x_tilde [1,3,32h,32w] in 0-1, noise [1,N,8h,8w] -> x_hat [1,3,32h,32w]."""

    def __init__(self, model: SPRDiff) -> None:
        super().__init__()
        self.vae_decoder = model.vae_decoder
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", model.latent_mean)
        self.register_buffer("latent_std", model.latent_std)

    def forward(self, z0: Tensor, x_tilde: Tensor, noise: Tensor) -> Tensor:
        x_hat: Tensor = self.vae_decoder(unstandardise(z0, self.latent_mean, self.latent_std), x_tilde, noise)
        return x_hat


def export_graphs(model: SPRDiff, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Write the four graphs; returns the fp16 initialisers of each by the graph's name.

    Raises:
        TrainingError: the exporter renamed or folded a weight, so that torch could not load it back.
    """
    config = model.config
    a, b = Dim("a", min=1, max=4096), Dim("b", min=1, max=4096)
    h, w = Dim("h", min=1, max=8192), Dim("w", min=1, max=8192)
    fine, token = {2: 2 * h, 3: 2 * w}, {2: h, 3: w}
    y, level = torch.zeros(1, config.y_channels, 3, 4), torch.zeros(1)
    latent = torch.zeros(1, config.vae_latent, 6, 8)
    pixel = torch.zeros(1, config.pixel_condition, 6, 8)
    semantic = torch.zeros(1, config.semantic_condition, 3, 4)
    known = dict(model.state_dict())
    model = _interleaved(_any_weights(model))
    graphs = {}
    graphs["encoder"] = _export(EncoderGraph(model), {"image": (torch.zeros(1, 3, 128, 192), {2: 64 * a, 3: 64 * b})},
                      ["y", "z"], folder / "encoder.onnx", known)  # fmt: skip
    graphs["coarse"] = _export(CoarseGraph(model), {"y_hat": (y, token), "level": (level, {})},
                      ["x_tilde", "z_est", "c_pix", "c_sem"], folder / "coarse.onnx", known)  # fmt: skip
    inputs = {
        "z_t": (latent, fine),
        "t": (torch.ones(1), {}),
        "c_pix": (pixel, fine),
        "c_sem": (semantic, token),
    }
    graphs["denoise"] = _export(DenoiseGraph(model), inputs, ["z0"], folder / "denoise.onnx", known)
    inputs = {
        "z0": (latent, fine),
        "x_tilde": (torch.zeros(1, 3, 96, 128), {2: 32 * h, 3: 32 * w}),
        "noise": (torch.zeros(1, config.noise, 24, 32), {2: 8 * h, 3: 8 * w}),
    }
    graphs["vae_decode"] = _export(VAEDecodeGraph(model), inputs, ["x_hat"], folder / "vae_decode.onnx", known)
    return graphs


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
    """The model with every `PixelShuffle(2)` replaced, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.PixelShuffle) and child.upscale_factor == 2:
                setattr(module, name, Interleave())
    return model


def _any_weights(model: SPRDiff) -> SPRDiff:
    """A copy with random weights: the exporter merges those that are equal, and drops an addition of zeros."""
    model = copy.deepcopy(model)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.5)
    return model


def _export(module: nn.Module, inputs: dict[str, tuple[Tensor, dict[int, Dim]]], outputs: list[str], path: Path,
            known: dict[str, Tensor]) -> dict[str, np.ndarray]:  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), tuple(v for v, _ in inputs.values()), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=list(inputs), output_names=outputs,
            dynamic_shapes=tuple(shape for _, shape in inputs.values()), optimize=True,
        )  # fmt: skip
        assert program is not None
    graph: onnx.ModelProto = program.model_proto
    weights: dict[str, np.ndarray] = {}
    kept = []
    for tensor in graph.graph.initializer:
        if tensor.name not in known:
            kept.append(tensor)
            continue
        value = known[tensor.name].detach().cpu().numpy()
        if tuple(tensor.dims) != value.shape:
            raise TrainingError(f"{path.name}: the exporter changed the shape of {tensor.name}")
        weights[tensor.name] = value.astype(np.float16)
    if large := [t.name for t in kept if np.prod(t.dims) > 4096]:
        raise TrainingError(f"{path.name}: the exporter folded weights into {', '.join(large[:3])}")
    _externalise(graph, set(weights))
    path.write_bytes(graph.SerializeToString())
    return weights


def _externalise(graph: onnx.ModelProto, names: set[str]) -> None:
    """Replace the weights by references that the runtime fills at load; nothing else is left of them in the file."""
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
