"""Published results as data: the specialized networks, and a latency model of the Pixel 1."""

from nas_core.published.networks import NAMES, PUBLISHED, Published, architecture

__all__ = ["NAMES", "PUBLISHED", "Published", "architecture"]
