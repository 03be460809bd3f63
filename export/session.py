"""Runs exported graphs in onnxruntime. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, overload

import numpy as np

from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.data.classify import Several, predict
from nasnet_zoo.data.images import ImageSource, prepare, resized
from nasnet_zoo.data.prediction import Prediction
from nasnet_zoo.errors import ImageError, SessionError, out_of_memory
from nasnet_zoo.util.arguments import checked

from .folder import ExportFolder, find_export
from .providers import SHORT, choose, provider_options, quiet, say

BATCH_SIZE = 32
BOUND_SHAPES = 8  # for how many batch shapes memory stays bound on a GPU


class Session:
    """An exported graph, ready to run. Several threads may use one session. A copy, or one that another process
    unpickles, is made anew from the same file.

    A provider that is absent or fails at its first run is not used, and stderr says so; the next one takes its place.

    Args:
        source: the folder that `nasnet-zoo export` wrote, its model.onnx, or a Hub repo "org/repo[@revision]" that has
            the export under onnx/.
        providers: onnxruntime's names or "tensorrt", "cuda" and "cpu", in the order in which to try them; if None, the
            best that works.
        local_files_only: use only files that are on this machine, and open no connection.

    Raises:
        ExportError: for a graph that this project did not export, or that is damaged.
        DownloadError: if a Hub repo cannot be fetched.
        SessionError: if no provider works.
    """

    @checked
    def __init__(
        self, source: str | Path, providers: Sequence[str] | None = None, *, local_files_only: bool = False
    ) -> None:
        self.folder: ExportFolder = find_export(source, local_files_only)
        self.metadata = self.folder.metadata
        self._asked_for = providers
        self._candidates = choose(providers, self.metadata.precision)
        self._bound: dict[tuple[int, ...], _Bound] = {}
        self._lock = Lock()  # around what is bound, and around the choice of another provider
        self._start()

    def __reduce__(self) -> tuple[Any, ...]:
        """onnxruntime's sessions can be neither copied nor pickled."""
        return type(self), (self.folder.model.absolute(), self._asked_for)

    def __repr__(self) -> str:
        data = self.metadata
        height, width = data.preprocess.size
        size = f"{height} x {width} px" if data.fixed else "any size"
        return f"Session({data.name} {data.precision}, {size}, on {self.provider}, from {self.folder.model})"

    @property
    def provider(self) -> str:
        """The provider that runs the graph: "tensorrt", "cuda" or "cpu"."""
        return SHORT.get(self._candidates[0], self._candidates[0])

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self.metadata.labels

    @property
    def config(self) -> NetworkConfig:
        """The network's config, with the size of the pictures that the graph takes."""
        return replace(NetworkConfig.from_json(self.metadata.config), preprocess=self.metadata.preprocess)

    @property
    def trained(self) -> bool:
        """Whether predictions can mean anything; see ImageNetwork.trained."""
        return self.metadata.trained

    @overload
    def predict(
        self,
        images: Several,
        k: int = 5,
        batch_size: int = BATCH_SIZE,
        errors: Literal["raise"] = "raise",
    ) -> list[list[Prediction]]: ...

    @overload
    def predict(
        self, images: Several, k: int = 5, batch_size: int = BATCH_SIZE, *, errors: Literal["return"]
    ) -> list[list[Prediction] | ImageError]: ...

    @overload
    def predict(
        self,
        images: ImageSource,
        k: int = 5,
        batch_size: int = BATCH_SIZE,
        errors: Literal["raise"] = "raise",
    ) -> list[Prediction]: ...

    @checked
    def predict(
        self,
        images: ImageSource | Iterable[ImageSource],
        k: int = 5,
        batch_size: int = BATCH_SIZE,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[Prediction] | list[list[Prediction] | ImageError] | ImageError:
        """The k most probable classes of one image or of each of several, as Network.predict gives them.

        Args:
            images: whatever `data.images.open_image` takes, or a list or another iterable of it.
            k: how many classes; if the network has fewer, all of them.
            batch_size: how many pictures are computed at a time.
            errors: what an image that cannot be used does: "raise" its ImageError, or "return" it in the place of its
                predictions, so that the other images are answered.

        Returns:
            The predictions, the most probable first: a list for one image, a list of lists for several.

        Raises:
            ImageError: naming the image that cannot be used.
            SessionError: for a k or batch_size below 1, or if the graph cannot be run.
        """
        return predict(self, images, k, batch_size, errors, SessionError)

    def prepare(self, image: ImageSource) -> np.ndarray:
        """A picture as `run` takes it in a batch. Raises ImageError."""
        data = self.metadata
        return (resized if data.pixels else prepare)(image, data.preprocess, data.channels)

    def run(self, array: np.ndarray) -> np.ndarray:
        """Runs the graph on a batch.

        Args:
            array: normalised float32 (batch, channels, height, width), or, if the graph was exported with `pixels`,
                uint8 (batch, height, width, channels).

        Returns:
            Logits, float32 (batch, classes).

        Raises:
            SessionError: for an array of another type or shape, too little memory, or if no provider can run the graph.
        """
        self._check(array)
        while True:
            session = self._session
            try:
                logits = self._run(np.ascontiguousarray(array))
            except Exception as error:  # onnxruntime's errors have no common base
                if out_of_memory(error):
                    raise _too_large(len(array), f"{self.provider} has") from error
                with self._lock:
                    if session is self._session:  # no other thread has left it already
                        self._leave(error)
                        self._start()
            else:
                return self._promised(logits, len(array))

    def _check(self, array: np.ndarray) -> None:
        data = self.metadata
        height, width = data.preprocess.size if data.fixed else ("height", "width")
        order = (height, width, data.channels) if data.pixels else (data.channels, height, width)
        dtype = np.uint8 if data.pixels else np.float32
        fits = isinstance(array, np.ndarray) and array.ndim == 4 and len(array) > 0 and array.dtype == dtype
        if not fits or any(isinstance(n, int) and n != m for n, m in zip(order, array.shape[1:])):
            given = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            wanted = ", ".join(map(str, order))
            raise SessionError(f"{data.name} takes {dtype.__name__} arrays of shape (batch, {wanted}), not {given}")
        if not data.fixed and min(array.shape[2:]) < data.minimum_size:
            least = f"{data.minimum_size} x {data.minimum_size}"
            raise SessionError(f"{data.name} takes pictures of at least {least} pixels, not {array.shape[2:]}")

    def _promised(self, logits: Any, count: int) -> np.ndarray:
        """The logits, if they are what the metadata promises: a graph can give other shapes than it declares."""
        wanted = (count, self.metadata.classes)
        if not isinstance(logits, np.ndarray) or logits.shape != wanted or logits.dtype != np.float32:
            given = getattr(logits, "shape", type(logits).__name__)
            raise SessionError(f"{self.folder.model} gives logits of shape {given}, not {wanted}: export it again")
        return logits

    def _start(self) -> None:
        """Makes onnxruntime's session with the first candidate that can, and drops those before it."""
        import onnxruntime

        while True:
            provider = self._candidates[0]
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # this class reports errors itself, in one sentence
            options.enable_cpu_mem_arena = False  # it would keep the memory of the largest batch, and saves no time
            try:
                model = self.folder.model
                chosen = provider, provider_options(provider, model, self.metadata.precision)
                providers = [chosen, *_after(provider)]
                with quiet(provider):
                    session = onnxruntime.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
                if session.get_providers()[0] != provider:
                    raise SessionError(f"onnxruntime could not start {provider}: it lacks a device or its libraries")
            except Exception as error:
                self._leave(error)
            else:
                self._session, self._bound = session, {}
                return

    def _leave(self, error: Exception) -> None:
        """Gives up the first candidate; raises SessionError if it is the last."""
        failed, *others = self._candidates
        reason = _last_line(error)
        if not others:
            raise SessionError(f"{SHORT.get(failed, failed)} cannot run {self.folder.model}: {reason}") from error
        self._candidates = others
        say(f"{SHORT.get(failed, failed)} does not work here ({reason}); going on with {self.provider}")

    def _run(self, array: np.ndarray) -> np.ndarray:
        if self.provider not in ("cuda", "tensorrt"):
            return self._session.run(["logits"], {self._session.get_inputs()[0].name: array})[0]
        with self._lock:
            # After a run that fails, no memory stays bound.
            bound = self._bound.pop(array.shape, None) or _Bound(self._session, array, self.metadata.classes)
            logits = bound(array)
            self._bound[array.shape] = bound
            if len(self._bound) > BOUND_SHAPES:
                del self._bound[next(iter(self._bound))]
            return logits


class _Bound:
    """Memory on the device for one shape of batch, bound once."""

    def __init__(self, session: Any, array: np.ndarray, classes: int) -> None:
        import onnxruntime

        self.session, self.binding = session, session.io_binding()
        self.input = onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
        self.output = onnxruntime.OrtValue.ortvalue_from_shape_and_type([len(array), classes], np.float32, "cuda", 0)
        self.binding.bind_ortvalue_input(session.get_inputs()[0].name, self.input)
        self.binding.bind_ortvalue_output("logits", self.output)

    def __call__(self, array: np.ndarray) -> np.ndarray:
        self.input.update_inplace(array)
        self.binding.synchronize_inputs()
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()
        return self.output.numpy()


def _after(provider: str) -> list[str]:
    """The providers that take the operations that this one cannot run: the CPU, and for TensorRT first CUDA."""
    after = {"TensorrtExecutionProvider": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
    return after.get(provider, [] if provider == "CPUExecutionProvider" else ["CPUExecutionProvider"])


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


def _too_large(count: int, memory: str) -> SessionError:
    return SessionError(f"a batch of {count} needs more memory than {memory}: give a smaller one")
