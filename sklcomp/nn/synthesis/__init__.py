"""Examples made without data: generators, noise and their losses."""
