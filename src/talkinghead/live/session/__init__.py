"""Sessions of the live server: dialogue, WebRTC, and the process that runs them."""
