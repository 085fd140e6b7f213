"""What a run leaves to others: files for LiteRT, and the model that MLflow serves."""
