"""The cascade: stages of gradient attack at one radius, from cheap to costly."""
