"""The attempts of activities: where they run, what they are given, what they leave."""
