"""What is known of Node-RED."""
