"""`latent-prior evaluate text-to-3d`: run or read text-to-3D runs, measure them, write tables and a contact sheet."""

from latent_prior.evaluate.bench.arguments import Command

COMMAND = Command(
    summary="text-to-3D runs",
    help="""Measure text-to-3D runs against the truth of the pocket world.

Launches `latent-prior generate` for every prompt, seed and config, each in a process of its own, or reads runs that are
there (--runs); then compares field and mesh with the true solid, and lets the judge CLIP name what it sees. Whatever is
in --out already is not made again, so an evaluation that was stopped goes on when the same command is given again.""",
    examples="""examples:
  the 16 fixed prompts, 8 of them held out of the prior's training, with the defaults of custom/latent_prior.yaml
    latent-prior evaluate text-to-3d

  the full objective beside LSD alone, three seeds
    latent-prior evaluate text-to-3d --seeds 0 1 2 --config full=latent_prior --config "LSD alone=pocket_dreamfusion"

  the same config with and without feature matching, on the prompts that may be tuned on
    latent-prior evaluate text-to-3d --list tuning --config latent_prior \\
        --config "no FM=latent_prior" system.loss.lambda_fm=0 system.guidance.use_fm=false

  own prompts; what holds for every config comes first
    latent-prior evaluate text-to-3d trainer.max_steps=800 --prompts "a red mug" "a golden duck" --out outputs/two

  runs that are there
    latent-prior evaluate text-to-3d --runs outputs/latent_prior --out outputs/old_runs
""",
    plan="latent_prior.evaluate.text_to_3d.evaluation",
    configs={"latent_prior": "latent_prior"},
    out="outputs/evaluation",
    lists={"benchmark": "the 16 fixed prompts", "tuning": "6 others that may be tuned on"},
    prompts='"a red mug" "a striped blue house"',
    flags=lambda parser: parser.add_argument(
        "--judge", metavar="DIR", help="checkpoint folder with the judge (default: the pocket prior's); none: no judge"
    ),
)
HELP, SUMMARY, add_arguments = COMMAND.help, COMMAND.summary, COMMAND.add_arguments
