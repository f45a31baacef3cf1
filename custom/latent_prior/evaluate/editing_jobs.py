"""What is to be measured of the editors: a job an edit, editor and seed, and the pictures that they are given.

The folder of an evaluation is that of jobs.py, with pictures/ for what is edited. Layered editors are configs, run by
`latent-prior generate`; the masked editor is `latent-prior edit-masked`, which is given the mask always.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from latent_prior import OptionError
from latent_prior.evaluate import jobs
from latent_prior.evaluate.editing_table import BLENDED, MASKED, REFERENCES
from latent_prior.pocket import edits
from latent_prior.pocket.edits import Edit

LAYERED_SYSTEM = "layered-editing-system"
RESERVED = {
    "data.image": "the edits are fixed, use --edits",
    "data.mask": "use --with-mask",
    "system.source_prompt": "it is the edit's",
}


@dataclass(frozen=True, kw_only=True)
class EditJob(jobs.Job):
    """One edit by one editor, its `prompt` the edit in words."""

    edit: Edit


@dataclass(frozen=True)
class Editor:
    """What makes edits: a layered config, with or without the mask, or the masked editor (variant None)."""

    variant: jobs.Variant | None
    masked: bool

    @property
    def label(self) -> str:
        if self.variant is None:
            return BLENDED
        return self.variant.label + (MASKED if self.masked else "")

    @cached_property
    def folder(self) -> str:
        """Its name in the evaluation's folder."""
        if self.variant is None:
            digest = hashlib.sha256(f"edit-masked {jobs.prior_digest()}".encode()).hexdigest()[:6]
            return f"{BLENDED}-{digest}"
        return f"{jobs.slug(self.label)}-{self.variant.folder.rpartition('-')[2]}"

    def command(self, edit: Edit, before: Path, mask: Path, run: Path, seed: int, gpu: str) -> list[str]:
        """The command that makes an edit of the picture `before` in the folder `run`."""
        start = [sys.executable, "-m", "latent_prior"]
        if self.variant is None:
            own = ["--mask", str(mask), "--prompt", edit.target, "--seed", str(seed), "--out", str(run), "--gpu", gpu]
            return [*start, "edit-masked", str(before), *own]
        values = {
            "seed": seed,
            "exp_root_dir": str(run.parent.parent),
            "name": run.parent.name,
            "tag": run.name,
            "use_timestamp": False,
            "data.image": str(before),
            "system.source_prompt": edit.source,
        }
        if self.masked:
            values["data.mask"] = str(mask)
        # JSON, as a value that YAML reads back as it is
        own = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        config = ["--config", str(self.variant.config), "--gpu", gpu]
        return [*start, "generate", edit.target, *self.variant.overrides, *own, *config]


def editors(variants: Sequence[jobs.Variant], with_mask: Sequence[str], blended: bool) -> list[Editor]:
    """Every variant, then those of `with_mask` (labels) with the mask, then the masked editor.

    Raises ValueError for a label that is not there or taken, and for a config that edits no picture.
    """
    labels = [variant.label for variant in variants]
    for variant in variants:
        if variant.settings.get("system_type") != LAYERED_SYSTEM:
            raise OptionError.because(
                f"--config: {variant.label!r} edits no picture: its system_type is {variant.settings.get('system_type')!r}"
            )
        if variant.label in (*REFERENCES, BLENDED) or variant.label.endswith(MASKED):
            raise OptionError.because(
                f"--config: the label {variant.label!r} is taken; choose another with --config LABEL=NAME"
            )
        for override in variant.overrides:
            if (key := override.partition("=")[0]) in RESERVED:
                raise OptionError.because(f"{key} cannot be overridden in an evaluation: {RESERVED[key]}")
    for label in with_mask:
        if label not in labels:
            raise OptionError.because(
                f"--with-mask: there is no variant {label!r}; expected some of {', '.join(labels)}"
            )
    found = [Editor(variant, masked=False) for variant in variants]
    found += [Editor(variant, masked=True) for variant in variants if variant.label in with_mask]
    return found + ([Editor(None, masked=True)] if blended else [])


def planned(chosen: Sequence[Edit], by: Sequence[Editor], seeds: Sequence[int], out: Path, gpu: str) -> list[EditJob]:
    """Every edit: the pictures before and as they should be, then every editor with every seed."""
    found = []
    for edit in chosen:
        # the camera belongs to it, so that another one's results are never taken for these
        name = f"{edit.name}-{hashlib.sha256(repr(edit).encode()).hexdigest()[:4]}"
        before, _, mask = edits.write(edit, out / "pictures")
        for label in REFERENCES:
            result = out / "results" / label / f"{name}.json"
            found.append(
                EditJob(label=label, prompt=edit.told, seed=None, run=out / "pictures", result=result, edit=edit)
            )
        for seed in seeds:
            for editor in by:
                part = f"{name}-seed{seed}"
                run = out / "runs" / editor.folder / part
                found.append(
                    EditJob(
                        label=editor.label,
                        prompt=edit.told,
                        seed=seed,
                        run=run,
                        edit=edit,
                        result=out / "results" / editor.folder / f"{part}.json",
                        launch=out / "launches" / editor.folder / f"{part}.json",
                        command=tuple(editor.command(edit, before, mask, run, seed, gpu)),
                    )
                )
    return found
