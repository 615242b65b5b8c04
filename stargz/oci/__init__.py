"""Images: references, credentials, the registry client, image layouts, open images."""
