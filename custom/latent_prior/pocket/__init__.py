"""The pocket world: solids whose truth is known, their renderer and captions, the judge, and the prior trained on it."""
