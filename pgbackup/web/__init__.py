"""What the resident process shows over HTTP: liveness, readiness, metrics, status."""
