"""Commands about the adversarial images that runs keep and others bring."""
