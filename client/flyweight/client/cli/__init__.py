"""The command `flyweight`, and the subcommands that talk to a server."""
