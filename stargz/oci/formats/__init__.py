"""What is stored, and how: references, manifests, image layouts, archives, storage folders."""
