"""Audio features (mel, MFCC, prosody), and detection, tracking and alignment of faces."""
