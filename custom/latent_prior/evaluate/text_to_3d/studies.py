"""The studies of `latent-prior evaluate text-to-3d --study NAME`: variants that were fixed before their runs.

Weights were set on tuning prompts alone ("a purple jug", "a striped blue mug", seed 0). Those of the scores make the
mean norm of their gradient on the latents that of LSD: measured at LSD's weight of 0.01, it was 3.6 for LSD, 1.6 for CSD,
4.7 for NFSD, 3.4 for SDI, 3.8 for ISM, 3.9 for Bridge. Of feature matching the better of two was taken: of 0.3 and 3 (LPL),
20 and 60 (pixels alone), 5 and 15 (beside LSD).
"""

from latent_prior.evaluate.bench.arguments import Study

LSD = "pocket_dreamfusion"
# The main job, shorter, and without what no variant changes: the question whether a body is hollow, and the texture.
SHORT = (
    "trainer.max_steps=150",
    "system.hollowing.step=null",
    "system.exporter.texture=false",
    "data.n_test_views=4",
)
# The pocket prior's text encoder spells out words that it does not know: it has learned nothing about flaws.
FLAW = "blurry"

SCORES = Study(
    help="which score and which decoder-side term: ten variants of the main job, 8 prompts, 5 seeds",
    against="LSD",
    list="study",
    seeds=range(5),
    out="outputs/study_scores",
    overrides=SHORT,
    configs={
        "LSD": (LSD,),
        "CSD": (LSD, "system.guidance.score=csd", "system.loss.lambda_sds=0.022"),
        "NFSD": (
            LSD,
            "system.guidance.score=nfsd",
            "system.loss.lambda_sds=0.008",
            f"system.prompt_processor.negative_prompt={FLAW}",
        ),
        "SDI": (LSD, "system.guidance.score=sdi"),
        "ISM": (LSD, "system.guidance.score=ism"),
        "Bridge": (
            LSD,
            "system.guidance.score=[sds,75,bridge]",
            f'system.prompt_processor.src_modifier=", {FLAW}"',
        ),
        "LSD + FM": ("latent_prior",),
        "LSD + FM (LPL)": (
            LSD,
            "system.loss.lambda_fm=3",
            "system.guidance.fm_target=denoised",
            "system.guidance.fm_loss=mse",
            "system.guidance.fm_normalise=shared",
            "system.guidance.fm_max_step_percent=0.2",
            "system.guidance.fm_layers=[mid,up_0,up_1,up_2]",
            "system.guidance.fm_level_weights=[1.0,0.5,0.25,0.125]",
        ),
        "pixels": (
            LSD,
            "system.loss.lambda_sds=0",
            "system.loss.lambda_fm=20",
            "system.guidance.use_sds=false",
            "system.guidance.fm_target=pixel_step",
        ),
        "LSD + pixels": (LSD, "system.loss.lambda_fm=5", "system.guidance.fm_target=pixel_step"),
    },
)

LATENT = "pocket_jacobian_nerf"
NO_FM = ("system.loss.lambda_fm=0", "system.guidance.use_fm=false")
NO_KL = ("system.loss.lambda_kl=0", "system.guidance.use_kl=false")

TERMS = Study(
    help="feature matching and KL in latent space: four variants of pocket_jacobian_nerf, 8 prompts, 5 seeds",
    against="LSD",
    list="study",
    seeds=range(5),
    out="outputs/study_latent_terms",
    configs={
        "LSD": (LATENT, *NO_FM, *NO_KL),
        "LSD + FM": (LATENT, *NO_KL),
        "LSD + KL": (LATENT, *NO_FM),
        "LSD + FM + KL": (LATENT,),
    },
)

STUDIES = {"scores": SCORES, "latent-terms": TERMS}
