"""Settings: environment, TOML and flags become one complete, typed, frozen value before anything starts."""
