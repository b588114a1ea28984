"""Features of audio and images: mel, MFCC and prosody; faces and their geometry."""
