"""The judge embeds as transformers does, and names what is there."""

import pytest
import torch
import torch.nn.functional as F
from latent_prior.models.checkpoint import POCKET_FOLDER
from latent_prior.pocket.captions import every_subject, parse
from latent_prior.pocket.judge import Judge, agreement
from latent_prior.pocket.mug_scenes import truth
from transformers import CLIPModel, CLIPTokenizer


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


@pytest.fixture(scope="module")
def pictures():
    z = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    return truth(z, parse("a golden mug"))


def test_similarities_are_those_of_transformers_alone(judge, pictures):
    folder = POCKET_FOLDER / "judge"
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    captions = [subject.caption for subject in every_subject()]
    tokens = CLIPTokenizer.from_pretrained(folder)(captions, padding="max_length", max_length=24, return_tensors="pt")
    with torch.no_grad():  # trained on pixels in [-1, 1]
        features = model.get_image_features(pixel_values=pictures * 2 - 1), model.get_text_features(tokens.input_ids)
    seen, said = (F.normalize(getattr(one, "pooler_output", one), dim=-1) for one in features)
    cosines = seen @ said.T
    torch.testing.assert_close(judge.similarities(pictures), cosines, rtol=0, atol=1e-5)
    assert judge.classify(pictures) == [every_subject()[i] for i in cosines.argmax(1)]
    assert judge.nearest(judge.embed_images(pictures)).tolist() == cosines.argmax(1).tolist()


def test_the_projection_is_the_embedding_before_its_length_is_taken(judge, pictures):
    projected = judge.project_images(pictures)
    torch.testing.assert_close(F.normalize(projected, dim=1), judge.embed_images(pictures))
    assert (projected.norm(dim=1) - 1).abs().min() > 0.1
    assert not judge.embed_images(pictures.clone().requires_grad_()).requires_grad


def test_true_pictures_are_recognised_as_what_they_are(judge, pictures):
    embeddings = judge.embed_images(pictures)
    assert judge.recognised(embeddings, parse("a golden mug")) > 0.8
    assert judge.recognised(embeddings, parse("a red mug")) == 0
    mixed = torch.cat([embeddings[:1].expand(3, -1), judge.embed_images(torch.ones(1, 3, 64, 64))])
    seen = judge.nearest(embeddings[:1])[0]
    assert judge.recognised(mixed, every_subject()[seen]) == 0.75


def test_agreement_by_hand():
    seen = [parse(prompt) for prompt in ("a red mug", "a striped red mug", "a blue mug", "a red duck")]
    assert agreement(seen, [parse("a red mug")] * 4) == {
        "kind": 0.75,
        "colour": 0.75,
        "surface": 0.75,
        "kind and colour": 0.5,
        "all": 0.25,
    }


def test_the_digest_is_of_the_weights(judge):
    again = Judge.load()
    assert again.digest == judge.digest
    with torch.no_grad():
        again.model.visual_projection.weight[0, 0] += 1
    assert again.digest != judge.digest


def test_what_is_no_clip_is_refused_under_the_flag(tmp_path):
    with pytest.raises(ValueError, match="^--judge: .*neither vocab.json nor tokenizer.json"):
        Judge.load(str(tmp_path))
