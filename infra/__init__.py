"""What the chain runs on: images, manifests, and the same services as processes of one machine."""
