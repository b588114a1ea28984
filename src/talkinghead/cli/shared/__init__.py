"""Parts that the command modules share."""
