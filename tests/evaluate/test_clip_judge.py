"""The judge names what is there, as the pocket prior's own reading of it does."""

import pytest
import torch
import torch.nn.functional as F
from latent_prior.evaluate.clip_judge import ClipJudge
from latent_prior.models.checkpoint import POCKET_FOLDER
from latent_prior.pocket.captions import every_subject, parse
from latent_prior.pocket.judge import Judge
from latent_prior.pocket.mug_scenes import truth


@pytest.fixture(scope="module")
def judge():
    return ClipJudge.load(str(POCKET_FOLDER / "judge"))


@pytest.fixture(scope="module")
def pictures():
    z = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    return truth(z, parse("a golden mug"))


def test_it_agrees_with_the_judge_of_text_to_3d(judge, pictures):
    other = Judge.load(POCKET_FOLDER, torch.device("cpu"))
    embeddings = judge.embed_images(pictures)
    cosines = embeddings @ judge.embed_texts([subject.caption for subject in every_subject()]).T
    torch.testing.assert_close(cosines, other.similarities(pictures), rtol=0, atol=1e-5)
    assert [every_subject()[i] for i in judge.nearest(embeddings)] == other.classify(pictures)


def test_the_projection_is_the_embedding_before_its_length_is_taken(judge, pictures):
    projected = judge.project_images(pictures)
    torch.testing.assert_close(F.normalize(projected, dim=1), judge.embed_images(pictures))
    assert (projected.norm(dim=1) - 1).abs().min() > 0.1


def test_true_pictures_are_recognised_as_what_they_are(judge, pictures):
    embeddings = judge.embed_images(pictures)
    assert judge.recognised(embeddings, parse("a golden mug")) > 0.8
    assert judge.recognised(embeddings, parse("a red mug")) == 0
    mixed = torch.cat([embeddings[:1].expand(3, -1), judge.embed_images(torch.ones(1, 3, 64, 64))])
    seen = judge.nearest(embeddings[:1])[0]
    assert judge.recognised(mixed, every_subject()[seen]) == 0.75


def test_the_digest_is_of_the_weights(judge):
    again = ClipJudge.load(str(POCKET_FOLDER / "judge"))
    assert again.digest == judge.digest
    with torch.no_grad():
        again.model.visual_projection.weight[0, 0] += 1
    assert again.digest != judge.digest


def test_what_is_no_clip_is_refused_under_the_flag(tmp_path):
    with pytest.raises(ValueError, match="^--judge: .*neither vocab.json nor tokenizer.json"):
        ClipJudge.load(str(tmp_path))
