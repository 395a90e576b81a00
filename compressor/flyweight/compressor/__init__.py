"""The compressor: passes, recipes, evaluation, and the rule that a worse variant is not published."""
