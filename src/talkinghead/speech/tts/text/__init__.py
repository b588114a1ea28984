"""Text as a voice can speak it: markup, symbols and letters of other scripts."""
