"""Running compiled graphs: lazily built engines, and the native fallback."""
