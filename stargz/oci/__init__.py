"""Images: of registries, layouts and archives, opened and converted; a room for each part of it."""
