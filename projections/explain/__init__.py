"""What `explain` tells: by which events and rules a task shows what it shows, money first."""
