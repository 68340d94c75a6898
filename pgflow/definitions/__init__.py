"""What users register and send: workflows, activities, signals, messages, and how their functions are read."""
