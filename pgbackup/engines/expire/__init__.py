"""What retention lets go: decided, recorded, removed."""
