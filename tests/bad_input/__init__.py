"""What users may get wrong: each mistake gets a clear error and changes nothing."""
