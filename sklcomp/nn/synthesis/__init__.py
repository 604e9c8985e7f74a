"""The parts of learning without data: generators, structured noise and losses."""
