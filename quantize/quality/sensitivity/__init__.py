"""What each matrix of a model costs at each width: measured on samples, or by its weights alone."""
