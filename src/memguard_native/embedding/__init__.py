"""An OpenAI-compatible embedding server, guarded by this package from the inside.

`create_app(EmbeddingConfig(...))` in `memguard_native.embedding.app` gives the ASGI application;
`memguard embed` serves it. Needs the extra `embed`: pip install "memguard-native[embed]".
"""
