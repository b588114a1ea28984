"""Reading and writing of pictures, video and sound as streams, and every conversion of time."""
