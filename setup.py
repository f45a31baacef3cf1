"""Package `latent_prior`, which lies under custom/ because threestudio loads it from there as it stands."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
SWEEP = ["submitit>=1.5.2"]  # many runs: latent-prior sweep and evaluate
APP = ["gradio>=6.20"]  # latent-prior app
NOTEBOOK = ["nbclient>=0.10", "ipykernel>=6.29"]  # to run notebooks/
DOCS = ["mkdocs-material>=9.6", "mkdocstrings[python]>=0.29"]  # to build the pages of docs/
# what threestudio itself imports and pip alone installs; its CUDA packages are its own affair
THREESTUDIO = ["opencv-python-headless>=4.9", "einops>=0.7", "typeguard>=4", "PyMCubes>=0.1.4"]


class BuildWithConfigs(build_py):
    """The configs are edited in the repository's own folders and travel inside the package."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "latent_prior" / "configs"
        target.mkdir(parents=True, exist_ok=True)
        for source in [HERE / "custom" / "latent_prior.yaml", *sorted((HERE / "configs").glob("*.yaml"))]:
            shutil.copyfile(source, target / source.name)


setup(
    name="latent_prior",
    version="0.2.0",
    description="A latent diffusion model as a prior for threestudio, from plain pip, measured against the truth",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={"": "custom"},
    packages=find_packages("custom"),
    package_data={
        "latent_prior": ["py.typed", "pocket/*.json", "pocket/weights/**/*", "pocket/stylegan/*", "report/templates/*"]
    },
    entry_points={"console_scripts": ["latent-prior = latent_prior.cli:main"]},
    install_requires=[
        "torch>=2.6",
        "numpy>=1.26",
        "diffusers>=0.32",
        "transformers>=4.48",
        "accelerate>=1.0",
        "safetensors>=0.4",
        "huggingface_hub>=0.27",
        "pytorch-lightning>=2.6",
        "omegaconf>=2.3",
        "nerfacc>=0.5.3",
        "trimesh>=4.5",
        "scikit-image>=0.24",
        "scipy>=1.13",
        "fast-simplification>=0.1.9",
        "xatlas>=0.0.9",
        "embreex>=2.17.7",
        "imageio>=2.34",
        "imageio-ffmpeg>=0.5",
        "pillow>=10",
        "matplotlib>=3.8",
        "jaxtyping>=0.2.34",
        "jinja2>=3.1",
        "tensorboard>=2.16",
        "filelock>=4.0",
        "psutil>=5.9",
        "tqdm>=4.66",
    ],
    extras_require={
        "wandb": ["wandb"],
        "lora": ["peft>=0.13"],
        "sweep": SWEEP,
        "app": APP,
        "notebook": NOTEBOOK,
        "docs": DOCS,
        "threestudio": THREESTUDIO,
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "beartype>=0.19",
            "ruff>=0.9",
            "mypy>=1.13",
            "import-linter>=2.1",
            "torchmetrics>=1.4",
            "peft>=0.13",
            "playwright>=1.50",
            *SWEEP,
            *APP,
            *NOTEBOOK,
            *DOCS,
            *THREESTUDIO,
        ],
    },
    cmdclass={"build_py": BuildWithConfigs},
)
