"""One run: tune, fit, evaluate, and the result that comes of it."""
