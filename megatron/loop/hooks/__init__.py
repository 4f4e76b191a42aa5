"""What happens between steps: each file one habit of the loop."""
