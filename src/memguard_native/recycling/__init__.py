"""Replacing worker processes before they harm: by requests, age, memory or verdict."""
