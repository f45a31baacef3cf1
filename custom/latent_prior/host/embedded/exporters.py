"""Exporters: from a trained field to files.

Calling an exporter returns a list of ExporterOutput; the system saves each through its own `save_<save_type>`.
"""

from dataclasses import dataclass
from typing import Any

from latent_prior.host.embedded.base import BaseModule, BaseObject


@dataclass
class ExporterOutput:
    """One file to write: its name, the suffix of the saver method that writes it, and that method's arguments."""

    save_name: str
    save_type: str
    params: dict[str, Any]


class Exporter(BaseObject):
    """Base of all exporters; subclasses implement `__call__`."""

    @dataclass
    class Config(BaseObject.Config):
        save_video: bool = False  # also render the test views and write their turntable on `--export`

    cfg: Config

    def configure(self, geometry: BaseModule, material: BaseModule, background: BaseModule) -> None:
        self._parts = (geometry, material, background)  # private: the system updates them already

    @property
    def geometry(self) -> BaseModule:
        """The trained field."""
        return self._parts[0]

    @property
    def material(self) -> BaseModule:
        """The material that turns the field's features into colour."""
        return self._parts[1]

    @property
    def background(self) -> BaseModule:
        """The background behind the object."""
        return self._parts[2]

    def __call__(self) -> list[ExporterOutput]:
        """Override: extract the outputs to save."""
        raise NotImplementedError(f"{type(self).__name__} does not implement __call__")
