"""Telling people: channels, their dispatch, the heartbeat."""
