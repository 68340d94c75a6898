"""What runs write: batches of history, turns that are forgotten, transactional activities."""
