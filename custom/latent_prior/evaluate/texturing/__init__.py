"""`latent-prior evaluate texturing`: colour given meshes by prompts, measure what is written, tables and a sheet."""

from latent_prior.evaluate.bench.arguments import Command

COMMAND = Command(
    summary="colours for given meshes",
    help="""Measure texturing of meshes against the ground truth of the pocket world.

Writes the solids of the prompts as meshes without colours (or, for restyling, in another look), launches `latent-prior
generate` with each config on each of them in its own process, and compares the written GLBs with the true solids.
Anything already in --out is not repeated, so an evaluation that was stopped continues when the same command is run
again.""",
    examples="""examples:
  the 16 fixed pairs of a solid and a look, half of them held out of the prior's training, with FM and by LSD alone
    latent-prior evaluate texturing

  three seeds
    latent-prior evaluate texturing --seeds 0 1 2

  from one look to another on the same solid, started from the first one's texture
    latent-prior evaluate texturing --list restyling --config "LSD + FM=pocket_mesh_texture"

  more steps, on the pairs for tuning
    latent-prior evaluate texturing --list tuning --config "LSD + FM=pocket_mesh_texture" \\
        --config "longer=pocket_mesh_texture" trainer.max_steps=300
""",
    plan="latent_prior.evaluate.texturing.evaluation",
    configs={
        "LSD + FM": "pocket_mesh_texture",
        "LSD alone": "pocket_mesh_texture system.loss.lambda_fm=0",
    },
    out="outputs/evaluation_texturing",
    lists={
        "benchmark": "the 16 fixed pairs",
        "tuning": "6 others for tuning",
        "restyling": "the 16 looks, each from another look of the same solid",
    },
    prompts='"a golden duck" "a striped red mug"',
    also_written="meshes/",
)
HELP, SUMMARY, add_arguments = COMMAND.help, COMMAND.summary, COMMAND.add_arguments
