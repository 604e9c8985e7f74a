"""The published settings, and ours."""

# Uniform networks of these shares are scored too, so that the front spans all sizes.
FRONT_SHARES = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
