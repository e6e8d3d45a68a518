"""What is known of Node-RED: its admin surface."""
