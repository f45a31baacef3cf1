"""The pocket world: solids with known ground truth, their renderer and captions, and the prior trained on their pictures."""
