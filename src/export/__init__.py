"""Exported models: LiteRT files, and the model that MLflow serves."""
