"""The server: an OpenAI-compatible interface and the playground."""
