"""Forward-backward models: data, training and evaluation."""
