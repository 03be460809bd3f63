"""Runs exported graphs in onnxruntime. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, overload

import numpy as np

from nasnet_zoo.data.images import ImageSource, prepare, resized
from nasnet_zoo.data.prediction import Prediction, ranked
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

    @overload
    def predict(
        self, images: list[Any] | tuple[Any, ...], k: int = 5, batch_size: int = BATCH_SIZE
    ) -> list[list[Prediction]]: ...

    @overload
    def predict(self, images: ImageSource, k: int = 5, batch_size: int = BATCH_SIZE) -> list[Prediction]: ...

    @checked
    def predict(
        self, images: ImageSource | list[Any] | tuple[Any, ...], k: int = 5, batch_size: int = BATCH_SIZE
    ) -> list[Prediction] | list[list[Prediction]]:
        """The k most probable classes of one image or of each in a list, as Network.predict gives them.

        Args:
            images: whatever `data.images.open_image` takes, or a list of it.
            k: how many classes; if the network has fewer, all of them.
            batch_size: how many pictures are computed at a time.

        Returns:
            The predictions, the most probable first: a list for one image, a list of lists for a list.

        Raises:
            ImageError: naming the image that cannot be used.
            SessionError: for a k or batch_size below 1, or if the graph cannot be run.
        """
        if k < 1 or batch_size < 1:
            raise SessionError(f"k {k} and batch_size {batch_size} must be at least 1")
        sources = images if isinstance(images, (list, tuple)) else [images]
        results: list[list[Prediction]] = []
        for start in range(0, len(sources), batch_size):
            indices = range(start, min(start + batch_size, len(sources)))
            try:
                batch = np.stack([self._prepared(sources, i) for i in indices])
            except MemoryError as error:
                raise _too_large(len(indices), "there is") from error
            results += [ranked(row, self.labels, k) for row in self.run(batch)]
        return results if sources is images else results[0]

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

    def _prepared(self, sources: list[ImageSource], index: int) -> np.ndarray:
        data = self.metadata
        try:
            if data.pixels:
                return resized(sources[index], data.preprocess, data.channels)
            return prepare(sources[index], data.preprocess, data.channels)
        except ImageError as error:
            where = f"image {index + 1} of {len(sources)}: " if len(sources) > 1 else ""
            raise ImageError(f"{where}{error}") from error

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
