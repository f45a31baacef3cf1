"""Nothing in a run's folder holds a value from the environment: not its configs, checkpoints, logs or results."""

import yaml
from latent_prior.cli.resume import in_place
from latent_prior.runs import experiment
from latent_prior.runs.folder import config_of, last_checkpoint
from reliability.corpus_checkpoints import CONFIG, STEPS

SECRET = "correct-horse-battery-staple"


def test_a_run_its_export_and_its_continuation_write_the_reference_alone(tmp_path, toys_registered, monkeypatch):
    monkeypatch.setenv("LATENT_PRIOR_SECRET", SECRET)
    monkeypatch.setenv("LATENT_PRIOR_RATE", "0.0123456789")
    config = tmp_path / "toy.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    settings = [
        "description=${oc.env:LATENT_PRIOR_SECRET} on ${slug:${system.loss.token}}",
        "system.loss.token=${oc.env:LATENT_PRIOR_SECRET}",
        "system.optimizer.args.lr=${oc.decode:${oc.env:LATENT_PRIOR_RATE}}",
        "system.optimizer.params.geometry.lr=${system.optimizer.args.lr}",
    ]
    run = experiment.run([str(config)], settings, ("train", "test", "export"), exp_root_dir=str(tmp_path / "out"))
    assert run.system.cfg.loss.token == SECRET and run.system.cfg.optimizer.args.lr == 0.0123456789
    newest = {"resume": str(last_checkpoint(run.folder)), **in_place(run.folder, [])}
    again = experiment.run([str(run.folder / "configs" / "parsed.yaml")], [], ("export",), **newest)
    assert again.system.cfg.loss.token == SECRET
    experiment.run([str(config_of(run.folder))], [f"trainer.max_steps={STEPS + 1}"], ("train",), **newest)
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert {".ckpt", ".yaml", ".json", ".csv"} <= {path.suffix for path in files} and len(files) > 8
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert [path for path in files if b"correct_horse" in path.read_bytes()] == []
    assert "${oc.env:LATENT_PRIOR_SECRET}" in (run.folder / "configs" / "parsed.yaml").read_text()
