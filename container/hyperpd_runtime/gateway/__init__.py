"""The HTTP front that runs prefill → decode."""
