"""Scripts for those who work on flyweight."""
