"""What runs inside the container: workers, the gateway, and both on one machine."""
