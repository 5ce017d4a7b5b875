"""Along the decision boundary to its point nearest the image."""
