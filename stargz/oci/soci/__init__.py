"""Makes SOCI indexes of images: layers stay as they are, what can be read of them lazily is kept
beside them."""
