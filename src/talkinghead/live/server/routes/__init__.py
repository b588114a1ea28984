"""Routes of the live server."""
