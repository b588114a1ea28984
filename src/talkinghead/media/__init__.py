"""Reading and writing of images, video and audio as streams, and conversions of time."""
