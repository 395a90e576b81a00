"""Passes that train a torch module, alone or from a teacher."""
