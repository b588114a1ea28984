"""Ways to send the frames of a live session: WebRTC, and encoded images for a WebSocket."""
