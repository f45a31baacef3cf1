"""Geometries, materials, backgrounds, the renderer and the exporter, on small fields."""

import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
import trimesh
from config_fields import Idle, Refused, Table, To
from latent_prior import host
from latent_prior.host.embedded.backgrounds import (
    NeuralEnvironmentMapBackground,
    SolidColorBackground,
    TexturedBackground,
)
from latent_prior.host.embedded.geometry import ImplicitSDF, ImplicitVolume, VolumeGrid
from latent_prior.host.embedded.materials import DiffuseWithPointLightMaterial, NoMaterial
from latent_prior.meshes.exporter import VertexColorMeshExporter
from latent_prior.meshes.texture_exporter import TexturedMeshExporter
from latent_prior.meshes.textured_mesh import TexturedMesh
from latent_prior.rendering.latent_material import LatentColourMaterial
from latent_prior.rendering.mesh_rasterizer import MeshRasterizer
from latent_prior.rendering.sdf_grid import SDFGrid
from latent_prior.rendering.volume_renderer import DenseVolumeRenderer
from meshes.scenes import three_nodes

GRID = {"otype": "HashGrid", "n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8, "base_resolution": 4}
GRID |= {"per_level_scale": 1.5}
MLP = {"otype": "VanillaMLP", "activation": "ReLU", "output_activation": "none", "n_neurons": 8, "n_hidden_layers": 1}


def volume(settings=None) -> VolumeGrid:
    """A ball with a smaller one beside it."""
    small = {"grid_size": [9, 9, 9], "density_bias": 0.0, "isosurface_resolution": 16, "isosurface_threshold": 8.0}
    geometry = VolumeGrid(small | (settings or {}))
    torch.nn.init.normal_(geometry.grid, generator=torch.Generator().manual_seed(0))
    points = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in geometry.grid.shape[2:]], indexing="ij"))
    balls = [((points - torch.tensor(centre).view(3, 1, 1, 1)).norm(dim=0), r) for centre, r in BALLS]
    geometry.grid.data[0, 0] = torch.stack([(r - distance) * 40 for distance, r in balls]).amax(0)
    return geometry


BALLS = [((-0.3, 0.0, 0.0), 0.45), ((0.5, 0.5, 0.5), 0.4)]


def parts(geometry=None):
    channels = 3 if geometry is None else geometry.cfg.n_feature_dims
    return {
        "geometry": volume() if geometry is None else geometry,
        "material": NoMaterial({"n_output_dims": channels}),
        "background": SolidColorBackground({"n_output_dims": channels, "color": [1.0]}),
    }


def export(geometry, settings=None, material=None):
    """The mesh's tensors, the files, the most points asked for at once, and whether a video is made."""
    name = "forward_sdf" if hasattr(geometry, "forward_sdf") else "forward_density"
    asked, field = [], getattr(geometry, name)
    setattr(geometry, name, lambda points: asked.append(points.shape[:-1].numel()) or field(points))
    own = parts(geometry) | ({"material": material} if material else {})
    exporter = VertexColorMeshExporter({"isosurface_threshold": None, "fmt": "ply"} | (settings or {}), **own)
    files = {out.save_name: open(out.params["src_path"], "rb").read() for out in exporter()}
    system = SimpleNamespace(exporter=exporter, test_step=lambda *_: videos.append(True))
    videos = []
    host.BaseLift3DSystem.predict_step(system, {}, 0)
    return {"files": files, "most": max(asked), "videos": videos}


def see_geometry(geometry):
    points = (torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1) * 0.8
    field = geometry(points, output_normal=True)
    flat = geometry.cfg.n_feature_dims != 3
    return {"field": field, "mesh": None if flat else export(geometry, {"min_component_fraction": 0.8})}


def see_volume(settings, given):
    return see_geometry(volume(settings))


def see_implicit(settings, given):
    small = {"pos_encoding_config": GRID, "mlp_network_config": MLP, "isosurface_resolution": 8}
    small |= {"isosurface_threshold": 2.0, "density_blob_scale": 12.0}
    return see_geometry(ImplicitVolume(small | settings))


def see_distances(settings, given):
    small = {"pos_encoding_config": GRID, "mlp_network_config": MLP, "isosurface_resolution": 8}
    small |= {"sdf_bias": "sphere", "sdf_bias_params": 0.5}
    return see_geometry(ImplicitSDF(small | settings))


def distance_grid(settings=None) -> SDFGrid:
    """A ball with a smaller one beside it, and random levels."""
    small = {"levels": [4, 9], "feature_size": 5, "isosurface_resolution": 16, "sphere": 0.4, "level_scale": 0.1}
    geometry = SDFGrid(small | (settings or {}))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        geometry.features.normal_(generator=draw)
        for level in geometry.levels[:-1]:
            level.normal_(std=0.3, generator=draw)
        if geometry.levels[-1].shape[-1] == 9:
            geometry.levels[-1][0, 0, 7, 7, 7] = 20.0
    return geometry


def see_distance_grid(settings, given):
    geometry = distance_grid(settings)
    geometry.update_step(0, 5)
    return see_geometry(geometry)


def rays(count=2, side=6):
    settings = {"batch_size": count, "height": side, "width": side, "camera_distance_range": [2.0, 2.0]}
    data = host.find("random-camera-datamodule")(settings)
    data.setup("fit")
    return data.train_dataset.collate(None)


def see_renderer(settings, given):
    if "inv_std" in settings:
        return DenseVolumeRenderer({"num_samples_per_ray": 6} | settings, **parts(distance_grid()))(**rays())
    batch, own = rays(), parts()
    renderer = DenseVolumeRenderer({"num_samples_per_ray": 6} | settings, **own)
    chunks, density = [], own["geometry"].forward_density
    own["geometry"].forward_density = lambda points: chunks.append(points.shape[:-1].numel()) or density(points)
    out = {"train": renderer(**batch)}
    renderer.update_step(0, 16)
    out["later"] = renderer(**batch)
    renderer.eval()
    for background in own.values():
        background.eval()
    with torch.no_grad():
        chunks.clear()
        return out | {"shown": renderer(**batch), "chunks": [max(chunks), len(chunks)]}


def see_exporter(settings, given):
    geometry = volume({"n_feature_dims": 4} if "latent_to_rgb" in settings else {"isosurface_threshold": 6.0})
    if "fill_cavities" in settings:
        geometry.grid.data[0, 0, 1:-1, 1:-1, 1:-1] = 40.0  # a block with a cavity
        geometry.grid.data[0, 0, 4, 4, 4] = -200.0
    textures = {}
    if settings.get("texture"):
        textures = {"fmt": "obj", "max_faces": 60, "texture_size": 32}
    return export(geometry, textures | settings)


@cache
def meshes():
    """A coloured box and a scene, in a folder that lasts as long as the tests."""
    folder = tempfile.TemporaryDirectory()
    box = trimesh.creation.box((1.0, 2.0, 3.0))
    box.visual.vertex_colors = np.arange(4 * len(box.vertices)).reshape(-1, 4) * 7
    box.export(f"{folder.name}/box.ply")
    trimesh.creation.icosphere(1).export(f"{folder.name}/ball.stl")
    Path(folder.name, "scene.glb").write_bytes(three_nodes().to_glb())
    return folder


def mesh_file(name):
    return f"{meshes().name}/{name}"


def textured(settings=None) -> TexturedMesh:
    settings = {"mesh": "box.ply", "field": {"grid_size": [4, 4, 4], "radius": 0.8}} | (settings or {})
    geometry = TexturedMesh(settings | {"mesh": mesh_file(settings["mesh"])})
    for parameter in geometry.field.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    return geometry


def see_textured(settings, given):
    geometry = textured(settings)
    faces = torch.arange(len(geometry.t_pos_idx))
    weights = torch.full((len(faces), 3), 1 / 3)
    points = geometry.v_pos[geometry.t_pos_idx.long()].mean(1)
    return {"mesh": geometry.isosurface().v_pos, "features": geometry.features_at(points, faces, weights)}


def see_rasterizer(settings, given):
    own = parts() | {"geometry": textured()}
    renderer = MeshRasterizer(settings, **own)
    return {key: value for key, value in renderer(**rays()).items() if isinstance(value, torch.Tensor)}


def see_texture_exporter(settings, given):
    channels = 4 if "latent_to_rgb" in settings else 3
    geometry = textured({"field": {"grid_size": [4, 4, 4], "n_feature_dims": channels, "radius": 0.8}})
    own = parts() | {"geometry": geometry, "material": NoMaterial({"n_output_dims": channels})}
    exporter = TexturedMeshExporter({"texture_size": 48} | settings, **own)
    files = {out.save_name: open(out.params["src_path"], "rb").read() for out in exporter()}
    videos = []
    system = SimpleNamespace(exporter=exporter, test_step=lambda *_: videos.append(True))
    host.BaseLift3DSystem.predict_step(system, {}, 0)
    return {"files": files, "videos": videos}


def see_lit_material(settings, given):
    material = DiffuseWithPointLightMaterial(settings)
    draw = torch.Generator().manual_seed(0)
    light = {key: torch.randn(5, 3, generator=draw) for key in ("features", "positions", "light_positions")}
    light["shading_normal"] = torch.nn.functional.normalize(torch.randn(5, 3, generator=draw), dim=-1)
    seen = []
    for step in (500, 1000):
        material.train().update_step(0, step)
        seen += [material(**light) for _ in range(8)]
        material.eval()
        seen.append(material(**light))
    return seen + [material.export(light["features"])]


def see_material(material, features):
    points = torch.randn(5, features, generator=torch.Generator().manual_seed(0))
    return {"colour": material(features=points), "weights": material.state_dict()}


def see_no_material(settings, given):
    return see_material(NoMaterial(settings), settings.get("n_output_dims", 3))


def see_latent_material(settings, given):
    small = {"LEVELS": 2, "LATENT_SIDE": 4}  # fewer colours to fit, on smaller pictures
    with patch.multiple("latent_prior.models.latent_colours", **small):
        material = LatentColourMaterial({"pretrained_model_name_or_path": str(given.prior)} | settings)
    return see_material(material, 4)


def see_background(cls):
    def see(settings, given):
        background, directions = cls(settings), rays()["rays_d"]
        return {"drawn": background(directions), "weights": background.state_dict()}

    return see


GEOMETRY = {
    "density_activation": "trunc_exp",
    "normal_type": Refused(None, "normal_type is None"),
    "radius": 0.8,
    "isosurface": Refused(False, "isosurface is False"),
    "isosurface_resolution": 24,
    "isosurface_threshold": 4.0,
    "isosurface_chunk": 100,
    "isosurface_coarse_to_fine": False,
}
DISTANCES = {name: probe for name, probe in GEOMETRY.items() if name != "density_activation"}
DISTANCES |= {"isosurface_threshold": 0.05}
TABLES = [
    Table(
        VolumeGrid.Config,
        see_volume,
        GEOMETRY
        | {
            "isosurface_remove_outliers": False,
            "grid_size": [8, 9, 10],
            "n_feature_dims": 4,
            "density_bias": 1.0,
            "density_blob_scale": To(3.0, {"density_bias": "blob"}),
            "density_blob_std": To(0.3, {"density_bias": "blob"}),
        },
    ),
    Table(
        ImplicitVolume.Config,
        see_implicit,
        GEOMETRY
        | {
            "isosurface_remove_outliers": Idle(False, "this field is of one piece; volume-grid's probe has two"),
            "n_feature_dims": 4,
            "density_bias": "blob_dreamfusion",
            "density_blob_scale": 8.0,
            "density_blob_std": 0.3,
            "pos_encoding_config": GRID | {"n_levels": 3},
            "mlp_network_config": MLP | {"n_neurons": 6},
            "finite_difference_normal_eps": 0.2,
        },
    ),
    Table(
        ImplicitSDF.Config,
        see_distances,
        DISTANCES
        | {
            "isosurface_remove_outliers": Idle(False, "this field is of one piece; sdf-grid's probe has two"),
            "n_feature_dims": 4,
            "pos_encoding_config": GRID | {"n_levels": 3},
            "mlp_network_config": MLP | {"n_neurons": 6},
            "finite_difference_normal_eps": 0.2,
            "sdf_bias": To("ellipsoid", {"sdf_bias_params": [0.5, 0.4, 0.3], "sdf_bias": -0.1}),
            "sdf_bias_params": 0.4,
        },
    ),
    Table(
        SDFGrid.Config,
        see_distance_grid,
        {name: probe for name, probe in DISTANCES.items() if name != "normal_type"}
        | {
            "isosurface_remove_outliers": False,
            "levels": [4, 6, 9],
            "level_scale": 0.2,
            "level_steps": [0, 4],
            "level_fade": To(3, {"level_steps": [0, 4]}),
            "sphere": 0.3,
            "feature_size": 6,
            "n_feature_dims": 4,
        },
    ),
    Table(
        NoMaterial.Config,
        see_no_material,
        {
            "n_output_dims": 4,
            "color_activation": "none",
        },
    ),
    Table(
        LatentColourMaterial.Config,
        see_latent_material,
        {
            "pretrained_model_name_or_path": lambda given: str(given.other_prior),
        },
    ),
    Table(
        SolidColorBackground.Config,
        see_background(SolidColorBackground),
        {
            "n_output_dims": To(1, {"color": [0.5]}),
            "color": [0.1, 0.2, 0.3],
        },
    ),
    Table(
        TexturedBackground.Config,
        see_background(TexturedBackground),
        {
            "n_output_dims": 4,
            "height": 8,
            "width": 8,
            "color_activation": "none",
        },
    ),
    Table(
        NeuralEnvironmentMapBackground.Config,
        see_background(NeuralEnvironmentMapBackground),
        {
            "n_output_dims": 4,
            "color_activation": "none",
            "dir_encoding_config": {"otype": "SphericalHarmonics", "degree": 2},
            "mlp_network_config": MLP,
        },
    ),
    Table(
        DenseVolumeRenderer.Config,
        see_renderer,
        {
            "radius": 0.8,
            "bounds": "sphere",
            "num_samples_per_ray": 7,
            "near_plane": 1.5,
            "far_plane": 2.0,
            "randomized": False,
            "eval_chunk_size": 60,
            "return_comp_normal": True,
            "return_eval_normal": False,
            "return_normal_perturb": True,
            "grid_prune": True,
            "prune_alpha": To(0.9, {"grid_prune": True}),
            "prune_resolution": To(4, {"grid_prune": True}),
            "prune_every": To(17, {"grid_prune": True}),
            "inv_std": To(20.0, {"inv_std": 64.0}),
        },
    ),
    Table(
        TexturedMesh.Config,
        see_textured,
        {
            "mesh": "ball.stl",
            "up": "y",
            "front": "x",
            "parts": To(["lamp"], {"mesh": "scene.glb"}),
            "radius": 0.6,
            "start": "texture",
            "field_type": To("implicit-volume", {"field": {}}),
            "field": {"grid_size": [5, 5, 5]},
        },
    ),
    Table(MeshRasterizer.Config, see_rasterizer, {"supersample": 2, "return_comp_normal": True}),
    Table(
        TexturedMeshExporter.Config,
        see_texture_exporter,
        {
            "save_video": True,
            "fmt": "ply",
            "save_name": "thing",
            "texture_size": 32,
            "texture_timeout": 1e-4,
            "latent_to_rgb": To([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], {"latent_to_rgb": [[0, 0, 0]] * 4}),
        },
    ),
    Table(
        DiffuseWithPointLightMaterial.Config,
        see_lit_material,
        {
            "ambient_light_color": [0.2, 0.1, 0.0],
            "diffuse_light_color": [0.8, 0.7, 0.6],
            "ambient_only_steps": 100,
            "diffuse_prob": 0.2,
            "textureless_prob": 0.0,
            "albedo_activation": "none",
            "soft_shading": True,
            "ambient_only_on_test": True,
        },
    ),
    Table(
        VertexColorMeshExporter.Config,
        see_exporter,
        {
            "save_video": True,
            "fmt": To("stl", {"fmt": "ply"}),
            "save_name": "thing",
            "up": "y",
            "isosurface_resolution": 24,
            "isosurface_threshold": "auto",
            "min_component_fraction": 0.8,
            "fill_cavities": To(False, {"fill_cavities": True}),
            "smoothing": 1.0,
            "max_faces": 100,
            "texture": To(False, {"fmt": "obj", "max_faces": 60, "texture_size": 32}),
            "texture_size": To(64, {"texture": True}),
            "texture_timeout": To(1e-4, {"texture": True}),
            "glb_for": To("trimesh", {"fmt": "glb", "texture": False}),
            "bounds": To("sphere", {"isosurface_threshold": 1e-3}),
            "latent_to_rgb": To([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], {"latent_to_rgb": [[0, 0, 0]] * 4}),
        },
    ),
]
