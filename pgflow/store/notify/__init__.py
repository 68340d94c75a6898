"""What shortens a wait, notifications and messages; nothing depends on their arrival."""
