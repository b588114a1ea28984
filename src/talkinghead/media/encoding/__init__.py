"""Encoding of video and audio: containers, codecs, pixel formats and copied streams."""
