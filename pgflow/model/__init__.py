"""Plain data that crosses floors: nothing here does anything."""
