"""Images read whole, and checked."""
