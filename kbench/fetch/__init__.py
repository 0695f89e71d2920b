"""Published data brought from where they lie: never by a run, only where somebody asks for it."""
