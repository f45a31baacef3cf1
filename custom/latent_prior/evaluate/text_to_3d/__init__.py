"""`latent-prior evaluate text-to-3d`: run or load text-to-3D runs, measure them, write tables and a contact sheet."""

from latent_prior.evaluate.bench.arguments import Command
from latent_prior.evaluate.text_to_3d.studies import STUDIES

COMMAND = Command(
    summary="text-to-3D runs",
    help="""Measure text-to-3D runs against the ground truth of the pocket world.

Launches `latent-prior generate` for every prompt, seed and config, each in its own process, or loads existing runs
(--runs); then compares field and mesh with the true solid, and classifies views with the judge CLIP. Anything already
in --out is not repeated, so an evaluation that was stopped continues when the same command is run again.""",
    examples="""examples:
  the 16 fixed prompts, 8 of them held out of the prior's training, with the defaults of custom/latent_prior.yaml
    latent-prior evaluate text-to-3d

  the full objective against LSD alone, three seeds, with paired differences and their intervals
    latent-prior evaluate text-to-3d --seeds 0 1 2 --config full=latent_prior \\
        --config "LSD alone=pocket_dreamfusion" --against "LSD alone"

  a comparison that was declared beforehand
    latent-prior evaluate text-to-3d --study scores --jobs 2

  the same config with and without feature matching, on the prompts for tuning
    latent-prior evaluate text-to-3d --list tuning --config latent_prior \\
        --config "no FM=latent_prior" system.loss.lambda_fm=0 system.guidance.use_fm=false

  custom prompts; overrides for every config come first
    latent-prior evaluate text-to-3d trainer.max_steps=800 --prompts "a red mug" "a golden duck" --out outputs/two

  existing runs
    latent-prior evaluate text-to-3d --runs outputs/latent_prior --out outputs/old_runs
""",
    plan="latent_prior.evaluate.text_to_3d.evaluation",
    configs={"latent_prior": "latent_prior"},
    out="outputs/evaluation",
    lists={
        "benchmark": "the 16 fixed prompts",
        "tuning": "6 others for tuning",
        "study": "every second one of the benchmark's",
    },
    studies=STUDIES,
    prompts='"a red mug" "a striped blue house"',
    flags=lambda parser: parser.add_argument(
        "--judge", metavar="DIR", help="checkpoint folder with the judge (default: the pocket prior's); none: no judge"
    ),
)
HELP, SUMMARY, add_arguments = COMMAND.help, COMMAND.summary, COMMAND.add_arguments
