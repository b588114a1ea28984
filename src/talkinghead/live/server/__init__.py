"""HTTP and WebSocket server of live avatars."""
