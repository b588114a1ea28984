"""What training minimises: each loss is plain torch, on its own."""
