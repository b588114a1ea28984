"""Speech to text, language models, text to speech, and conversations built from them."""
