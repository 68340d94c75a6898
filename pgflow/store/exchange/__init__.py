"""What workflows do to one another: crossings, inquiries, deliveries."""
