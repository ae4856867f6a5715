"""The graphs of a weights folder as onnxruntime sessions; each is loaded when it is first run."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..common.messages import reason
from ..common.processes import available_cores
from ..errors import WeightsError
from ..format.kernels import floats_of
from .graph_check import check_graph
from .onnx_format import Graph, read_graph
from .weights import GRAPHS, MAX_GRAPH, Manifest, read_limited

Arrays = Mapping[str, NDArray[Any]]
Tensors = dict[str, NDArray[np.float32]]

PIXELS = {
    "encoder": ("image", 1),
    "coarse": ("y_hat", 1024),
    "condition": ("x_tilde", 1),
    "flow": ("z_t", 64),
    "vae_decode": ("x_tilde", 1),
}
"""The input from which a graph's picture size follows, and how many pixels each of its positions stands
for."""
_ONLY_FATAL = 4

# If a program has imported onnxruntime before, `sprdiff.privacy` is too late; this call at least stops
# further events. Every version has it, and on Windows it is the only switch.
onnxruntime.disable_telemetry_events()


class Sessions:
    """Runs graphs by name; it may be used from several threads."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None) -> None:
        self._folder, self._manifest, self._threads = folder, manifest, threads
        self._loaded: dict[str, Any] = {}
        self._graphs: dict[str, Graph] = {}
        self._checked: set[tuple[object, ...]] = set()
        self._lock = threading.Lock()

    def run(self, graph: str, weights: Arrays, inputs: Arrays, *, large: bool = False) -> Tensors:
        """Run a graph and return its outputs by name.

        Args:
            weights: the arrays with its initialisers, as they are stored (`read_network`); they are read only
                if the graph is not loaded yet.
            inputs: float32 arrays by name.
            large: release the scratch memory afterwards, which costs time.

        Raises:
            WeightsError: the graph cannot be loaded, needs other weights, is too large, or does not run.
        """
        session = self._session(graph, weights, {name: value.shape for name, value in inputs.items()})
        options = onnxruntime.RunOptions()
        options.log_severity_level = _ONLY_FATAL
        if large:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        _, names = GRAPHS[graph]
        try:
            outputs = session.run(list(names), dict(inputs), options)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise WeightsError(f"the graph {graph} does not run: {reason(error)}") from error
        return dict(zip(names, outputs, strict=True))

    def _session(self, graph: str, weights: Arrays, shapes: dict[str, tuple[int, ...]]) -> Any:
        with self._lock:
            self._check(graph, weights, shapes)
            if graph not in self._loaded:
                self._loaded[graph] = self._load(graph, weights)
            return self._loaded[graph]

    def _check(self, graph: str, weights: Arrays, shapes: dict[str, tuple[int, ...]]) -> None:
        """Refuse a graph that would take too much, before there is a session and for every new size."""
        key = (graph, *shapes.items())
        if key in self._checked:
            return
        path, names = self._folder / f"{graph}.onnx", self._manifest.graphs[graph]
        if missing := sorted(set(names) - set(weights)):
            raise WeightsError(f"{path} wants the weights {missing[0]}, which are not in the folder")
        try:
            if graph not in self._graphs:
                self._graphs[graph] = read_graph(read_limited(path, MAX_GRAPH))
            found = self._graphs[graph]
            if (found.inputs, found.outputs) != GRAPHS[graph]:
                raise WeightsError(f"its inputs and outputs are {found.inputs} and {found.outputs}")
            named, each = PIXELS[graph]
            pixels = shapes[named][-2] * shapes[named][-1] * each
            check_graph(found, {name: weights[name].shape for name in names}, shapes, pixels)
        except WeightsError as error:
            raise WeightsError(f"{path} cannot be loaded: {error}") from error
        self._checked.add(key)

    def _load(self, graph: str, weights: Arrays) -> Any:
        path = self._folder / f"{graph}.onnx"
        model = read_limited(path, MAX_GRAPH)
        names = self._manifest.graphs[graph]
        options = self._options()
        # They are stored small and computed in fp32.
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(floats_of(weights, name)) for name in names]
        try:
            options.add_external_initializers(list(names), values)
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise WeightsError(f"{path} cannot be loaded: {reason(error)}") from error
        return session

    def _options(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ONLY_FATAL
        options.intra_op_num_threads = self._threads or available_cores()
        # Each graph has its own threads: idle ones must not keep a core from the next graph.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        return options
