"""What knows nothing of networks: files, and the environment."""
