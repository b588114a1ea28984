"""The lip-sync generator and its parts."""
