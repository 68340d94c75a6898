"""What users may get wrong: each is told clearly and changes nothing."""
