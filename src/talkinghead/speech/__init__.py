"""Speech to text, language models, text to speech, and conversations that combine them."""
