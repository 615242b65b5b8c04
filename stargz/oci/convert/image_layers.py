"""The layers of an image, of all its platforms: those that are converted, and the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stargz.errors import FormatError
from stargz.oci.convert.layers import NOT_SEEKABLE, LayerOptions, LayerReport, LayerTask
from stargz.oci.convert.plan import Node, Plan
from stargz.oci.convert.rewrite import NewLayer
from stargz.oci.convert.tasks import Tasks
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import SOCI_V2, Descriptor, layer_kind
from stargz.oci.repository import Repository
from stargz.options import is_zstd


class ImageLayers(Tasks[LayerTask, LayerReport]):
    """The layers of all platforms: those to convert as tasks, the others to be copied."""

    def __init__(
        self,
        plan: Plan,
        task: LayerTask,
        source: Repository,
        destination: Destination,
        flatten: bool,
        second: LayerOptions | None = None,
    ) -> None:
        """`second` are the options of the instances in zstd, if there are any."""
        super().__init__(plan, source, destination)
        self._flatten = flatten
        self._second = second
        for node in plan.nodes:
            if node.kind == "image":
                self._plan_image(node, task)
            elif node.manifest.artifact_type != SOCI_V2:  # which may not stay
                for entry in node.blobs:
                    self._copy(entry)

    def _plan_image(self, node: Node, task: LayerTask) -> None:
        layers = node.manifest.layers
        if node.zstd and self._second is not None:
            task = replace(task, options=self._second)
        if self.flattens(node):
            self._tasks[_key(node, layers)] = replace(task, entries=tuple(layers), flatten=True)
            return
        for entry in layers:
            if layer_kind(entry) == "tar":
                self._tasks.setdefault(_key(node, [entry]), replace(task, entries=(entry,)))
            else:
                self._copy(entry)

    def flattens(self, node: Node) -> bool:
        """Whether an image's layers become one, without whiteouts; FormatError where they
        cannot."""
        layers = node.manifest.layers
        if not self._flatten or not layers or (len(layers) < 2 and layer_kind(layers[0]) != "tar"):
            return False
        for entry in layers:
            if layer_kind(entry) != "tar":
                raise FormatError(
                    f"layer {entry.digest} is of the kind {entry.media_type[:100]!r}: such layers "
                    "cannot be merged (--flatten)",
                    node.manifest.source,
                )
        return True

    def missing(self) -> tuple[str, ...]:
        """The prioritized paths that no layer has."""
        made = [self._reports[key] for key, task in self._tasks.items() if task.options.prioritized]
        if not made:
            return ()
        absent = set(made[0].missing).intersection(*(report.missing for report in made[1:]))
        return tuple(path for path in dict.fromkeys(made[0].missing) if path in absent)

    def new(self, node: Node, *entries: Descriptor) -> NewLayer | None:
        """What became of a layer of an image, or of those that were flattened; None if it is as it
        was."""
        report = self._reports.get(_key(node, entries))
        if report is None or not report.is_other:
            return None
        return NewLayer(
            report.digest,
            report.size,
            report.diff_id,
            report.annotations,
            is_zstd(report.format),
            report.status == "kept",
        )

    def tocs(self) -> dict[str, Descriptor]:
        """The external TOCs, by the digests of their layers."""
        return {report.digest: toc for report in self.reports() for toc in report.beside}

    def not_seekable(self) -> LayerReport | None:
        """The first of those that a TOC cannot hold."""
        return next((one for one in self.reports() if one.status == NOT_SEEKABLE), None)


def _key(node: Node, entries: Sequence[Descriptor]) -> tuple[str, ...]:
    """What a task is known by: what it reads, and for which instance of an image."""
    return ("zstd" if node.zstd else "", *(entry.digest for entry in entries))
