"""DataFreeDistiller and its parts: recipe, sources of examples, training, scores."""
