"""Commands about pictures: plots, and the adversarial images that runs keep and others bring."""
