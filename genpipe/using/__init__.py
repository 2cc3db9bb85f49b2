"""A trained model and a person's own input: of the disk only the model's directory is read, never training data."""
