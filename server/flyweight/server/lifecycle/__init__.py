"""How variants come and go: source, policy, manager, routing table, lease."""
