"""Everything the plugin registers, imported once: after this module is loaded the host's registry knows our types."""

import latent_prior.data.latent_codes
import latent_prior.data.one_picture
import latent_prior.guidance.clip_guidance
import latent_prior.guidance.latent_prior
import latent_prior.guidance.prompt_processor
import latent_prior.meshes.exporter
import latent_prior.meshes.texture_exporter
import latent_prior.meshes.textured_mesh
import latent_prior.rendering.latent_material
import latent_prior.rendering.mesh_rasterizer
import latent_prior.rendering.sdf_grid
import latent_prior.rendering.volume_renderer
import latent_prior.systems.layered_editing
import latent_prior.systems.stylegan_adaptation
import latent_prior.systems.text_to_3d  # noqa: F401
