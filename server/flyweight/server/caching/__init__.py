"""The response cache: answers that were given before, for models whose config.pbtxt asks for it."""

from flyweight.server.caching.cache import CacheStatistics, ResponseCache
from flyweight.server.caching.keys import CacheKey, key_of

__all__ = ["CacheKey", "CacheStatistics", "ResponseCache", "key_of"]
