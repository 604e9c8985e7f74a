"""Students without data: recipe, sources of examples, loop."""
