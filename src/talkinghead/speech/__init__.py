"""Hears, thinks and speaks: speech to text, language models, text to speech, and conversations."""
